"""What counts of codes mean, to server, client and maintenance: perplexity, and when a code may be called dead."""

import numpy as np
from numpy.typing import ArrayLike

EXPOSURE = 10
"""Residues per code, below which a code without a hit is not called dead: too few were seen to tell."""


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
