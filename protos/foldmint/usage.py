"""What counts of codes mean, to server, client and maintenance: perplexity, and when a code may be called dead.

Absent hits are evidence only where hits were to be expected. A living code of share p stays unhit in n independent
residues with the probability exp(-p n). Residues of repeated or similar structures are not independent: n is divided by
the design effect, which is estimated from how far hits scatter around what the shares predict. Codes are judged from
the most frequent down, as long as each would stay unhit with a probability of no more than `MAX_CHANCE`, and no more
than `MAX_FALSE_DEAD` living codes are expected to be called dead in all.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXPOSURE = 10
"""Residues per code, below which a code without a hit is not called dead: too few were seen to judge."""

MAX_FALSE_DEAD = 1.0
"""How many living codes may be expected to stay unhit by chance among those that counts can call dead."""

MAX_CHANCE = 0.05
"""The probability with which a code that is called dead for want of hits would have none if it was alive."""

_ROUNDS = 20  # of weighted least squares, which settle after about five


def perplexity(counts: ArrayLike) -> float:
    """exp of the entropy of the codes' shares: 1 to the number of codes; 0 without a hit.

    counts: (codes,), hits or moving averages of hits, none of them negative.
    """
    used = np.asarray(counts, np.float64)
    used = used[used > 0]
    if not len(used):
        return 0.0
    share = used / used.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def enough_exposure(residues: float, codes: int) -> bool:
    """Whether so many residues were seen that a code without a hit may be called dead."""
    return residues >= EXPOSURE * codes


class Evidence(NamedTuple):
    """What the absence of hits means in a counting.

    design_effect: residues that count as one independent residue, 1 or more. independent: residues divided by it.
    unhit_by_chance: living codes that are expected to have no hit. judged: (codes,) bool, codes that may be called dead
    if they have no hit; `MAX_FALSE_DEAD` of the living ones among them, at most, are expected to have none.
    """

    design_effect: float
    independent: float
    unhit_by_chance: float
    judged: NDArray[np.bool_]


def evidence(hits: ArrayLike, N: ArrayLike, dead_threshold: float = 0.0) -> Evidence:
    """What follows from codes without hits, if living codes are hit as often as N says.

    hits: (codes,), counted. N: (codes,), the codebook's moving averages of hits. dead_threshold: codes whose N is below
    it are not living, and are always judged. Raises ValueError if the shapes differ.
    """
    counted, averages = np.asarray(hits, np.float64), np.asarray(N, np.float64)
    if counted.shape != averages.shape or counted.ndim != 1:
        raise ValueError(f"hits of the shape {counted.shape} and N of {averages.shape}; both are (codes,)")
    living = (averages > 0) & (averages >= dead_threshold)
    shares = np.where(living, averages, 0.0)
    # Without any living code, all are taken for equally frequent.
    shares = shares / shares.sum() if living.any() else np.full(len(shares), 1 / max(1, len(shares)))
    effect = design_effect(counted, shares)
    independent = float(counted.sum()) / effect
    chance = np.exp(-shares * independent)
    frequent_first = np.argsort(-shares, kind="stable")
    expected = np.cumsum(np.where(living, chance, 0.0)[frequent_first])
    judged = np.empty(len(shares), bool)
    judged[frequent_first] = expected <= MAX_FALSE_DEAD
    judged &= chance <= MAX_CHANCE
    return Evidence(effect, independent, float(chance[living].sum()), judged | ~living)


def design_effect(hits: ArrayLike, shares: ArrayLike) -> float:
    """Residues that count as one independent residue, 1 or more (Kish 1965).

    hits, shares: (codes,); shares: what each code is expected to get of all hits. The squared deviation of a code's
    hits, over the expected hits e, is on average the design effect, as by Rao and Scott (1981), plus t e where shares
    themselves differ by a relative variance t, as they do between corpora. Both are fitted by weighted least squares.
    Codes without a hit are left out, since they may be dead; where they are, the hits that others got in their place
    make the estimate larger.
    """
    counted, share = np.asarray(hits, np.float64), np.asarray(shares, np.float64)
    used = (counted > 0) & (share > 0)
    if used.sum() < 3:
        return 1.0
    expected = share[used] * counted.sum()
    counted = counted[used]
    scatter = np.square(counted - expected) / expected
    effect, drift = float(scatter.mean()), 0.0
    for _ in range(_ROUNDS):
        weight = 1 / np.square(max(effect, 1.0) + drift * expected)
        sums = [float((weight * expected**power).sum()) for power in range(3)]
        right = float((weight * scatter).sum()), float((weight * scatter * expected).sum())
        determinant = sums[0] * sums[2] - sums[1] ** 2
        drift = 0.0
        if determinant > 1e-9 * sums[0] * sums[2]:
            drift = max(0.0, (sums[0] * right[1] - sums[1] * right[0]) / determinant)
        effect = (right[0] - drift * sums[1]) / sums[0]
    return max(1.0, effect)
