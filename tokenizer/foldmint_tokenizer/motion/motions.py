"""Motions encoded by codes, and the composition of chains from them.

The first 12 numbers of a code's vector are the rigid motion from a residue's frame to the next residue's: the rotation
matrix, row by row, multiplied by a lever arm in Å, and the translation in Å. The remaining numbers describe the
environment. Moving a code's vector therefore changes its motion too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer.decoder import Rigids, composed
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.kernels import geometry as kernels

MOTION = 12
"""Numbers of a vector that encode the motion."""

# Å; the bond from C to the next N is 1.33 long. Farther residues are not bonded, whatever their numbers.
_LONGEST_BOND = 2.5


def code_motions(embeddings: Tensor, lever: float) -> Rigids:
    """The motion of each code: rotation (codes, 3, 3) and translation (codes, 3), Å; float32.

    embeddings: (codes, 12 or more). lever: Å. The rotation is the one nearest to the code's matrix, which need not be a
    rotation: a mean of rotations is not.
    """
    left, _, right = torch.linalg.svd(embeddings[:, :9].double().view(-1, 3, 3) / lever)
    # No reflections: flip the axis with the smallest singular value.
    left = torch.cat([left[..., :2], left[..., 2:] * torch.det(left @ right).sign()[:, None, None]], -1)
    return Rigids((left @ right).float(), embeddings[:, 9:MOTION].float())


class Segments(NamedTuple):
    """The stretches of a chain along which each residue is bonded to the next one.

    starts: (segments,) int64, the first residue of each, ascending from 0. frames: (segments, 12) float32, that
    residue's frame: rotation matrix row by row and origin, Å; NaN if unknown. A stretch of residues without a frame is
    a segment of its own.
    """

    starts: NDArray[np.int64]
    frames: NDArray[np.float32]


def follows(frames: Frames, residue_index: NDArray[np.integer], backbone: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether each residue is continued by the next one, (residues,); false for the last.

    True if both have a frame, the residue number stays the same (insertion codes) or increases by one, and C and the
    next N are within 2.5 Å. backbone: (residues, 3, 3), Å.
    """
    goes_on = np.empty(len(backbone), np.bool_)
    kernels.follows(
        frames.exists,
        np.ascontiguousarray(residue_index, np.int64),
        np.ascontiguousarray(backbone, np.float64),
        _LONGEST_BOND,
        goes_on,
    )
    return goes_on


def _consecutive(residue_index: NDArray[np.integer] | Sequence[int]) -> NDArray[np.bool_]:
    """Whether the number of each residue but the first, (residues - 1,), equals the previous one or is one more."""
    number = np.asarray(residue_index, np.int64)
    before, after = number[:-1], number[1:]
    return np.asarray((after == before) | (after == before + 1), np.bool_)


def segments_of(frames: Frames, goes_on: NDArray[np.bool_]) -> Segments:
    """The segments of a chain; goes_on: (residues,), from `follows`."""
    starts, first = np.empty(len(goes_on), np.int64), np.empty((len(goes_on), MOTION), np.float32)
    count = kernels.segments(frames.exists, goes_on, frames.rotation, frames.origin, starts, first)
    return Segments(starts[:count].copy(), first[:count].copy())


def whole_chain() -> Segments:
    """One segment whose first frame is unknown."""
    return Segments(np.zeros(1, np.int64), np.full((1, MOTION), np.nan, np.float32))


def parted(segments: Segments, framed: NDArray[np.bool_]) -> Segments:
    """The segments of a chain, split wherever a stretch of residues without a frame begins or ends.

    framed: (residues,).
    """
    new = np.setdiff1d(1 + np.flatnonzero(framed[1:] != framed[:-1]), segments.starts)
    if not len(new):
        return segments
    starts = np.concatenate([segments.starts, new])
    frames = np.concatenate([segments.frames, np.full((len(new), MOTION), np.nan, np.float32)])
    order = np.argsort(starts)
    return Segments(starts[order], frames[order])


def numbered_segments(residue_index: NDArray[np.integer] | Sequence[int]) -> Segments:
    """The segments implied by a chain's residue numbers (residues,): each gap or decrease starts one."""
    starts = np.concatenate([[0], 1 + np.flatnonzero(~_consecutive(residue_index))]).astype(np.int64)
    return Segments(starts, np.full((len(starts), MOTION), np.nan, np.float32))


def checked_segments(
    starts: NDArray[np.integer] | Sequence[int], frames: NDArray[np.floating] | None, residues: int
) -> Segments:
    """Segments from untrusted values, for a chain with `residues` residues.

    frames: (segments, 12), or None if unknown. Raises InvalidStructure, with the field `segment_starts` or
    `first_frames`, if starts do not ascend from 0 within the chain, or if frames have the wrong shape or a matrix is
    not a rotation.
    """
    own = np.asarray(starts, np.int64)
    if own.ndim != 1 or len(own) == 0 or own[0] != 0 or (np.diff(own) <= 0).any() or own[-1] >= residues:
        raise InvalidStructure(
            "segment_starts", f"the starts must ascend from 0 and be below {residues}, the number of residues"
        )
    if frames is None:
        return Segments(own, np.full((len(own), MOTION), np.nan, np.float32))
    known = np.asarray(frames, np.float32)
    if known.shape != (len(own), MOTION):
        raise InvalidStructure("first_frames", f"the shape is {known.shape}, expected ({len(own)}, {MOTION})")
    placed = known[np.isfinite(known).all(1)]
    rotation = placed[:, :9].reshape(-1, 3, 3).astype(np.float64)
    if np.isinf(known).any() or (np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)) > 1e-2).any():
        raise InvalidStructure("first_frames", "a matrix is not a rotation, or a number is infinite")
    return Segments(own, known)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the segments of a structure begin, counted over the residues of all its chains.

    starts: (segments,) int64. frames: (segments, 12), NaN if unknown.
    """

    starts: NDArray[np.int64]
    frames: NDArray[np.float32]

    @classmethod
    def of(cls, chains: Sequence[Segments], sizes: Sequence[int]) -> "Layout":
        """The layout of chains with the given numbers of residues."""
        ends = np.cumsum([0, *sizes])[:-1]
        starts = [chain.starts + end for chain, end in zip(chains, ends, strict=True)]
        return cls(np.concatenate(starts), np.concatenate([chain.frames for chain in chains]))

    @property
    def placed(self) -> NDArray[np.bool_]:
        """Which segments (segments,) have the position that they had in their structure; if none has, the first one
        defines it.
        """
        known: NDArray[np.bool_] = np.asarray(np.isfinite(self.frames).all(1), np.bool_)
        return known if known.any() else np.arange(len(known)) == 0


def placed(motions: Rigids, layout: Layout) -> Rigids:
    """Frames (residues,) of a structure, composed from the motions (residues,) of its tokens.

    A segment begins with its frame if that is known; otherwise as if it were bonded to the previous residue, so that
    its position is arbitrary.
    """
    total = len(motions.origin)
    unturned = torch.eye(3, dtype=motions.rotation.dtype, device=motions.rotation.device)
    into = Rigids(
        torch.cat([unturned[None], motions.rotation[:-1]]),
        torch.cat([motions.origin.new_zeros(1, 3), motions.origin[:-1]]),
    )
    known = np.flatnonzero(np.isfinite(layout.frames).all(1))
    begins = sorted({0, *layout.starts[known].tolist()})
    frames = {int(layout.starts[i]): torch.from_numpy(layout.frames[i]) for i in known}
    parts = []
    for start, stop in zip(begins, [*begins[1:], total], strict=True):
        rotation, origin = into.rotation[start:stop].clone(), into.origin[start:stop].clone()
        first = frames.get(start)
        rotation[0] = unturned if first is None else first[:9].view(3, 3)
        origin[0] = 0 if first is None else first[9:]
        parts.append(composed(Rigids(rotation[None], origin[None])))
    return Rigids(*(torch.cat([part[0] for part in column]) for column in zip(*parts, strict=True)))
