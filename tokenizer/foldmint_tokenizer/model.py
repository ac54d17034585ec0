"""A model and one version of its codebook, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.structure.options import Reading


class DecoderRows(NamedTuple):
    """Decoder inputs that override the model's own for some codes.

    codes: (k,) int64. rows: (k, width), the rows of the decoder's embedding for them.
    """

    codes: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class CodebookVersion:
    """One version of a codebook.

    digest: SHA-256 of its file. windows: (codes, 9, 3, 3), Å, backbone fragments: for each code, the mean N, CA and C
    of the nine residues around its residues, in the middle residue's frame; NaN for codes that never occurred; None if
    not measured. decoder_rows: decoder inputs of codes whose meaning differs from that in the model's own decoder.
    manifest: the manifest file's contents.
    """

    version: str
    digest: str
    codebook: Codebook
    windows: Tensor | None = None
    decoder_rows: DecoderRows | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def embedding(self, decoder: AnyDecoder) -> Tensor:
        """The decoder's input for each token (vocabulary, width), with this version's codes."""
        if isinstance(decoder, MotionDecoder):
            return decoder.embedding(self.codebook.embeddings.to(decoder.center.device)).detach()
        own = decoder.embed.weight.detach()
        if self.decoder_rows is None:
            return own
        codes, rows = (part.to(own.device) for part in self.decoder_rows)
        return own.index_copy(0, codes, rows)


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder, one version of its codebook, and a decoder if there is one.

    encoder_digest, decoder_digest: SHA-256 of their files. reading: which residues of a file count by default. lever:
    the lever arm, Å, if the codes encode motions (`motions`); otherwise None.
    """

    name: str
    config: ModelConfig
    encoder: Encoder
    encoder_digest: str
    codebook: CodebookVersion
    decoder: AnyDecoder | None = None
    decoder_digest: str | None = None
    reading: Reading = "all"
    lever: float | None = None


class Weights(NamedTuple):
    """A model without a codebook; fields as in `Model`."""

    name: str
    config: ModelConfig
    encoder: Encoder
    encoder_digest: str
    decoder: AnyDecoder | None
    decoder_digest: str | None
    reading: Reading
    lever: float | None
