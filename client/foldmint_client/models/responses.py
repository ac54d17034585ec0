"""What a server answers, as plain Python: tokens, the model served, and health."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from foldmint.v1 import tokenizer_pb2
from foldmint_client.errors import FailedPrecondition, ServerError
from foldmint_client.models.assignment import Assignment
from foldmint_client.models.job_version import ACTIVE, JobVersion
from foldmint_client.models.left_out import LeftOut, LeftOutKind
from foldmint_client.models.tokenize_request import Reading

_Scalar = TypeVar("_Scalar", bound=np.generic)

FRAME_BYTES = 12 * 4
"""Of a segment's first frame."""

_ASSIGNMENTS: dict[int, Assignment | None] = {
    tokenizer_pb2.ASSIGNMENT_UNSPECIFIED: None,
    tokenizer_pb2.ASSIGNMENT_INDEPENDENT: "independent",
    tokenizer_pb2.ASSIGNMENT_ANCHORED: "anchored",
    tokenizer_pb2.ASSIGNMENT_TRACKING: "tracking",
}


@dataclass(frozen=True, eq=False)
class ChainTokens:
    """The tokens of one chain.

    sequence: one letter a residue. residue_index: (residues,), int32. insertion_codes: one character a residue, or
    empty if no residue has one. tokens: (residues,), uint16; up to two more with special tokens. has_frame:
    (residues,), bool: whether N, CA and C are there; the token of a residue without them says nothing but that.
    distances: (residues,), float32, in the units of the code vectors, NaN without a frame; None unless requested.

    Of models whose codes encode motions, None of others: assignment: how the tokens were chosen. segment_starts:
    (segments,), int32, the first residue of each stretch without a gap. first_frames: (segments, 12), float32, the
    frame of that residue, rotation matrix row by row and CA in Å, NaN where it has none; None unless requested.
    composed_rmsd: RMSD of N, CA and C, Å, that composing the tokens reaches, each segment superposed on its own; None
    of independent tokens.
    """

    chain: str
    sequence: str
    residue_index: npt.NDArray[np.int32]
    insertion_codes: str
    tokens: npt.NDArray[np.uint16]
    has_frame: npt.NDArray[np.bool_]
    distances: npt.NDArray[np.float32] | None
    assignment: Assignment | None = None
    segment_starts: npt.NDArray[np.int32] | None = None
    first_frames: npt.NDArray[np.float32] | None = None
    composed_rmsd: float | None = None

    def __len__(self) -> int:
        """Number of residues."""
        return len(self.residue_index)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a structure, with the names of the model and codebook version that they belong to.

    left_out: what the file holds and the tokens do not cover. warnings: what a person should know, a sentence each.
    codebook_digest, encoder_digest: SHA-256, in hexadecimal. All are empty if an older server answered.
    """

    model: str
    codebook_version: str
    chains: tuple[ChainTokens, ...]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    codebook_digest: str = ""
    encoder_digest: str = ""

    def __len__(self) -> int:
        """Number of residues, in all chains."""
        return sum(map(len, self.chains))

    @property
    def version(self) -> JobVersion:
        """What the tokens are of; as `codebook_version` of another call, it asks for exactly the same."""
        return JobVersion(self.codebook_version, self.codebook_digest, self.encoder_digest, self.model)


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of the encoder and its codebook. out: dimensions of a code's vector."""

    width: int
    heads: int
    layers: int
    out: int
    codes: int


@dataclass(frozen=True)
class Vocabulary:
    """Token ids: 0 to codes - 1 are codes."""

    codes: int
    mask: int
    eos: int
    bos: int
    pad: int
    chainbreak: int


@dataclass(frozen=True)
class RequestLimits:
    """What a request may hold at most; unpacked_bytes: of a file, after gzip. 0: the server did not say.

    detokenize_residues: of a structure to detokenize; 0 if the model has no decoder.
    """

    residues: int
    chains: int
    unpacked_bytes: int
    message_bytes: int
    detokenize_residues: int


@dataclass(frozen=True)
class DecoderInfo:
    """A decoder: SHA-256 of its weights, and its sizes. chained: whether it places each residue from the one before.

    reads_vectors: whether it reads the codes' vectors, and corrects the motions that they encode; otherwise, token ids.
    """

    digest: str
    width: int
    heads: int
    layers: int
    chained: bool
    reads_vectors: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """What a server serves. Digests are SHA-256, in hexadecimal. decoder: None if it cannot detokenize.

    default_reading: which residues of a file count if a request does not say. lever: Å, of codes that encode motions;
    None if they state none.
    """

    model: str
    encoder_digest: str
    codebook_version: str
    codebook_digest: str
    sizes: ModelSizes
    vocabulary: Vocabulary
    limits: RequestLimits
    server_version: str
    default_reading: Reading
    decoder: DecoderInfo | None
    lever: float | None = None


class Health(StrEnum):
    """What grpc.health.v1 says of a service. SERVICE_UNKNOWN: the server has no service of that name."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


def to_tokens(
    response: tokenizer_pb2.TokenizeResponse, request: tokenizer_pb2.TokenizeRequest, version: JobVersion
) -> Tokens:
    """The message as a result. request: that it answers. version: that it must be of, as far as it is known.

    Raises FailedPrecondition if it is of another encoder or codebook than it must be, even one of the same name.
    Raises ServerError if its fields do not fit together, or it is not what was asked for: old servers do not hear of
    versions, of assignments, nor of how to read a file.
    """
    assignment = request.options.assignment
    for chain in response.chains:
        if assignment not in (tokenizer_pb2.ASSIGNMENT_UNSPECIFIED, chain.assignment):
            wish = tokenizer_pb2.Assignment.Name(assignment).removeprefix("ASSIGNMENT_").lower()
            raise ServerError(f"the server ignored the request for {wish} assignment")
    wanted = request.codebook_version
    if wanted not in ("", ACTIVE, response.codebook_version):
        raise ServerError(f"the answer is of codebook version {response.codebook_version}, and {wanted} was asked for")
    file = request.file
    asked = file.reading or file.HasField("min_plddt") or file.assembly or file.renumber
    if asked and not response.reading:
        raise ServerError("the server is too old to know of reading, min_plddt, assembly and renumber")
    tokens = Tokens(
        response.model,
        response.codebook_version,
        tuple(map(_to_chain, response.chains)),
        tuple(map(_to_left_out, response.left_out)),
        tuple(response.warnings),
        response.codebook_digest,
        response.encoder_digest,
    )
    if difference := version.difference(tokens.version):
        raise FailedPrecondition(f"the server answered with {difference}")
    return tokens


def to_model(response: tokenizer_pb2.GetModelResponse) -> ModelInfo:
    """The message as a result."""
    sizes, vocabulary, limits = response.sizes, response.vocabulary, response.limits
    decoder = response.decoder
    return ModelInfo(
        model=response.model,
        encoder_digest=response.encoder_digest,
        codebook_version=response.codebook_version,
        codebook_digest=response.codebook_digest,
        sizes=ModelSizes(sizes.width, sizes.heads, sizes.layers, sizes.out, sizes.codes),
        vocabulary=Vocabulary(
            vocabulary.codes,
            vocabulary.mask,
            vocabulary.eos,
            vocabulary.bos,
            vocabulary.pad,
            vocabulary.chainbreak,
        ),
        limits=RequestLimits(
            limits.residues, limits.chains, limits.unpacked_bytes, limits.message_bytes, limits.detokenize_residues
        ),
        server_version=response.server_version,
        default_reading="esm" if response.default_reading == tokenizer_pb2.READING_ESM else "all",
        decoder=(
            DecoderInfo(
                decoder.digest,
                decoder.width,
                decoder.heads,
                decoder.layers,
                decoder.chained,
                decoder.reads_vectors,
            )
            if response.HasField("decoder")
            else None
        ),
        lever=response.motion.lever if response.HasField("motion") else None,
    )


def _to_left_out(message: tokenizer_pb2.LeftOut) -> LeftOut:
    kinds = tokenizer_pb2.LeftOutKind
    name = kinds.Name(message.kind).removeprefix("LEFT_OUT_KIND_") if message.kind in kinds.values() else ""
    kind = LeftOutKind.__members__.get(name, LeftOutKind.OTHER)
    return LeftOut(kind, message.chain, message.residues, tuple(message.names), message.of_protein)


def _to_chain(message: tokenizer_pb2.TokenizedChain) -> ChainTokens:
    residues = len(message.residue_index)
    lengths = {
        "tokens": len(message.tokens) in range(residues, residues + 3),
        "has_frame": len(message.has_frame) == residues,
        "distances": len(message.distances) in (0, residues),
        "sequence": len(message.sequence) == residues,
        "insertion_codes": len(message.insertion_codes) in (0, residues),
        "segment_starts": len(message.segment_starts) <= residues,
        "first_frames": len(message.first_frames) in (0, FRAME_BYTES * len(message.segment_starts)),
        "assignment": message.assignment in _ASSIGNMENTS,
    }
    for field, fits in lengths.items():
        if not fits:
            raise ServerError(f"the answer's {field} do not fit the {residues} residues of chain {message.chain!r}")
    return ChainTokens(
        chain=message.chain,
        sequence=message.sequence,
        residue_index=_array(message.residue_index, np.int32),
        insertion_codes=message.insertion_codes,
        tokens=_array(message.tokens, np.uint16),
        has_frame=_array(message.has_frame, np.bool_),
        distances=_array(message.distances, np.float32) if message.distances else None,
        assignment=_ASSIGNMENTS[message.assignment],
        segment_starts=_array(message.segment_starts, np.int32) if message.segment_starts else None,
        first_frames=(
            np.frombuffer(message.first_frames, "<f4").astype(np.float32).reshape(-1, 12)
            if message.first_frames
            else None
        ),
        composed_rmsd=message.composed_rmsd if message.HasField("composed_rmsd") else None,
    )


def _array(field: Collection[float], dtype: type[_Scalar]) -> npt.NDArray[_Scalar]:
    try:
        return np.fromiter(field, dtype, len(field))
    except OverflowError as error:
        raise ServerError(f"the answer holds a number that {np.dtype(dtype)} cannot: {error}") from error
