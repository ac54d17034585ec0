"""Figures of token assignments: reconstruction, stability under noise, and mutual information with burial."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import PreparedSet, Record, gathered
from foldmint_maintenance.evaluation import fragment_metrics, structure_metrics
from foldmint_maintenance.evaluation.reconstruction import SHORT, ChainFigures, LengthFigures, length_figures
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.assignment import Assignment, CodeTable, assign, chain_segments, composed_atoms
from foldmint_tokenizer.motion.motions import MOTION

NOISES = (0.01, 0.03, 0.1)
"""Å; standard deviations of the noise on coordinates under which the stability of tokens is measured."""

_MOST_NEIGHBORS = 255
_BURIAL_CLASSES = 8


@dataclass(frozen=True)
class AssignmentFigures:
    """Figures of one assignment: all chains, those up to 256 residues, and longer ones; the worst chain's RMSD, Å."""

    all: LengthFigures
    up_to_256: LengthFigures
    longer: LengthFigures
    worst_rmsd: float | None


def assignment_figures(chains: list[ChainFigures]) -> AssignmentFigures:
    """Of some chains."""
    return AssignmentFigures(
        length_figures(chains),
        length_figures(chains, 0, SHORT),
        length_figures(chains, SHORT),
        max((chain.backbone_rmsd for chain in chains), default=None),
    )


class Composing:
    """Assigns and composes chain by chain, as the tokenizer and the detokenizer do, and keeps the figures.

    Chains of several segments count each segment by itself: their relative placement is unknown.
    """

    def __init__(self, model: Model, max_residues: int) -> None:
        if model.lever is None:
            raise ValueError(f"the codes of {model.name} do not encode motions")
        self.chains: dict[Assignment, list[ChainFigures]] = {Assignment.ANCHORED: [], Assignment.TRACKING: []}
        self._table = CodeTable.of(model.codebook.codebook.embeddings, model.lever)
        self._max_residues = max_residues

    def add(self, record: Record, part: PreparedSet, codes: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Assign the codes of a chain.

        part: the chain alone. codes: (residues,), the independent ones. vectors: (residues, out); any where there is no
        frame.
        """
        frames = part.shape.frames
        if len(codes) > self._max_residues or not frames.exists.any():
            return
        goes_on, segments = chain_segments(frames, record.residue_index, record.coordinates)
        ends = np.append(segments.starts[1:], len(codes))
        for assignment, chains in self.chains.items():
            found = assign(self._table, assignment, frames, goes_on, segments, codes, vectors[:, MOTION:])
            made = composed_atoms(self._table, found.codes, segments)
            for start, stop in zip(segments.starts, ends, strict=True):
                if frames.exists[start] and stop - start > 1:
                    some = slice(start, stop)
                    chains.append(_figures(record.id, record.coordinates[some], made[some]))

    def figures(self) -> dict[str, AssignmentFigures]:
        """Of the chains until now, by the assignment's name."""
        return {str(assignment): assignment_figures(chains) for assignment, chains in self.chains.items()}


def _figures(name: str, truth: NDArray[np.floating], guess: NDArray[np.floating]) -> ChainFigures:
    return ChainFigures(
        id=name,
        length=len(truth),
        residues=len(truth),
        backbone_rmsd=structure_metrics.backbone_rmsd(truth, guess),
        tm_score=structure_metrics.tm_score(truth[:, 1], guess[:, 1]),
        lddt_ca=structure_metrics.lddt_ca(truth[:, 1], guess[:, 1]).chain,
        ptm=float("nan"),
    )


class NoiseStability:
    """Share of tokens that Gaussian noise on the coordinates leaves unchanged, over the first chains."""

    def __init__(self, model: Model, chains: int, seed: int) -> None:
        self._engine = Engine(model.encoder, model.codebook.codebook.embeddings.device)
        self._embeddings = model.codebook.codebook.embeddings
        self._left, self._random = chains, np.random.default_rng(seed)
        self._same = dict.fromkeys(NOISES, 0)
        self._residues = dict.fromkeys(NOISES, 0)

    def add(self, record: Record, codes: NDArray[np.int64]) -> None:
        """Add a chain, if it is one of the first. codes: (rows,), of its residues with a frame."""
        if self._left <= 0 or not len(codes):
            return
        self._left -= 1
        for noise in NOISES:
            moved = record.coordinates + self._random.normal(0, noise, record.coordinates.shape).astype(np.float32)
            part = gathered([Record(record.id, record.sequence, record.residue_index, moved)])
            found = self._engine.tokens(part.shape, self._embeddings).codes
            if len(found) == len(codes):
                self._same[noise] += int((found == codes).sum())
                self._residues[noise] += len(codes)

    def shares(self) -> Mapping[str, float] | None:
        """By the noise, as text."""
        if not any(self._residues.values()):
            return None
        return {f"{noise:g}": self._same[noise] / self._residues[noise] for noise in NOISES}


class Burial:
    """Counts of codes by number of neighbors within 12 Å."""

    def __init__(self, codes: int) -> None:
        self._joint = np.zeros((codes, _MOST_NEIGHBORS + 1), np.int64)

    def add(self, codes: NDArray[np.int64], neighbors: NDArray[np.floating]) -> None:
        """Add rows: codes (rows,), neighbors (rows,)."""
        np.add.at(self._joint, (codes, np.minimum(neighbors, _MOST_NEIGHBORS).astype(np.int64)), 1)

    def bits(self) -> float | None:
        """Mutual information of the code and eight classes of burial, of about equally many residues each."""
        counts = self._joint.sum(0)
        if not counts.any():
            return None
        below = np.cumsum(counts) / counts.sum()
        group = np.minimum((np.concatenate([[0], below[:-1]]) * _BURIAL_CLASSES).astype(int), _BURIAL_CLASSES - 1)
        classes = np.zeros((len(self._joint), _BURIAL_CLASSES), np.int64)
        np.add.at(classes.T, group, self._joint.T)
        return fragment_metrics.mutual_information(classes)
