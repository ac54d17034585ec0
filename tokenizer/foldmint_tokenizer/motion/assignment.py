"""Assignment: how each residue's code is chosen in a model whose codes encode motions.

Independent: the code nearest to the residue's own vector. Tracking: the codes whose composition stays nearest to the
chain, found by a beam search along it. Each motion is measured from the frame that a hypothesis has reached to the next
residue's true frame, so errors do not add up, and a token depends on the whole segment (analysis by synthesis, as in
speech codecs). Anchored: the same from anchor to anchor, which the structure itself defines; each stretch begins at the
true frame, so a token depends on its stretch alone.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.motion.motions import MOTION, Segments, code_motions, follows, segments_of

ANCHOR_RADIUS = 8
"""Residues on either side among which an anchor's chirality is the greatest."""

BEAM_WIDTH = 8
"""Hypotheses that the beam search keeps."""

# Weight of the error at the end of an anchored stretch: it displaces all that follows.
_LAST_WEIGHT = 8.0
_LEAF = 64  # codes

# N, CA and C in a residue's own frame, Å, as in the decoders.
_RESIDUE = np.array(((0.5256, 1.3612, 0.0), (0.0, 0.0, 0.0), (-1.5251, 0.0, 0.0)))


class Assignment(StrEnum):
    """How tokens are chosen."""

    INDEPENDENT = "independent"
    ANCHORED = "anchored"
    TRACKING = "tracking"


class CodeTable(NamedTuple):
    """A version of the codebook in the layout that assignment uses: the leaves of a k-d tree.

    leaves: (leaves, dims, size) float32, the codes' vectors with exact rotations, padded with zeros to dims, a multiple
    of four; infinite where a leaf has fewer than `size` codes. low, high: (dims, leaves), bounding boxes of the leaves.
    members: (leaves, size), the codes' numbers. rotation: (codes, 3, 3), translation: (codes, 3), Å; float64. lever:
    lever arm, Å.
    """

    leaves: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    members: NDArray[np.int64]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    lever: float

    @classmethod
    def of(cls, embeddings: Tensor, lever: float) -> "CodeTable":
        """From the codes' vectors (codes, out), on any device."""
        own = embeddings.detach().float().cpu()
        rotation, translation = (np.ascontiguousarray(part.double().numpy()) for part in code_motions(own, lever))
        exact = np.concatenate([rotation.reshape(-1, 9) * lever, translation, own[:, MOTION:].double().numpy()], 1)
        padded = np.zeros((len(exact), -(-exact.shape[1] // 4) * 4), np.float32)
        padded[:, : exact.shape[1]] = exact
        parts = _kd_leaves(padded)
        size = max(map(len, parts))
        leaves = np.full((len(parts), padded.shape[1], size), np.inf, np.float32)
        members = np.zeros((len(parts), size), np.int64)
        for leaf, part in enumerate(parts):
            leaves[leaf, :, : len(part)] = padded[part].T
            members[leaf, : len(part)] = part
        low, high = (np.stack([extreme(padded[part], axis=0) for part in parts], 1) for extreme in (np.min, np.max))
        return cls(leaves, low, high, members, rotation, translation, lever)


def _kd_leaves(vectors: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """The numbers of vectors (vectors, dims), split at the median along the widest axis, until none is too large."""
    parts = [np.arange(len(vectors))]
    while max(map(len, parts)) > _LEAF:
        halves = []
        for part in parts:
            widest = vectors[part].var(0).argmax()
            ordered = part[np.argsort(vectors[part, widest], kind="stable")]
            halves += np.array_split(ordered, 2)
        parts = halves
    return parts


class Coding(NamedTuple):
    """A version of the codebook as assignment needs it: its table, and its vectors (codes, out) float32."""

    table: CodeTable
    embeddings: NDArray[np.float32]

    @classmethod
    def of(cls, embeddings: Tensor, lever: float) -> "Coding":
        """From the codes' vectors (codes, out), on any device."""
        return cls(CodeTable.of(embeddings, lever), embeddings.detach().float().cpu().numpy())


class Assigned(NamedTuple):
    """A chain's codes, and the RMSD that composing them reaches.

    codes: (residues,) int64. composed_rmsd: of N, CA and C, Å, over the residues with a frame, each segment superposed
    on its own; None if no residue has a frame.
    """

    codes: NDArray[np.int64]
    composed_rmsd: float | None


def chain_segments(
    frames: Frames, residue_index: NDArray[np.integer], backbone: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], Segments]:
    """The results of `follows` and `segments_of` for a chain."""
    goes_on = follows(frames, residue_index, backbone)
    return goes_on, segments_of(frames, goes_on)


def anchors(frames: Frames, segments: Segments) -> NDArray[np.bool_]:
    """Where anchored tracking restarts from the true frame, (residues,).

    At the first residue of each segment, and where the chirality of the CA trace (the triple product of three
    successive steps) is the greatest within 8 residues on either side.
    """
    found = np.zeros(len(frames.exists), np.bool_)
    found[segments.starts] = True
    ends = np.append(segments.starts[1:], len(found))
    for start, stop in zip(segments.starts, ends, strict=True):
        if stop - start < 5:
            continue
        step = np.diff(frames.origin[start:stop], axis=0)
        triple = np.einsum("li,li->l", np.cross(step[:-2], step[1:-1]), step[2:])
        chirality = np.concatenate([triple[:1], triple, triple[-1:], triple[-1:]])
        around = sliding_window_view(np.pad(chirality, ANCHOR_RADIUS, mode="edge"), 2 * ANCHOR_RADIUS + 1)
        found[start:stop] |= chirality >= around.max(-1)
    return found


def assign(
    table: CodeTable,
    assignment: Assignment,
    frames: Frames,
    goes_on: NDArray[np.bool_],
    segments: Segments,
    codes: NDArray[np.int64],
    environment: NDArray[np.float32],
) -> Assigned:
    """The codes of one chain, and the RMSD of their composition.

    frames, goes_on, segments: of the chain. codes: (residues,), the independent ones; residues without a successor keep
    them. environment: (residues, out - 12), of the residues' vectors; ignored for residues without a frame.
    """
    found = codes.astype(np.int64, copy=True)
    if assignment is not Assignment.INDEPENDENT:
        begins = np.zeros(len(found), np.bool_)
        begins[segments.starts] = True
        if assignment is Assignment.ANCHORED:
            begins |= anchors(frames, segments)
        turn, move = _true_motions(frames)
        around = np.ascontiguousarray(environment, np.float32)
        from foldmint_tokenizer.motion.compiled import beam_search

        beam_search(turn, move, begins, goes_on, around, *table, BEAM_WIDTH, _LAST_WEIGHT, found)
    return Assigned(found, _composed_rmsd(table, frames, segments, found))


def warm_up() -> None:
    """Compile the loops of assignment, so that the first request does not wait for it."""
    frames = Frames(np.eye(3)[None].repeat(2, 0), np.zeros((2, 3)), np.ones(2, np.bool_))
    goes_on = np.array([True, False])
    table = CodeTable.of(torch.from_numpy(np.append(np.eye(3), np.zeros(3)).astype(np.float32))[None], 1.0)
    assign(
        table,
        Assignment.TRACKING,
        frames,
        goes_on,
        segments_of(frames, goes_on),
        np.zeros(2, np.int64),
        np.zeros((2, 0), np.float32),
    )


def _true_motions(frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation (residues, 3, 3) and translation (residues, 3), Å, from each residue to the next; zero for the last."""
    back = frames.rotation[:-1].transpose(0, 2, 1)
    turn = np.zeros_like(frames.rotation)
    move = np.zeros_like(frames.origin)
    turn[:-1] = back @ frames.rotation[1:]
    move[:-1] = (back @ np.diff(frames.origin, axis=0)[..., None])[..., 0]
    return turn, move


def composed_atoms(table: CodeTable, codes: NDArray[np.int64], segments: Segments) -> NDArray[np.float64]:
    """N, CA and C (residues, 3, 3), Å, composed from the codes (residues,) of a chain.

    Each segment is composed separately, with its first frame at the origin.
    """
    from foldmint_tokenizer.motion.compiled import compose

    begins = np.zeros(len(codes), np.bool_)
    begins[segments.starts] = True
    return _atoms(*compose(table.rotation, table.translation, codes, begins))


def _atoms(rotation: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    atoms: NDArray[np.float64] = np.einsum("lij,aj->lai", rotation, _RESIDUE) + origin[:, None]
    return atoms


def _composed_rmsd(table: CodeTable, frames: Frames, segments: Segments, codes: NDArray[np.int64]) -> float | None:
    made, real = composed_atoms(table, codes, segments), _atoms(frames.rotation, frames.origin)
    square, atoms = 0.0, 0
    ends = np.append(segments.starts[1:], len(codes))
    for start, stop in zip(segments.starts, ends, strict=True):
        if frames.exists[start]:
            square += _least_square(made[start:stop].reshape(-1, 3), real[start:stop].reshape(-1, 3))
            atoms += 3 * (stop - start)
    return None if not atoms else float(np.sqrt(square / atoms))


def _least_square(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The sum of squared distances, Å², of points (points, 3) after optimal superposition (Kabsch 1976)."""
    first, second = first - first.mean(0), second - second.mean(0)
    left, size, right = np.linalg.svd(first.T @ second)
    size[2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))
    return max(0.0, float((first**2).sum() + (second**2).sum() - 2 * size.sum()))
