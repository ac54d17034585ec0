"""What a server makes of tokens, as plain Python: backbones, and how far to trust them."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldmint.v1 import tokenizer_pb2
from foldmint_client.errors import ServerError

_RESIDUE_BYTES = 3 * 3 * 4


@dataclass(frozen=True, eq=False)
class DecodedChain:
    """The backbone of one chain.

    sequence, residue_index (residues,) int32, insertion_codes: as they were given with the tokens; X, and 1, 2, 3, ...
    where they were not. coordinates: (residues, 3, 3), float32: residue, atom (N, CA, C), axis; Å; all chains of a
    structure in one frame of reference. plddt: (residues,), float32, 0 to 1: the lDDT that the decoder expects. Both
    are NaN in gaps: residues that were said to have no frame. segment_starts: (segments,), int32, the first residue of
    each stretch without a gap. placed: (segments,), bool: whether it stands where the structure had it, seen from the
    others that do; otherwise it follows the residue before it as if bonded, and where it stood is not known.
    """

    chain: str
    sequence: str
    residue_index: npt.NDArray[np.int32]
    insertion_codes: str
    coordinates: npt.NDArray[np.float32]
    plddt: npt.NDArray[np.float32]
    segment_starts: npt.NDArray[np.int32] = dataclasses.field(default_factory=lambda: np.zeros(1, np.int32))
    placed: npt.NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.ones(1, np.bool_))

    def __len__(self) -> int:
        """Number of residues, gaps among them."""
        return len(self.residue_index)

    @property
    def gaps(self) -> int:
        """Number of residues without coordinates."""
        return int(np.isnan(self.plddt).sum())


@dataclass(frozen=True, eq=False)
class Decoded:
    """The structure that tokens stand for.

    ptm: the TM-score that the decoder expects, 0 to 1, of residues with a frame; NaN if there are none. pae: (residues,
    residues), float32, Å, over all chains: the error expected of the column's CA, seen from the row's frame; NaN in
    rows and columns of gaps. file: the structure as PDB or mmCIF. Both are None
    unless requested.
    """

    model: str
    codebook_version: str
    chains: tuple[DecodedChain, ...]
    ptm: float
    pae: npt.NDArray[np.float32] | None
    file: bytes | None

    def __len__(self) -> int:
        """Number of residues, in all chains."""
        return sum(map(len, self.chains))


def to_decoded(response: tokenizer_pb2.DetokenizeResponse, request: tokenizer_pb2.DetokenizeRequest) -> Decoded:
    """The message as a result. request: that it answers.

    Raises ServerError if its fields do not fit together, or it has coordinates where gaps were requested: old servers
    know of none.
    """
    chains = tuple(map(_to_chain, response.chains))
    residues = sum(map(len, chains))
    for asked, chain in zip(request.chains, chains, strict=False):
        if asked.has_frame and not np.isnan(chain.plddt[~np.array(asked.has_frame)]).all():
            raise ServerError("the server is too old to leave gaps for residues without a frame; fill decodes them too")
    if response.pae and len(response.pae) != 4 * residues**2:
        raise ServerError(f"the answer's pae has {len(response.pae)} bytes, which do not fit {residues} residues")
    return Decoded(
        model=response.model,
        codebook_version=response.codebook_version,
        chains=chains,
        ptm=response.ptm,
        pae=_floats(response.pae).reshape(residues, residues) if response.pae else None,
        file=response.file or None,
    )


def _to_chain(message: tokenizer_pb2.DecodedChain) -> DecodedChain:
    residues = len(message.residue_index)
    lengths = {
        "sequence": len(message.sequence) == residues,
        "insertion_codes": len(message.insertion_codes) in (0, residues),
        "coordinates": len(message.coordinates) == _RESIDUE_BYTES * residues,
        "plddt": len(message.plddt) == residues,
        "placed": len(message.placed) == len(message.segment_starts),
    }
    for field, fits in lengths.items():
        if not fits:
            raise ServerError(f"the answer's {field} do not fit the {residues} residues of chain {message.chain!r}")
    return DecodedChain(
        chain=message.chain,
        sequence=message.sequence,
        residue_index=np.fromiter(message.residue_index, np.int32, residues),
        insertion_codes=message.insertion_codes,
        coordinates=_floats(message.coordinates).reshape(residues, 3, 3),
        plddt=np.fromiter(message.plddt, np.float32, residues),
        segment_starts=np.fromiter(message.segment_starts or [0], np.int32),
        placed=np.fromiter(message.placed or [True], np.bool_),
    )


def _floats(content: bytes) -> npt.NDArray[np.float32]:
    """Packed float32, little-endian, as an array that may be written to."""
    return np.frombuffer(content, "<f4").astype(np.float32)
