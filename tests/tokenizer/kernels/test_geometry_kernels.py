"""Nearest neighbors as found by sorting all distances, ties included."""

import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_tokenizer import neighborhoods
from foldmint_tokenizer.kernels.geometry import nearest
from foldmint_tokenizer.neighborhoods import build_geometry
from helpers.chains import RealChain


def sorted_all(ca: NDArray[np.float64], wanted: int) -> NDArray[np.int64]:
    """Of each point, itself and those nearest to it; of equally near ones, those with the lowest numbers."""
    apart = ca[:, None] - ca[None]
    square = apart[..., 0] ** 2 + apart[..., 1] ** 2 + apart[..., 2] ** 2
    np.fill_diagonal(square, -1)
    order: NDArray[np.int64] = np.argsort(square, axis=1, kind="stable")[:, :wanted]
    return order


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 63, 64, 65, 300])
@pytest.mark.parametrize("places", ["apart", "on a grid", "all in one", "along a line"])
def test_nearest_points(count: int, places: str) -> None:
    random = np.random.default_rng(count)
    ca = {
        "apart": random.normal(0, 20, (count, 3)),
        "on a grid": random.integers(0, 4, (count, 3)).astype(float),
        "all in one": np.full((count, 3), 7.5),
        "along a line": np.arange(count)[:, None] * np.array([3.8, 0.0, 0.0]),
    }[places]
    wanted = min(16, count)
    found = np.empty((count, wanted), np.int32)
    nearest(ca, found)
    assert found.tolist() == sorted_all(ca, wanted).tolist()


def test_by_comparison_and_by_tree_the_same(chains: list[RealChain], monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[NDArray[np.int32]]:
        return [build_geometry(one.coordinates, one.residue_index).nearest for one in chains]

    compared = found()
    monkeypatch.setattr(neighborhoods, "_COMPARED", 0)
    for one, other in zip(compared, found(), strict=True):
        assert (one == other).all()
