"""Products in compiled functions, against NumPy's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.products import multiply, sgemm_address

pytestmark = pytest.mark.skipif(sgemm_address() is None, reason="torch's library does not export sgemm")
Floats = NDArray[np.float32]


@compiled()
def product(
    sgemm: int, left: Floats, start: int, stride: int, rows: int, weight: Floats, to: Floats, at: int, keep: int
) -> None:
    multiply(sgemm, left, start, stride, rows, weight, to, at, keep)


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (7, 3, 5), (64, 48, 144), (513, 128, 33)])
@pytest.mark.parametrize("apart", [0, 5])
def test_products(rows: int, inner: int, columns: int, apart: int, keep: int) -> None:
    """Of rows that begin anywhere and lie apart; nothing else is written."""
    random = np.random.default_rng(0)
    stride, start, at = inner + apart, 3, 2
    left = random.normal(size=start + rows * stride).astype(np.float32)
    weight = random.normal(size=(inner, columns)).astype(np.float32)
    to = random.normal(size=at + rows * columns + 4).astype(np.float32)
    before = to.copy()
    if not keep:
        to[at : at + rows * columns] = np.nan  # is not read
    product(sgemm_address() or 0, left, start, stride, rows, weight, to, at, keep)
    given = left[start:].reshape(rows, stride)[:, :inner].astype(np.float64)
    expected = given @ weight + keep * before[at : at + rows * columns].reshape(rows, columns)
    assert np.allclose(to[at : at + rows * columns].reshape(rows, columns), expected, atol=1e-4)
    assert np.array_equal(to[:at], before[:at])
    assert np.array_equal(to[at + rows * columns :], before[at + rows * columns :])
