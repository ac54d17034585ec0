"""Neighborhoods hold the nearest residues, the query first, whatever the chain is like."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from foldmint_tokenizer.neighborhoods import Geometry, Neighborhoods, build_geometry, concatenate, join_geometries
from helpers.chains import RealChain


def shape_of(chain: RealChain) -> Geometry:
    return build_geometry(chain.coordinates, chain.residue_index)


def test_nearest_by_distance(chains: list[RealChain]) -> None:
    for chain in chains[:10]:
        shape = shape_of(chain)
        apart = cdist(shape.frames.origin, shape.frames.origin)
        expected = np.sort(apart, 1)[:, :16]
        np.testing.assert_allclose(np.take_along_axis(apart, shape.nearest.astype(int), 1), expected)
        assert (shape.nearest[:, 0] == np.arange(len(apart))).all()


def test_residues_without_a_frame_are_neither_queries_nor_neighbors(chains: list[RealChain]) -> None:
    x = chains[5].coordinates.copy()
    x[10:20, 2] = np.nan
    shape = build_geometry(x, chains[5].residue_index)
    assert set(range(10, 20)).isdisjoint(shape.queries.tolist())
    assert set(range(10, 20)).isdisjoint(shape.nearest.ravel().tolist())


@pytest.mark.parametrize("length", [1, 2, 15, 16])
def test_short_chains_have_fewer_neighbors(chains: list[RealChain], length: int) -> None:
    shape = build_geometry(chains[5].coordinates[:length], chains[5].residue_index[:length])
    rows = shape.rows(slice(None))
    assert (rows.exists.sum(1) == length).all()
    assert np.isfinite(rows.rotation).all()


def test_the_query_leads_even_where_residues_coincide() -> None:
    one = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])
    shape = build_geometry(np.stack([one] * 40), np.arange(40))
    assert (shape.nearest[:, 0] == np.arange(40)).all()
    for row in shape.nearest:
        assert len(set(row.tolist())) == 16


def test_offsets_are_clipped_differences_of_numbers(chains: list[RealChain]) -> None:
    index = np.array([1, 2, 3, 4, 5, 6, 100, 101])
    rows = build_geometry(chains[5].coordinates[:8], index).rows(slice(None))
    shape = build_geometry(chains[5].coordinates[:8], index)
    difference = index[shape.nearest[:, :8]] - index[:, None]
    np.testing.assert_array_equal(rows.offset[:, :8], np.clip(difference, -32, 32) + 33)
    assert rows.offset.min() >= 1
    assert rows.offset.max() <= 65


def test_seen_from_the_query(chains: list[RealChain]) -> None:
    rows = shape_of(chains[5]).rows(slice(None))
    np.testing.assert_allclose(rows.rotation[:, 0], np.broadcast_to(np.eye(3), rows.rotation[:, 0].shape), atol=1e-6)
    np.testing.assert_allclose(rows.origin[:, 0], 0, atol=1e-6)
    # The residue before sits where bonds put it: 3.8 Å away (2.9 across a cis bond).
    after = rows.offset == 34
    apart = np.linalg.norm(rows.origin[after], axis=-1)
    assert ((apart > 2.6) & (apart < 4.3)).all()


def test_chains_joined_and_rows_sliced_stay_the_same(chains: list[RealChain]) -> None:
    several = [shape_of(chain) for chain in chains[5:9]]
    expected = concatenate([shape.rows(slice(None)) for shape in several])
    together = join_geometries(several)
    sliced = concatenate([together.rows(slice(start, start + 37)) for start in range(0, len(together.queries), 37)])
    for rows in (together.rows(slice(None)), sliced):
        for name in Neighborhoods._fields:
            np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))
