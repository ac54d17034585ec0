"""The measures of fidelity, against cases worked out by hand and SciPy's superposition."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foldmint.usage import perplexity
from foldmint_maintenance.evaluation import fragment_metrics


@pytest.fixture
def windows() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 5, (40, 9, 3, 3)).astype(np.float32)


def test_superposition_takes_away_rotation_and_shift() -> None:
    random = np.random.default_rng(1)
    points = random.normal(0, 5, (20, 27, 3))
    moved = np.einsum("rij,rpj->rpi", Rotation.random(20, random).as_matrix(), points) + random.normal(0, 9, (20, 1, 3))
    assert fragment_metrics.superposed_rmsd(points, moved) == pytest.approx(np.zeros(20), abs=1e-6)


def test_superposition_of_two_points_leaves_the_difference_of_their_distances() -> None:
    narrow = np.array([[[-1.0, 0, 0], [1, 0, 0]]])
    wide = np.array([[[0, -3.0, 0], [0, 3, 0]]])
    assert fragment_metrics.superposed_rmsd(narrow, wide) == pytest.approx([2.0])


def test_superposition_agrees_with_scipy_and_never_mirrors() -> None:
    random = np.random.default_rng(2)
    first = random.normal(0, 5, (30, 27, 3))
    second = first + random.normal(0, 1, first.shape)
    second[::2] = second[::2] * [1, 1, -1]
    expected = [
        Rotation.align_vectors(a - a.mean(0), b - b.mean(0))[1] / np.sqrt(27)
        for a, b in zip(first, second, strict=True)
    ]
    assert fragment_metrics.superposed_rmsd(first, second) == pytest.approx(expected, rel=1e-9)
    assert min(expected[::2]) > 2 > max(expected[1::2])


def test_superposition_of_nothing_is_nothing() -> None:
    assert fragment_metrics.superposed_rmsd(np.zeros((0, 27, 3)), np.zeros((0, 27, 3))).shape == (0,)


def test_mean_windows_are_means_over_all_parts_and_nan_where_there_are_none(windows: NDArray[np.float32]) -> None:
    codes = np.arange(40) % 3
    means = fragment_metrics.WindowMeans(5)
    means.add(windows[:25], codes[:25])
    means.add(windows[25:], codes[25:])
    table = means.windows()
    assert table.dtype == np.float32
    for code in range(3):
        assert table[code] == pytest.approx(windows[codes == code].mean(0), abs=1e-5)
    assert np.isnan(table[3:]).all()


def test_window_rmsd_compares_with_the_mean_of_the_code(windows: NDArray[np.float32]) -> None:
    codes = np.array([7, 0, 3])
    table = np.full((8, 9, 3, 3), np.nan, np.float32)
    table[codes] = windows[:3]
    table[3] += 2.5
    assert fragment_metrics.window_rmsd(table, codes, windows[:3]) == pytest.approx(np.zeros(3), abs=1e-3)
    assert fragment_metrics.window_rmsd(table, codes[::-1].copy(), windows[:3])[0] > 1


def test_a_code_without_a_window_counts_as_a_point(windows: NDArray[np.float32]) -> None:
    table = np.full((1, 9, 3, 3), np.nan, np.float32)
    points = windows[:1].reshape(27, 3).astype(np.float64)
    gyration = np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean())
    assert fragment_metrics.window_rmsd(table, np.array([0]), windows[:1]) == pytest.approx([gyration])


def test_usage_of_equal_counts_is_their_number() -> None:
    counts = np.array([5, 0, 5, 5])
    assert fragment_metrics.used_ratio(counts) == 0.75
    assert perplexity(counts) == pytest.approx(3)
    assert perplexity(np.array([0, 9])) == pytest.approx(1)
    # Entropy of 1/2, 1/4, 1/4 is 1.5 bits.
    assert perplexity(np.array([2, 1, 1])) == pytest.approx(2**1.5)


@pytest.mark.parametrize(
    ("joint", "bits"),
    [
        ([[5, 0], [0, 5]], 1.0),
        ([[3, 3], [3, 3]], 0.0),
        ([[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4]], 2.0),
        # 1 - H(1/4): a channel that errs one time in four.
        ([[3, 1], [1, 3]], 1 + 0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)),
    ],
)
def test_mutual_information(joint: list[list[int]], bits: float) -> None:
    assert fragment_metrics.mutual_information(np.array(joint)) == pytest.approx(bits, abs=1e-12)
