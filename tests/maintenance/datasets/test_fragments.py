"""Backbone windows: what is in them, and what is not."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foldmint_maintenance.datasets.fragments import Fragments
from foldmint_maintenance.datasets.records import PreparedSet, Record, prepared

Built = Callable[[Sequence[tuple[float, float]]], NDArray[np.float32]]


@pytest.fixture
def backbone(built: Built) -> NDArray[np.float32]:
    random = np.random.default_rng(3)
    return built([(phi, psi) for phi, psi in random.uniform(-150, 150, (20, 2))])


def _set(*chains: NDArray[np.float32], index: NDArray[np.int64] | None = None) -> PreparedSet:
    return prepared(
        Record(str(i), "A" * len(c), np.arange(len(c), dtype=np.int64) if index is None else index, c)
        for i, c in enumerate(chains)
    )


def _windows(data: PreparedSet) -> Fragments:
    return data.windows(slice(None))


def test_the_middle_is_the_origin_and_axes_follow_its_frame(backbone: NDArray[np.float32]) -> None:
    positions, exists = _windows(_set(backbone))
    assert positions.shape == (20, 9, 3, 3)
    n, ca, c = positions[:, 4].transpose(1, 0, 2)
    assert ca == pytest.approx(np.zeros((20, 3)), abs=1e-5)
    # CA - C along x, so C lies at -1.52 Å; N in the upper half of the xy plane.
    assert c == pytest.approx(np.tile([-1.52, 0, 0], (20, 1)), abs=1e-2)
    assert n[:, 2] == pytest.approx(np.zeros(20), abs=1e-5)
    assert (n[:, 1] > 1).all()
    assert exists[10].all()


def test_distances_in_a_window_are_those_in_the_chain(backbone: NDArray[np.float32]) -> None:
    positions, _ = _windows(_set(backbone))
    inside = np.linalg.norm(positions[10, 0, 0] - positions[10, 8, 2])
    assert inside == pytest.approx(np.linalg.norm(backbone[6, 0] - backbone[14, 2]), abs=1e-4)


def test_windows_do_not_change_when_the_chain_is_moved(backbone: NDArray[np.float32]) -> None:
    turn = Rotation.from_rotvec([1, 2, 3]).as_matrix()
    moved = (backbone @ turn.T + [30, -20, 10]).astype(np.float32)
    assert _windows(_set(moved)).positions == pytest.approx(_windows(_set(backbone)).positions, abs=1e-4)


def test_windows_end_where_the_chain_ends(backbone: NDArray[np.float32]) -> None:
    positions, exists = _windows(_set(backbone, backbone + np.float32(5)))
    assert exists[0].tolist() == [False] * 4 + [True] * 5
    assert exists[18].tolist() == [True] * 6 + [False] * 3
    # Row 19 ends the first chain, row 20 begins the second.
    assert exists[19].tolist() == [True] * 5 + [False] * 4
    assert exists[20].tolist() == [False] * 4 + [True] * 5
    assert (positions[~exists] == 0).all()


def test_a_chain_does_not_go_on_in_the_next_whose_numbers_follow(backbone: NDArray[np.float32]) -> None:
    data = prepared(
        Record(name, "A" * 20, np.arange(20, dtype=np.int64) + start, backbone) for name, start in (("a", 0), ("b", 20))
    )
    _, exists = _windows(data)
    assert exists[19].tolist() == [True] * 5 + [False] * 4
    assert exists[20].tolist() == [False] * 4 + [True] * 5


def test_nothing_is_taken_from_across_a_gap(backbone: NDArray[np.float32]) -> None:
    index = np.arange(20)
    index[10:] += 3
    _, exists = _windows(_set(backbone, index=index))
    assert exists[9].tolist() == [True] * 5 + [False] * 4
    assert exists[10].tolist() == [False] * 4 + [True] * 5
    assert exists[7].tolist() == [True] * 7 + [False] * 2


def test_residues_without_a_frame_have_no_place_and_no_row(backbone: NDArray[np.float32]) -> None:
    broken = backbone.copy()
    broken[10, 2] = np.nan
    data = _set(broken)
    positions, exists = _windows(data)
    assert len(data) == 19
    assert exists[9].tolist() == [True] * 5 + [False] + [True] * 3
    assert np.isfinite(positions).all()
