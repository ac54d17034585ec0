"""Metrics of how well codes represent local backbone fragments: pure functions on arrays."""

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.datasets.fragments import WINDOW

# Windows at a time in a superposition: bounds its float64 copies to some 40 MiB.
_CHUNK = 32_768


class WindowMeans:
    """Accumulates the mean backbone fragment of every code; sums are float64."""

    def __init__(self, size: int) -> None:
        self._sums = np.zeros((size, WINDOW * 9))
        self._counts = np.zeros(size, np.int64)

    def add(self, windows: NDArray[np.float32], codes: NDArray[np.integer]) -> None:
        """Add full windows (rows, 9, 3, 3), Å, with their codes (rows,)."""
        size = len(self._counts)
        self._counts += np.bincount(codes, minlength=size)
        flat = windows.reshape(len(windows), WINDOW * 9)
        for column in range(WINDOW * 9):
            self._sums[:, column] += np.bincount(codes, flat[:, column], size)

    def windows(self) -> NDArray[np.float32]:
        """The means (codes, 9, 3, 3), Å; NaN where a code has no window."""
        counts = np.where(self._counts > 0, self._counts, np.nan)
        return (self._sums / counts[:, None]).astype(np.float32).reshape(-1, WINDOW, 3, 3)


def superposed_rmsd(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """RMSD (rows,) of point sets (rows, points, 3) after the best superposition, in their unit.

    The best rotation is a proper one (Kabsch 1976, doi 10.1107/S0567739476001873): where the covariance asks for a
    mirror image its smallest singular value counts negative.
    """
    parts = [
        _superposed_rmsd(
            first[start : start + _CHUNK].astype(np.float64), second[start : start + _CHUNK].astype(np.float64)
        )
        for start in range(0, len(first), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _superposed_rmsd(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean(1, keepdims=True)
    covariance = np.einsum("rpi,rpj->rij", first, second)
    left, values, right = np.linalg.svd(covariance)
    mirrored = np.linalg.det(left) * np.linalg.det(right) < 0
    overlap = values[:, 0] + values[:, 1] + np.where(mirrored, -values[:, 2], values[:, 2])
    spread = np.einsum("rpi,rpi->r", first, first) + np.einsum("rpi,rpi->r", second, second)
    mean_square: NDArray[np.float64] = (spread - 2 * overlap) / first.shape[1]
    return np.sqrt(np.maximum(mean_square, 0))


def window_rmsd(
    table: NDArray[np.float32], codes: NDArray[np.integer], windows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """RMSD (rows,), Å, of full windows (rows, 9, 3, 3) to the mean windows of their codes (rows,).

    table: (codes, 9, 3, 3), Å. A code without a mean window (NaN) says nothing of the shape: all its atoms are taken
    to lie in one point.
    """
    known = np.where(np.isnan(table).any((1, 2, 3), keepdims=True), 0, table)
    guess = known.reshape(len(table), WINDOW * 3, 3)[codes]
    return superposed_rmsd(guess, windows.reshape(len(windows), WINDOW * 3, 3))


def used_ratio(counts: NDArray[np.integer]) -> float:
    """Share of codes hit at least once; counts: (codes,)."""
    return float(np.count_nonzero(counts) / len(counts))


def mutual_information(joint: NDArray[np.integer]) -> float:
    """Mutual information of code and class, bits. joint: (codes, classes), counts of each pair, not all 0."""
    share = joint / joint.sum()
    expected = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    occurs = share > 0
    return float((share[occurs] * np.log2(share[occurs] / expected[occurs])).sum())
