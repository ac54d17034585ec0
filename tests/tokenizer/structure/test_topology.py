"""Topologies: the places of a chain's atoms are those of its coordinates, in every format and reading."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldmint_tokenizer.structure.options import Reading, ReadOptions
from foldmint_tokenizer.structure.reader import read_structure, read_topology


@pytest.mark.parametrize("reading", ["all", "esm"])
@pytest.mark.parametrize("name", ["1a8o.pdb", "1a8o.cif", "1gbt.cif.gz", "1lcd.cif.gz"])
def test_atoms_are_those_of_the_coordinates(data: Path, name: str, reading: Reading) -> None:
    options = ReadOptions(reading=reading)
    topology, content = read_topology(data / name, options), read_structure(data / name, options)
    model = gemmi.read_structure(str(data / name), merge_chain_parts=False)[0]
    places = np.array([atom.atom.pos.tolist() for atom in model.all()], np.float32)
    assert topology.atom_count == len(places)
    assert [chain.chain for chain in topology.chains] == [chain.chain for chain in content.chains]
    for chain, atoms in zip(content.chains, topology.atoms, strict=True):
        there = atoms >= 0
        assert np.array_equal(~there, np.isnan(chain.coordinates).any(2))
        assert np.array_equal(places[atoms[there]], chain.coordinates[there])
