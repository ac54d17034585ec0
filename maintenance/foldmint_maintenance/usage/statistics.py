"""Statistics of code usage: summary figures of counts, and drift between two sets of counts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from foldmint.usage import EXPOSURE, enough_exposure, evidence, perplexity

STEP_RESIDUES = 2**18
"""Residues per step of ESM's training, the unit of N: hits per step."""
DEAD_THRESHOLD = 1e-5
"""N below which a code is dead, as in ESM."""

_THRESHOLDS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
# Added to each code's hits before their ratio is taken: the estimator of Krichevsky and Trofimov (1981), which is
# Jeffreys' prior.
_SMOOTHING = 0.5


@dataclass(frozen=True, eq=False)
class CodeCounts:
    """Counts of codes, from any source.

    counts: (codes,) float64. residues: number of counted residues, if counts are hits; None if counts are N, moving
    averages of hits per step of `STEP_RESIDUES`. version: of the codebook, None if unknown. source: its description.
    notes: remarks for the reader. N: (codes,), the codebook's moving averages, from which the expected hits follow;
    None if unknown. Raises `ValueError` if counts are negative, not finite or not one-dimensional, or N does not fit.
    """

    counts: NDArray[np.float64]
    residues: int | None
    version: str | None
    source: str
    notes: tuple[str, ...] = ()
    N: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", _checked(self.counts))
        if self.N is not None and np.shape(self.N) != self.counts.shape:
            raise ValueError(f"N has the shape {np.shape(self.N)}, and counts {self.counts.shape}")


@dataclass(frozen=True)
class Below:
    """Number of codes with an N below a threshold; None if too few residues were counted."""

    threshold: float
    share_of_mean: float | None
    codes: int | None


@dataclass(frozen=True)
class UsageFigures:
    """Summary figures of code usage; None where unknown, with the reason in the notes.

    mean, std (of the population: divided by the number of codes), quartiles (first, median, third; linear between
    codes), min, max, dead and below are of N: hits a step of `step_residues`. total: the sum of the counts as the
    source gave them: residues, or N. residues: number of counted residues, None if counts are N. residues_a_code: the
    exposure. never_hit: codes whose count is 0. dead: codes with N below `dead_threshold`; of codes never hit, those
    that `foldmint.usage.evidence` allows to call dead, if the codebook's N is known. perplexity: e to the entropy of
    the codes. utilization: share of codes whose count is not 0. gini: 0 if all codes are used equally, near 1 if a
    single code is used.
    """

    source: str
    version: str | None
    codes: int
    total: float
    residues: int | None
    residues_a_code: float | None
    step_residues: int
    mean: float
    std: float
    quartiles: tuple[float, float, float]
    min: float
    max: float
    never_hit: int
    dead: int | None
    dead_threshold: float
    below: tuple[Below, ...]
    perplexity: float | None
    utilization: float
    gini: float | None
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        values = asdict(self)
        return values | {name: list(values[name]) for name in ("quartiles", "below", "notes")}


@dataclass(frozen=True)
class Drift:
    """Drift of code usage against a reference. source, version: of the reference.

    psi_by_chance, psi_by_chance_95: mean and 95th percentile of `psi` without a change, for independently drawn
    residues; residues of one chain are correlated, which raises both. None if residues were not counted.
    """

    source: str
    version: str | None
    psi: float
    psi_by_chance: float | None
    psi_by_chance_95: float | None
    jensen_shannon_bits: float
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self) | {"notes": list(self.notes)}


def figures(
    counts: CodeCounts | ArrayLike, *, dead_threshold: float = DEAD_THRESHOLD, step_residues: int = STEP_RESIDUES
) -> UsageFigures:
    """Summary figures of counts; an array (codes,) is taken as N.

    Hits are scaled to a step: N = hits * step_residues / residues. Raises `ValueError` if threshold or step is not
    positive.
    """
    counted = counts if isinstance(counts, CodeCounts) else CodeCounts(_checked(counts), None, None, "an array")
    if not 0 < dead_threshold < np.inf:
        raise ValueError(f"dead_threshold must be a positive number, not {dead_threshold}")
    N = per_step(counted, step_residues)
    total, codes = float(counted.counts.sum()), len(N)
    notes = list(counted.notes)
    exposure = None if counted.residues is None else counted.residues / codes
    known = counted.residues is None or enough_exposure(counted.residues, codes)
    if not known:
        notes.append(f"dead codes are not reported: {exposure:.3g} residues a code were counted, {EXPOSURE} are needed")
    elif counted.residues is not None:
        hit = step_residues / counted.residues
        # With three hits expected, at least one occurs with a probability of 95 %.
        notes.append(f"one hit is an N of {hit:.3g}; N of a code never hit is below {3 * hit:.3g} (95 % confidence)")
    dead = dead_threshold > N
    if known and counted.residues is not None and counted.N is not None:
        found = evidence(counted.counts, counted.N, dead_threshold)
        unproved = dead & (counted.counts == 0) & ~found.judged
        dead = dead & ~unproved
        notes.append(
            f"these residues count as {found.independent / codes:.3g} independent ones a code (design effect "
            f"{found.design_effect:.3g}); by chance alone, {found.unhit_by_chance:.3g} living codes would never be "
            f"hit; {int(unproved.sum())} codes never hit are too rare to be called dead"
        )
    if exposure is None and abs(total - step_residues) > 0.01 * step_residues:
        notes.append(f"N is of steps of about {total:.6g} residues; thresholds are as for {step_residues}")
    if total == 0:
        notes.append("no perplexity and no Gini coefficient: all counts are 0")
    mean = float(N.mean())
    quartiles = tuple(float(value) for value in np.percentile(N, (25, 50, 75)))
    return UsageFigures(
        source=counted.source,
        version=counted.version,
        codes=codes,
        total=total,
        residues=counted.residues,
        residues_a_code=exposure,
        step_residues=step_residues,
        mean=mean,
        std=float(N.std()),
        quartiles=(quartiles[0], quartiles[1], quartiles[2]),
        min=float(N.min()),
        max=float(N.max()),
        never_hit=int((N == 0).sum()),
        dead=int(dead.sum()) if known else None,
        dead_threshold=dead_threshold,
        below=tuple(
            Below(limit, limit / mean if mean else None, int((limit > N).sum()) if known else None)
            for limit in _THRESHOLDS
        ),
        perplexity=perplexity(N) if total else None,
        utilization=float((N > 0).mean()),
        gini=gini(N) if total else None,
        notes=tuple(notes),
    )


def per_step(
    counted: CodeCounts, step_residues: int = STEP_RESIDUES, *, moving_averages: bool = False
) -> NDArray[np.float64]:
    """N of each code, (codes,): hits per step of so many residues.

    moving_averages: whether to rescale moving averages too, from the step of their training. Raises `ValueError` if the
    step is not positive.
    """
    if step_residues < 1:
        raise ValueError(f"step_residues must be positive, not {step_residues}")
    total = counted.residues
    if total is None and moving_averages:
        total = counted.counts.sum()
    return counted.counts * (step_residues / total) if total else counted.counts


def gini(counts: ArrayLike) -> float:
    """The Gini coefficient: half the mean absolute difference of two codes' counts, divided by the mean count.

    Raises ValueError if all are 0.
    """
    share = np.sort(_shares(_checked(counts)))
    ranks = np.arange(1, len(share) + 1)
    return float(((2 * ranks - len(share) - 1) * share).sum() / len(share))


def psi(counts: ArrayLike, reference: ArrayLike) -> float:
    """The population stability index: the sum over codes of (p - q) ln(p / q), with p and q the codes' shares.

    counts, reference: (codes,), hits or N, not shares. Half a hit is added to every code in both, so that codes without
    hits have a finite ratio. In credit scoring (Siddiqi 2006), with few bins, values below 0.1 mean no change, and
    above 0.25 a large one. With 4096 codes, chance contributes much: see `psi_by_chance`. Raises `ValueError` if the
    shapes differ, or all counts are 0.
    """
    p, q = _pair(counts, reference, _SMOOTHING)
    return float(((p - q) * np.log(p / q)).sum())


def psi_by_chance(codes: int, residues: int, reference_residues: int, probability: float | None = None) -> float:
    """Mean, or a quantile, of the population stability index of two samples of one distribution.

    It is distributed as chi-square of codes - 1 times 1 / residues + 1 / reference_residues (Yurdakul and Naranjo
    2020), given enough residues to hit all codes. probability: of the quantile; None for the mean.
    """
    expected = codes - 1 if probability is None else float(chi2.ppf(probability, codes - 1))
    return expected * (1 / residues + 1 / reference_residues)


def jensen_shannon(counts: ArrayLike, reference: ArrayLike) -> float:
    """The Jensen-Shannon divergence of the codes' shares (Lin 1991), bits: 0 if equal, 1 if disjoint.

    counts, reference: (codes,), hits or N. Raises ValueError if the shapes differ, or all counts are 0.
    """
    p, q = _pair(counts, reference, 0.0)
    middle = (p + q) / 2
    divergence = 0.0
    for share in (p, q):
        used = share > 0
        divergence += float((share[used] * np.log2(share[used] / middle[used])).sum()) / 2
    return min(max(divergence, 0.0), 1.0)


def drift(counted: CodeCounts, reference: CodeCounts) -> Drift:
    """Drift of counts against a reference.

    Moving averages are scaled to a step of `STEP_RESIDUES`, so that smoothing has the same effect on all. Raises
    `ValueError` if the shapes differ, or all counts are 0.
    """
    notes, pair = list(reference.notes), (counted, reference)
    if counted.version != reference.version and None not in (counted.version, reference.version):
        notes.append(
            f"codebook {counted.version} is compared with {reference.version}: replaced codes mean something else"
        )
    chance = chance_95 = None
    if counted.residues and reference.residues:
        chance = psi_by_chance(len(counted.counts), counted.residues, reference.residues)
        chance_95 = psi_by_chance(len(counted.counts), counted.residues, reference.residues, 0.95)
    else:
        notes.append("what chance does to the stability index is not known: moving averages have no number of residues")
    if any(
        one.residues is not None and not enough_exposure(one.residues, len(one.counts)) for one in (counted, reference)
    ):
        notes.append(f"fewer than {EXPOSURE} residues a code were counted: chance alone moves these much")
    return Drift(
        source=reference.source,
        version=reference.version,
        psi=psi(*(per_step(one, moving_averages=True) if one.residues is None else one.counts for one in pair)),
        psi_by_chance=chance,
        psi_by_chance_95=chance_95,
        jensen_shannon_bits=jensen_shannon(counted.counts, reference.counts),
        notes=tuple(notes),
    )


def _checked(counts: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(counts, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"counts have the shape {array.shape}; (codes,) is wanted")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("counts hold values that are below zero or not finite")
    return array


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum()
    if total == 0:
        raise ValueError("all counts are 0")
    shares: NDArray[np.float64] = counts / total
    return shares


def _pair(counts: ArrayLike, reference: ArrayLike, added: float) -> Sequence[NDArray[np.float64]]:
    pair = [_checked(counts), _checked(reference)]
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"{len(pair[0])} codes cannot be compared with {len(pair[1])}")
    if not all(one.any() for one in pair):
        raise ValueError("all counts are 0")
    return [_shares(one + added) for one in pair]
