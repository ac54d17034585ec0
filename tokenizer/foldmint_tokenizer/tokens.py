"""Converts backbones to the encoder's input, and codes back to tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.motion.assignment import Assignment, Coding, assign, chain_segments
from foldmint_tokenizer.motion.motions import MOTION, Segments
from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.left_out import LeftOut
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS


@dataclass(frozen=True)
class TokenizeOptions:
    """What to compute and return.

    complex: look for neighbors across chains. special_tokens: enclose in BOS and EOS; in a complex, the chains' tokens
    form one sequence, with CHAINBREAK before each further chain. distances: return each residue's distance to its code.
    assignment: how codes are chosen; anything but independent needs a model whose codes encode motions. first_frames:
    return the first frame of each segment.
    """

    complex: bool = False
    special_tokens: bool = False
    distances: bool = False
    assignment: Assignment = Assignment.INDEPENDENT
    first_frames: bool = False

    @property
    def needs_motions(self) -> str:
        """The options that only a model with codes that encode motions supports, in words; empty if there are none."""
        if self.assignment is not Assignment.INDEPENDENT:
            return f"{self.assignment} assignment"
        return "first frames of segments" if self.first_frames else ""


@dataclass(frozen=True)
class TokenizedChain:
    """The tokens of a chain.

    chain, sequence, residue_index (residues,), insertion_codes: as in `Backbone`. tokens: (residues,) int64, or more
    with special tokens. has_frame: (residues,) bool; the token of a residue without a frame carries no other
    information. distances: (residues,) float32, from vector to code, NaN without a frame; None unless requested.
    assignment: how the tokens were chosen.

    Only for models whose codes encode motions: segment_starts: (segments,) int64, the first residue of each stretch
    without a gap. first_frames: (segments, 12) float32, that residue's frame: rotation matrix row by row and origin, Å;
    NaN where it has none; None unless requested. composed_rmsd: for anchored and tracking tokens, the RMSD, Å, between
    the chain's N, CA and C and those composed from the tokens' motions, with each segment superposed on its own.
    """

    chain: str
    sequence: str
    residue_index: NDArray[np.int64]
    insertion_codes: str
    tokens: NDArray[np.int64]
    has_frame: NDArray[np.bool_]
    distances: NDArray[np.float32] | None = None
    assignment: Assignment = Assignment.INDEPENDENT
    segment_starts: NDArray[np.int64] | None = None
    first_frames: NDArray[np.float32] | None = None
    composed_rmsd: float | None = None


@dataclass(frozen=True, eq=False)
class TokenizedStructure(Sequence[TokenizedChain]):
    """The tokens of a structure: a sequence of its chains.

    left_out: residues, models and data blocks of the file that the tokens do not cover. warnings: sentences for the
    user.
    """

    chains: tuple[TokenizedChain, ...]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> TokenizedChain: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TokenizedChain, ...]: ...
    def __getitem__(self, index: int | slice) -> TokenizedChain | tuple[TokenizedChain, ...]:
        return self.chains[index]

    def __iter__(self) -> Iterator[TokenizedChain]:
        return iter(self.chains)

    def __len__(self) -> int:
        """Number of chains."""
        return len(self.chains)


class ChainCoding(NamedTuple):
    """A chain's segments, and the RMSD that composing its assigned tokens reaches; None for independent tokens."""

    segments: Segments
    composed_rmsd: float | None


class Coded(NamedTuple):
    """Codes (queries,) int64 and distances (queries,) float32 after assignment, and the coding of each chain."""

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    chains: list[ChainCoding]


def coded(
    backbones: Sequence[Backbone],
    geometry: Geometry,
    codes: NDArray[np.int64],
    distances: NDArray[np.float32],
    options: TokenizeOptions,
    coding: Coding,
    vectors: NDArray[np.float32] | None = None,
) -> Coded:
    """The segments of the chains, and the codes along them if the assignment is not independent.

    Arguments as in `assembled`. vectors: (queries, out); required unless the assignment is independent.
    """
    ends = [*accumulate(map(len, backbones))]
    parts = [slice(end - len(chain), end) for chain, end in zip(backbones, ends, strict=True)]
    own_frames = [geometry.frames.part(part) for part in parts]
    segmented = [
        chain_segments(frames, chain.residue_index, chain.coordinates)
        for chain, frames in zip(backbones, own_frames, strict=True)
    ]
    if options.assignment is Assignment.INDEPENDENT:
        return Coded(codes, distances, [ChainCoding(segments, None) for _, segments in segmented])
    if vectors is None:
        raise ValueError("assignment requires vectors")
    own = np.zeros(len(geometry.residue_index), np.int64)
    own[geometry.queries] = codes
    environment = np.zeros((len(own), vectors.shape[1] - MOTION), np.float32)
    environment[geometry.queries] = vectors[:, MOTION:]
    chains = []
    for part, frames, (goes_on, segments) in zip(parts, own_frames, segmented, strict=True):
        own[part], rmsd = assign(
            coding.table, options.assignment, frames, goes_on, segments, own[part], environment[part]
        )
        chains.append(ChainCoding(segments, rmsd))
    found = own[geometry.queries]
    to_code = np.linalg.norm(vectors - coding.embeddings[found], axis=1).astype(np.float32)
    return Coded(found, to_code, chains)


def assembled(
    backbones: Sequence[Backbone],
    geometry: Geometry,
    codes: NDArray[np.int64],
    distances: NDArray[np.float32],
    frameless: int,
    options: TokenizeOptions,
    codings: Sequence[ChainCoding] | None = None,
) -> list[TokenizedChain]:
    """The tokenized chains.

    geometry: that of the backbones (`structure_geometry`). codes, distances: (queries,). frameless: the code of
    residues without a frame. codings: one a chain, if the model's codes encode motions.
    """
    residues = len(geometry.residue_index)
    tokens = np.full(residues, frameless, np.int64)
    tokens[geometry.queries] = codes
    to_code = np.full(residues, np.nan, np.float32)
    to_code[geometry.queries] = distances
    ends = [*accumulate(map(len, backbones))]
    chains = []
    for place, (chain, end) in enumerate(zip(backbones, ends, strict=True)):
        part = slice(end - len(chain), end)
        first, last = place == 0, place == len(backbones) - 1
        own = None if codings is None else codings[place]
        chains.append(
            TokenizedChain(
                chain.chain,
                chain.sequence,
                chain.residue_index,
                chain.insertion_codes,
                _enclosed(tokens[part], options, first, last) if options.special_tokens else tokens[part],
                geometry.frames.exists[part],
                to_code[part] if options.distances else None,
                options.assignment,
                None if own is None else own.segments.starts,
                own.segments.frames if own is not None and options.first_frames else None,
                None if own is None else own.composed_rmsd,
            )
        )
    return chains


def _enclosed(tokens: NDArray[np.int64], options: TokenizeOptions, first: bool, last: bool) -> NDArray[np.int64]:
    before = CHAINBREAK if options.complex and not first else BOS
    after = [] if options.complex and not last else [EOS]
    return np.concatenate([[before], tokens, after]).astype(np.int64)
