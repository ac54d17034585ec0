"""Rows for encoders on a CPU."""

import pytest

from foldmint_tokenizer.neighborhoods import Neighborhoods, build_geometry, concatenate
from helpers.chains import RealChain


@pytest.fixture(scope="module")
def rows(chains: list[RealChain]) -> Neighborhoods:
    shapes = [build_geometry(chain.coordinates, chain.residue_index) for chain in chains[:4]]
    short = build_geometry(chains[0].coordinates[:9], chains[0].residue_index[:9])  # has empty slots
    return concatenate([shape.rows(slice(0, 100)) for shape in [*shapes, short]])
