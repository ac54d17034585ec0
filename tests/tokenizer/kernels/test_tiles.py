"""Products with packed weights, against NumPy's."""

import numba
import numpy as np
import pytest

from foldmint_tokenizer.kernels.tiles import BLOCK, ROWS, multiply_tiles, panels, suits_this_cpu


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, BLOCK + ROWS + 2])
@pytest.mark.parametrize(("inner", "columns"), [(1, 16), (3, 32), (48, 144), (512, 128)])
@pytest.mark.parametrize("apart", [0, 5])
def test_products(rows: int, inner: int, columns: int, apart: int, keep: int) -> None:
    """Of rows that begin anywhere and lie apart; nothing else is written."""
    random = np.random.default_rng(0)
    stride, start, at = inner + apart, 3, 2
    left = random.normal(size=start + rows * stride - apart).astype(np.float32)
    weight = random.normal(size=(inner, columns)).astype(np.float32)
    to = random.normal(size=at + rows * columns + 4).astype(np.float32)
    before = to.copy()
    if not keep:
        to[at : at + rows * columns] = np.nan  # is not read
    multiply_tiles(left, start, stride, rows, panels(weight), columns, to, at, keep)
    given = np.append(left[start:], np.zeros(apart)).reshape(rows, stride)[:, :inner].astype(np.float64)
    expected = given @ weight + keep * before[at : at + rows * columns].reshape(rows, columns)
    assert np.allclose(to[at : at + rows * columns].reshape(rows, columns), expected, atol=1e-4)
    assert np.array_equal(to[:at], before[:at])
    assert np.array_equal(to[at + rows * columns :], before[at + rows * columns :])


def test_a_row_does_not_depend_on_others() -> None:
    random = np.random.default_rng(0)
    left = random.normal(size=(BLOCK + 5, 100)).astype(np.float32)
    packed = panels(random.normal(size=(100, 48)).astype(np.float32))
    whole = np.empty((len(left), 48), np.float32)
    multiply_tiles(left.reshape(-1), 0, 100, len(left), packed, 48, whole.reshape(-1), 0, 0)
    for row in (0, ROWS, BLOCK, len(left) - 1):
        alone = np.empty(48, np.float32)
        multiply_tiles(left[row], 0, 100, 1, packed, 48, alone, 0, 0)
        assert np.array_equal(alone, whole[row])


def test_what_is_not_finite_stays_in_its_row() -> None:
    left = np.ones((ROWS + 1, 7), np.float32)
    left[3, 2], left[ROWS, 0] = np.nan, np.inf
    found = np.empty((ROWS + 1, 16), np.float32)
    multiply_tiles(left.reshape(-1), 0, 7, ROWS + 1, panels(np.ones((7, 16), np.float32)), 16, found.reshape(-1), 0, 0)
    assert np.isnan(found[3]).all()
    assert np.isposinf(found[ROWS]).all()
    assert (np.delete(found, [3, ROWS], 0) == 7).all()


@pytest.mark.parametrize(
    ("name", "features", "suits"),
    [
        ("znver4", "+avx2,+avx512f", True),
        ("znver3", "+avx2", False),
        ("sapphirerapids", "+avx2,+avx512f", False),
        ("generic", "+avx512f", False),
    ],
)
def test_for_which_cpus(monkeypatch: pytest.MonkeyPatch, name: str, features: str, suits: bool) -> None:
    """What numba compiles for, which its settings may change."""
    monkeypatch.setattr(numba.config, "CPU_NAME", name)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert suits_this_cpu() is suits
