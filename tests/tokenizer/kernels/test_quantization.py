"""The nearest code by tiles: exactly the nearest, the first of several, and never where a vector is not finite."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.quantization import nearest_codes, packed_codes

Floats = NDArray[np.float32]


def nearest(z: Floats, embeddings: Floats) -> tuple[NDArray[np.int64], Floats]:
    codes, distances = np.full(len(z), -1), np.full(len(z), np.nan, np.float32)
    nearest_codes(z, embeddings, packed_codes(embeddings), codes, distances)
    return codes, distances


def by_looking_at_all(z: Floats, embeddings: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    apart = np.stack([np.square(one.astype(np.float64) - embeddings).sum(1) for one in z])
    return apart.argmin(1), np.sqrt(apart.min(1))


@pytest.mark.parametrize("rows", [1, 11, 12, 13, 48, 49, 300])
@pytest.mark.parametrize("codes", [1, 5, 31, 32, 33, 1000])
@pytest.mark.parametrize("out", [1, 16, 24, 128])
def test_the_nearest_of_all(rows: int, codes: int, out: int) -> None:
    random = np.random.default_rng(rows * codes + out)
    z, embeddings = (random.normal(size=(count, out)).astype(np.float32) for count in (rows, codes))
    found, distances = nearest(z, embeddings)
    expected, apart = by_looking_at_all(z, embeddings)
    assert found.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, apart, rtol=1e-6)


def test_no_vectors() -> None:
    codes, distances = nearest(np.empty((0, 4), np.float32), np.ones((8, 4), np.float32))
    assert (codes.shape, distances.shape) == ((0,), (0,))


def test_of_equal_codes_the_first() -> None:
    random = np.random.default_rng(0)
    embeddings = np.tile(random.normal(size=(50, 16)).astype(np.float32), (4, 1))[random.permutation(200)]
    z = random.normal(size=(100, 16)).astype(np.float32)
    assert nearest(z, embeddings)[0].tolist() == by_looking_at_all(z, embeddings)[0].tolist()


def test_what_float32s_products_cannot_tell_apart() -> None:
    """Pairs of codes that are near each other and far from the origin, and vectors between them."""
    random = np.random.default_rng(0)
    embeddings = (20 * random.normal(size=(512, 16))).astype(np.float32)
    embeddings[1::2] = embeddings[::2] + random.normal(size=(256, 16)).astype(np.float32) * 1e-3
    share = random.uniform(0.49, 0.51, (256, 1))
    z = (embeddings[::2] * share + embeddings[1::2] * (1 - share)).astype(np.float32)
    expected, apart = by_looking_at_all(z, embeddings)
    by_products = (np.square(embeddings).sum(1) - 2 * z @ embeddings.T).argmin(1)
    assert (by_products != expected).mean() > 0.1
    found, distances = nearest(z, embeddings)
    assert found.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, apart, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("codes", [5, 40])
def test_what_is_not_finite_has_no_distance(value: float, codes: int) -> None:
    random = np.random.default_rng(0)
    z, embeddings = (random.normal(size=(count, 24)).astype(np.float32) for count in (30, codes))
    z[[3, 29], [5, 0]] = value
    found, distances = nearest(z, embeddings)
    assert np.flatnonzero(~np.isfinite(distances)).tolist() == ([3, 29] if abs(value) != 3e38 else [])
    assert ((found >= 0) & (found < codes)).all()
    others = np.delete(np.arange(30), [3, 29])
    assert found[others].tolist() == by_looking_at_all(z[others], embeddings)[0].tolist()


def test_one_vector_or_many_give_the_same() -> None:
    random = np.random.default_rng(0)
    z, embeddings = (random.normal(size=(count, 16)).astype(np.float32) for count in (100, 600))
    codes, distances = nearest(z, embeddings)
    for row in range(100):
        code, distance = nearest(z[row : row + 1], embeddings)
        assert (code[0], distance[0]) == (codes[row], distances[row])


def test_packed_codes_hold_squares_and_no_other_codes() -> None:
    packed = packed_codes(torch.arange(12.0).view(3, 4).numpy())
    assert packed.shape == (1, 5, 32)
    assert packed[0, 4, :3].tolist() == [14, 126, 366]
    assert np.isinf(packed[0, 4, 3:]).all()
    assert packed[0, :4, 1].tolist() == [-8, -10, -12, -14]
