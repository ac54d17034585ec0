"""Metrics of a decoded backbone against the true one: pure functions on arrays.

Residues correspond by their place; those without a frame are left out before.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from foldmint_maintenance.evaluation import fragment_metrics

LDDT_RADIUS = 15.0
LDDT_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)


def backbone_rmsd(truth: NDArray[np.floating], guess: NDArray[np.floating]) -> float:
    """RMSD of N, CA and C after the best superposition, Å; both (residues, 3, 3): residue, atom, axis; Å."""
    atoms = fragment_metrics.superposed_rmsd(truth.reshape(1, -1, 3), guess.reshape(1, -1, 3))
    return float(atoms[0])


def superposed(moving: NDArray[np.floating], fixed: NDArray[np.floating]) -> NDArray[np.float64]:
    """The first points turned and moved, never mirrored, to where their RMSD to the others is least; both (points, 3).

    Kabsch 1976, doi 10.1107/S0567739476001873.
    """
    centered = moving - moving.mean(0, dtype=np.float64)
    center = fixed.mean(0, dtype=np.float64)
    left, _, right = np.linalg.svd(centered.T @ (fixed - center))
    left[:, 2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))
    turned: NDArray[np.float64] = centered @ (left @ right) + center
    return turned


class LDDT(NamedTuple):
    """residues: (residues,), 0 to 1, NaN where no other CA is near. chain: over all pairs, NaN where there is none."""

    residues: NDArray[np.float64]
    chain: float


def lddt_ca(truth: NDArray[np.floating], guess: NDArray[np.floating]) -> LDDT:
    """lDDT of CA positions (residues, 3), Å (Mariani et al. 2013, doi 10.1093/bioinformatics/btt473).

    Of the pairs less than 15 Å apart in the truth, the share whose distance is off by less than 0.5, 1, 2 and 4 Å, mean
    of the four. The chain's is over all its pairs, as in that paper and AlphaFold's `lddt`, not a mean over residues;
    a residue's is over the pairs that it is one of. Blind to mirror images.
    """
    apart = cdist(truth, truth)
    near = apart < LDDT_RADIUS
    np.fill_diagonal(near, val=False)
    error = np.abs(apart - cdist(guess, guess))
    kept = np.where(near, np.mean([error < threshold for threshold in LDDT_THRESHOLDS], 0), 0)
    pairs = np.where(near.any(1), near.sum(1), np.nan)
    return LDDT(kept.sum(1) / pairs, float(kept.sum() / near.sum()) if near.any() else np.nan)


def tm_score(truth: NDArray[np.floating], guess: NDArray[np.floating]) -> float:
    """TM-score of CA positions (residues, 3), Å: 0 to 1, normalized by the number of residues.

    The mean of 1 / (1 + (d / d0)²) over residues, d their distance, at the superposition where it is greatest;
    d0 = 1.24 (residues - 15)^(1/3) - 1.8 Å, and 0.5 up to 21 residues (Zhang & Skolnick 2004, doi 10.1002/prot.20264).
    """
    # Not above: its bindings are under the GPL, and nothing else here may come to need them.
    import tmtools

    # The pairs are known, so they are given. Left to itself TM-align looks for pairs that score better: a copy shifted
    # by one residue would get almost 1. biotite's tm_score takes a superposition as it is, and looks for no better one.
    pairs = "A" * len(truth)
    first, second = (np.ascontiguousarray(points, np.float64) for points in (guess, truth))
    return float(tmtools.tm_align(first, second, pairs, pairs, alignment=[pairs, pairs]).tm_norm_chain2)
