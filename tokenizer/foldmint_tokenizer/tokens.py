"""From backbones to rows for the encoder, and from the rows' codes back to tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.motion.assignment import Assignment, Coding, assign, chain_segments
from foldmint_tokenizer.motion.motions import MOTION, Segments
from foldmint_tokenizer.neighborhoods import OFFSET_LIMIT, Geometry, geometry, joined
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.left_out import LeftOut
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS


@dataclass(frozen=True)
class TokenizeOptions:
    """What to return.

    complex: neighbors are looked for across chains. special_tokens: enclose in BOS and EOS; of a complex, the chains'
    tokens one after another are the complex's, with CHAINBREAK before each further chain. distances: of each residue
    from its code. assignment: how codes are chosen; other than independent, of models whose codes state motions.
    first_frames: with segments, the frame that each begins with.
    """

    complex: bool = False
    special_tokens: bool = False
    distances: bool = False
    assignment: Assignment = Assignment.INDEPENDENT
    first_frames: bool = False

    @property
    def needs_motions(self) -> str:
        """What of it only a model does whose codes state motions, in words; empty if nothing."""
        if self.assignment is not Assignment.INDEPENDENT:
            return f"{self.assignment} assignment"
        return "first frames of segments" if self.first_frames else ""


@dataclass(frozen=True)
class TokenizedChain:
    """The tokens of a chain.

    chain, sequence, residue_index (residues,), insertion_codes: as in `Backbone`. tokens: (residues,) int64, or more
    with special tokens. has_frame: (residues,) bool; the token of a residue without a frame says nothing but that.
    distances: (residues,) float32 from vector to code, NaN without a frame; None unless asked for. assignment: how the
    tokens were chosen.

    Of models whose codes state motions: segment_starts (segments,) int64, the first residue of each stretch without a
    gap; first_frames (segments, 12) float32, the frame of that residue, rotation matrix row by row and origin, Å, NaN
    where it has none, None unless asked for; composed_rmsd, of tokens that are not independent: RMSD of N, CA and C, Å,
    of what their motions are composed to, each segment superposed on its own.
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
    """The tokens of a structure: a sequence of its chains, and what was left out of its file.

    left_out: what the file holds and the tokens do not cover. warnings: what a person should know, a sentence each.
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


def structure_geometry(backbones: Sequence[Backbone], complex: bool = False) -> Geometry:  # noqa: A002
    """The rows of a structure: of its chains each alone, or of all as one complex.

    In a complex the chains' numbers are moved apart so far that no two residues of different chains look like
    neighbors in sequence: their offsets are all clipped.
    """
    if not complex:
        return joined([geometry(chain.coordinates, chain.residue_index) for chain in backbones])
    indices: list[NDArray[np.int64]] = []
    end = 0
    for chain in backbones:
        low, high = int(chain.residue_index.min()), int(chain.residue_index.max())
        indices.append(chain.residue_index - low + end)
        end += high - low + OFFSET_LIMIT + 1
    return geometry(np.concatenate([chain.coordinates for chain in backbones]), np.concatenate(indices))


class ChainCoding(NamedTuple):
    """The segments of a chain, and what composing assigned tokens reaches; None of independent ones."""

    segments: Segments
    composed_rmsd: float | None


class Coded(NamedTuple):
    """Rows' codes (rows,) int64 and distances (rows,) float32 as they are assigned, and what is told of each chain."""

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    chains: list[ChainCoding]


def coded(
    backbones: Sequence[Backbone],
    shape: Geometry,
    codes: NDArray[np.int64],
    distances: NDArray[np.float32],
    options: TokenizeOptions,
    coding: Coding,
    vectors: NDArray[np.float32] | None = None,
) -> Coded:
    """The segments of chains, and the codes along them where the assignment is not independent.

    As of `assembled`; vectors: (rows, out), needed for an assignment.
    """
    assigning = options.assignment is not Assignment.INDEPENDENT
    if assigning and vectors is None:
        raise ValueError("an assignment needs vectors")
    own = np.zeros(len(shape.residue_index), np.int64)
    own[shape.queries] = codes
    environment = np.zeros((len(own), 0 if vectors is None else vectors.shape[1] - MOTION), np.float32)
    if vectors is not None:
        environment[shape.queries] = vectors[:, MOTION:]
    chains = []
    ends = np.cumsum([len(chain) for chain in backbones])
    for chain, end in zip(backbones, ends, strict=True):
        part = slice(end - len(chain), end)
        frames = shape.frames.part(part)
        goes_on, segments = chain_segments(frames, chain.residue_index, chain.coordinates)
        rmsd = None
        if assigning:
            own[part], rmsd = assign(
                coding.table, options.assignment, frames, goes_on, segments, own[part], environment[part]
            )
        chains.append(ChainCoding(segments, rmsd))
    if vectors is None or not assigning:
        return Coded(codes, distances, chains)
    found = own[shape.queries]
    apart = np.linalg.norm(vectors - coding.embeddings[found], axis=1).astype(np.float32)
    return Coded(found, apart, chains)


def assembled(
    backbones: Sequence[Backbone],
    shape: Geometry,
    codes: NDArray[np.int64],
    distances: NDArray[np.float32],
    frameless: int,
    options: TokenizeOptions,
    told: Sequence[ChainCoding] | None = None,
) -> list[TokenizedChain]:
    """The tokenized chains.

    shape: what `structure_geometry` made of the backbones. codes, distances: (rows,), of its rows. frameless: the code
    of residues without a frame. told: of each chain, if the model's codes state motions.
    """
    residues = len(shape.residue_index)
    tokens = np.full(residues, frameless, np.int64)
    tokens[shape.queries] = codes
    apart = np.full(residues, np.nan, np.float32)
    apart[shape.queries] = distances
    ends = np.cumsum([len(chain) for chain in backbones])
    chains = []
    for place, (chain, end) in enumerate(zip(backbones, ends, strict=True)):
        part = slice(end - len(chain), end)
        first, last = place == 0, place == len(backbones) - 1
        own = None if told is None else told[place]
        chains.append(
            TokenizedChain(
                chain.chain,
                chain.sequence,
                chain.residue_index,
                chain.insertion_codes,
                _enclosed(tokens[part], options, first, last) if options.special_tokens else tokens[part],
                shape.frames.exists[part],
                apart[part] if options.distances else None,
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
