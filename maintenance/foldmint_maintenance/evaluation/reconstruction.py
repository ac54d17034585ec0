"""Reconstruction of a set by a model's decoder: figures of each chain, and summaries by length."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.evaluation import structure_metrics
from foldmint_tokenizer.detokenizer import StructureDetokenizer

BUCKETS = (64, 128, 256, 512, 1024)
"""The longest chains of all buckets but the last, residues."""

SHORT = 256
"""Chains up to it have a set of figures of their own."""

# Chains whose CA traces are kept, to be drawn.
_SAMPLE = 50


@dataclass(frozen=True)
class Quartiles:
    """Of the chains' figures, linear between neighbors; None where no chain has one."""

    lower_quartile: float | None
    median: float | None
    upper_quartile: float | None


@dataclass(frozen=True)
class LengthFigures:
    """Of the decoded chains longer than one bound and up to the other (None: no bound), in residues of the chain.

    residues: those with a frame, which are what is measured. backbone_rmsd: Å.
    """

    longer_than: int
    up_to: int | None
    chains: int
    residues: int
    backbone_rmsd: Quartiles
    tm_score: Quartiles
    lddt_ca: Quartiles


@dataclass(frozen=True)
class Confidence:
    """Calibration of the decoder's confidence: pLDDT per residue, pTM per chain.

    Correlations are Pearson's. A bias is the mean of what is expected less what is true: above 0, the decoder boasts.
    None where unknown.
    """

    plddt_correlation: float | None
    plddt_bias: float | None
    ptm_correlation: float | None
    ptm_bias: float | None


@dataclass(frozen=True)
class Reconstruction:
    """Of all decoded chains, of those up to 256 residues, and by length.

    chains_left_out: those too long, or without a residue that has a frame.
    """

    chains_left_out: int
    all: LengthFigures
    up_to_256: LengthFigures
    buckets: tuple[LengthFigures, ...]
    confidence: Confidence


class ChainFigures(NamedTuple):
    """A decoded chain: its length, how many residues have a frame, RMSD (Å), and scores from 0 to 1; lddt_ca is NaN if
    no two CA are near one another.
    """

    id: str
    length: int
    residues: int
    backbone_rmsd: float
    tm_score: float
    lddt_ca: float
    ptm: float


class Trace(NamedTuple):
    """A chain to be drawn: truth and guess (residues, 3), CA, Å, superposed as for the RMSD of the backbone."""

    figures: ChainFigures
    truth: NDArray[np.float32]
    guess: NDArray[np.float32]


class Decoding:
    """Decodes chains, and collects their figures and the traces of a random sample, drawn by the seed."""

    def __init__(
        self,
        detokenizer: StructureDetokenizer,
        max_residues: int,
        seed: int = 0,
        report: Callable[[int], None] | None = None,
    ) -> None:
        """max_residues: longer chains are skipped. report: called with the residues decoded since the last call."""
        self.chains: list[ChainFigures] = []
        self.traces: list[Trace] = []
        self.too_long = self.without_frame = 0
        self._detokenizer, self._max_residues, self._report = detokenizer, max_residues, report
        self._random = np.random.default_rng(seed)
        self._plddt: list[NDArray[np.float32]] = []
        self._lddt: list[NDArray[np.float64]] = []

    def add(self, record: Record, tokens: NDArray[np.int64], exists: NDArray[np.bool_]) -> None:
        """Decode a chain, and measure its residues that have a frame.

        tokens: (residues,), those of `StructureTokenizer`. exists: (residues,), which residues have a frame.

        Raises ModelError if the decoder computes what is not finite.
        """
        if len(tokens) > self._max_residues:
            self.too_long += 1
            return
        if not exists.any():
            self.without_frame += 1
            return
        decoded = self._detokenizer.detokenize(tokens)
        truth, guess = record.coordinates[exists], decoded.chains[0].coordinates[exists]
        lddt = structure_metrics.lddt_ca(truth[:, 1], guess[:, 1])
        figures = ChainFigures(
            id=record.id,
            length=len(tokens),
            residues=len(truth),
            backbone_rmsd=structure_metrics.backbone_rmsd(truth, guess),
            tm_score=structure_metrics.tm_score(truth[:, 1], guess[:, 1]),
            lddt_ca=lddt.chain,
            ptm=decoded.ptm,
        )
        known = ~np.isnan(lddt.residues)
        self._plddt.append(decoded.chains[0].plddt[exists][known])
        self._lddt.append(lddt.residues[known])
        self.chains.append(figures)
        self._keep(figures, truth, guess)
        if self._report is not None:
            self._report(len(tokens))

    def _keep(self, figures: ChainFigures, truth: NDArray[np.float32], guess: NDArray[np.float32]) -> None:
        """Reservoir sampling: every chain is in the sample with the same probability (Vitter 1985, algorithm R)."""
        place = len(self.traces) if len(self.traces) < _SAMPLE else int(self._random.integers(len(self.chains)))
        if place >= _SAMPLE:
            return
        placed = structure_metrics.superposed(guess.reshape(-1, 3), truth.reshape(-1, 3)).reshape(-1, 3, 3)
        self.traces[place : place + 1] = [Trace(figures, truth[:, 1], placed[:, 1].astype(np.float32))]

    def figures(self) -> Reconstruction:
        """Of the chains until now."""
        return Reconstruction(
            chains_left_out=self.too_long + self.without_frame,
            all=length_figures(self.chains),
            up_to_256=length_figures(self.chains, 0, SHORT),
            buckets=tuple(
                length_figures(self.chains, low, high)
                for low, high in zip((0, *BUCKETS), (*BUCKETS, None), strict=True)
            ),
            confidence=self._confidence(),
        )

    def notes(self) -> list[str]:
        """What the figures are of."""
        notes = [f"{len(self.chains)} chains were encoded and decoded"]
        if self.too_long:
            notes.append(f"not decoded: {self.too_long} chains of more than {self._max_residues} residues")
        if self.without_frame:
            notes.append(f"not decoded: {self.without_frame} chains that have no residue with a frame")
        return notes

    def _confidence(self) -> Confidence:
        plddt, lddt = np.concatenate([np.zeros(0), *self._plddt]), np.concatenate([np.zeros(0), *self._lddt])
        ptm = np.array([chain.ptm for chain in self.chains])
        tm = np.array([chain.tm_score for chain in self.chains])
        return Confidence(correlation(plddt, lddt), bias(plddt, lddt), correlation(ptm, tm), bias(ptm, tm))


def length_figures(chains: Iterable[ChainFigures], longer_than: int = 0, up_to: int | None = None) -> LengthFigures:
    """Of the chains of a range of lengths."""
    some = [chain for chain in chains if longer_than < chain.length and (up_to is None or chain.length <= up_to)]
    return LengthFigures(
        longer_than,
        up_to,
        len(some),
        sum(chain.residues for chain in some),
        quartiles([chain.backbone_rmsd for chain in some]),
        quartiles([chain.tm_score for chain in some]),
        quartiles([chain.lddt_ca for chain in some]),
    )


def quartiles(values: list[float]) -> Quartiles:
    """Of the values that are not NaN."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return Quartiles(None, None, None)
    return Quartiles(*(float(value) for value in np.quantile(known, [0.25, 0.5, 0.75])))


def correlation(expected: NDArray[np.floating], true: NDArray[np.floating]) -> float | None:
    """Pearson's, of values (values,); None if there are not two different ones on each side."""
    if len(true) < 2 or np.ptp(expected) == 0 or np.ptp(true) == 0:
        return None
    return float(np.corrcoef(expected, true)[0, 1])


def bias(expected: NDArray[np.floating], true: NDArray[np.floating]) -> float | None:
    """Mean difference of values (values,); None if there are none."""
    return float((expected - true).mean()) if len(true) else None
