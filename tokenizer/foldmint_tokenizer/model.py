"""What a store holds, in memory: a model, and one version of its codebook."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder, ModelConfig
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder
from foldmint_tokenizer.structure.options import Reading


class DecoderRows(NamedTuple):
    """What a decoder reads of some codes: codes (k,) int64, and the rows (k, width) of its embedding for them."""

    codes: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class CodebookVersion:
    """One version of a codebook. digest: SHA-256 of its file.

    windows: (codes, 9, 3, 3), Å, mean backbone (N, CA, C) of the nine residues around those that got a code, in the
    middle one's frame; NaN for codes that were never met; None if it was not measured. decoder_rows: of codes that mean
    something else than in the model's own decoder. manifest: as it was written.
    """

    version: str
    digest: str
    codebook: Codebook
    windows: Tensor | None = None
    decoder_rows: DecoderRows | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def embedding(self, decoder: AnyDecoder) -> Tensor:
        """What the model's decoder reads of each token (vocabulary, width), for this version's codes."""
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

    encoder_digest, decoder_digest: SHA-256 of their files. reading: which residues of a file count, unless a caller
    says otherwise. lever: Å, of codes that state motions (`motions`); None if the model's codes state none.
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
    """A model without a codebook, as `Model` names its parts."""

    name: str
    config: ModelConfig
    encoder: Encoder
    encoder_digest: str
    decoder: AnyDecoder | None
    decoder_digest: str | None
    reading: Reading
    lever: float | None
