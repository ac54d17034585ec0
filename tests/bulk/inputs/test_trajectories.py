"""Trajectories: a structure a frame, as if the frame had been written as a file; damage and misfits are told."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from foldmint_bulk.errors import InvalidInput, UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure
from foldmint_bulk.inputs.registry import KINDS, kind_of
from foldmint_bulk.planning import check_inputs
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.reader import read_backbones
from helpers.bulk_inputs import Trajectory, plan, read, write_trajectory

FRAMES = 23
SUFFIXES = ("xtc", "trr", "dcd")


def same(structure: RawStructure, expected: list[Backbone]) -> None:
    assert isinstance(structure.content, tuple)
    for own, other in zip(structure.content, expected, strict=True):
        assert (own.chain, own.sequence, own.insertion_codes) == (other.chain, other.sequence, other.insertion_codes)
        assert own.residue_index.tolist() == other.residue_index.tolist()
        assert np.array_equal(own.coordinates, other.coordinates, equal_nan=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_are_what_their_files_would_be(tmp_path: Path, data: Path, suffix: str) -> None:
    trajectory = Trajectory(data, FRAMES)
    path = trajectory.write(tmp_path / f"md.{suffix}")
    (tmp_path / "md.pdb").write_bytes(trajectory.pdb(7))
    assert kind_of(str(path)) is KINDS["trajectory"]
    check_inputs([str(path)])
    units = plan("trajectory", path, structures=10)
    assert [(unit.start, unit.stop, unit.structures) for unit in units] == [(0, 10, 10), (10, 20, 10), (20, 23, 3)]
    found = read(units)
    assert [structure.source for structure in found] == [f"{path}!{frame}" for frame in range(FRAMES)]
    for frame, structure in enumerate(found):
        same(structure, read_backbones(trajectory.pdb(frame)))
    assert [structure.source for structure in read(units[1:2])] == [f"{path}!{frame}" for frame in range(10, 20)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_so_many_frames(tmp_path: Path, data: Path, suffix: str) -> None:
    trajectory = Trajectory(data, FRAMES)
    path = trajectory.write(tmp_path / f"md.{suffix}")
    (tmp_path / "other.pdb").write_bytes(trajectory.pdb(0))
    options = InputOptions(topology=str(tmp_path / "other.pdb"), stride=5)
    units = plan("trajectory", path, structures=3, options=options)
    assert [(unit.start, unit.stop, unit.structures) for unit in units] == [(0, 15, 3), (15, 23, 2)]
    found = read(units, options)
    assert [structure.source for structure in found] == [f"{path}!{frame}" for frame in (0, 5, 10, 15, 20)]
    for structure, frame in zip(found, (0, 5, 10, 15, 20), strict=True):
        same(structure, read_backbones(trajectory.pdb(frame)))


def test_a_gro_file_as_topology(tmp_path: Path, data: Path) -> None:
    trajectory, rows = Trajectory(data, 1), list[str]()
    protein = [at for at, line in enumerate(trajectory.lines) if line.startswith("ATOM")]
    trajectory.lines = lines = [trajectory.lines[at] for at in protein]
    trajectory.positions = positions = trajectory.positions[:, protein]
    for copy in range(2):  # two chains of the same numbers, as GROMACS writes them
        for number, line in enumerate(lines, 1):
            place = "".join(f"{float(line[at : at + 8]) / 10:8.3f}" for at in (30, 38, 46))
            name = f"{line[17:20].strip():<5}{line[12:16].strip():>5}"
            rows.append(f"{int(line[22:26]):5d}{name}{(copy * len(lines) + number) % 100_000:5d}{place}")
    rows.append(f"{99_999:5d}{'SOL':<5}{'OW':>5}{1:5d}{0.1:8.3f}{0.2:8.3f}{0.3:8.3f}")
    (tmp_path / "md.gro").write_text("\n".join(["title", f"{len(rows):5d}", *rows, "   9.0 9.0 9.0", ""]))
    both = np.concatenate([positions, positions + 8, positions[:, :1]], 1)
    path = write_trajectory(tmp_path / "md.xtc", both)
    (first,) = read(plan("trajectory", path))
    one, two = first.content if isinstance(first.content, tuple) else ((), ())
    assert isinstance(one, Backbone)
    assert isinstance(two, Backbone)
    (expected,) = read_backbones(trajectory.pdb(0))
    assert one.sequence == two.sequence == expected.sequence
    assert one.residue_index.tolist() == expected.residue_index.tolist()
    assert np.array_equal(one.coordinates, expected.coordinates, equal_nan=True)
    assert np.array_equal(two.coordinates, expected.coordinates + 8, equal_nan=True)
    assert one.chain != two.chain


def test_other_atoms_than_the_topology_has(tmp_path: Path, data: Path) -> None:
    trajectory = Trajectory(data, 2)
    path = write_trajectory(tmp_path / "md.xtc", trajectory.positions[:, :-1])
    (tmp_path / "md.pdb").write_bytes(trajectory.pdb(0))
    message = f"it has {len(trajectory.lines) - 1} atoms, and its topology {len(trajectory.lines)}"
    with pytest.raises(InvalidInput, match=message):
        check_inputs([str(path)])
    with pytest.raises(UnreadableInput, match=message):
        read(plan("trajectory", path))


def test_without_a_topology(tmp_path: Path, data: Path) -> None:
    path = Trajectory(data, 2).write(tmp_path / "md.xtc")
    with pytest.raises(InvalidInput, match=r"give it by --topology, or put it beside it, named md or topology \(\.pdb"):
        check_inputs([str(path)])
    with pytest.raises(InvalidInput, match=r"gone\.pdb"):
        check_inputs([str(path)], InputOptions(topology=str(tmp_path / "gone.pdb")))
    with pytest.raises(UnreadableInput, match="--topology"):
        read(plan("trajectory", path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_trajectory_that_is_cut_off(tmp_path: Path, data: Path, suffix: str) -> None:
    trajectory = Trajectory(data, FRAMES)
    path = trajectory.write(tmp_path / f"md.{suffix}")
    path.write_bytes(path.read_bytes()[:-500])
    (tmp_path / "topology.pdb").write_bytes(trajectory.pdb(0))
    found: list[RawStructure] = []
    units = plan("trajectory", path, structures=10)
    structures = chain.from_iterable(KINDS["trajectory"].read(unit, InputOptions(), Counter()) for unit in units)
    with pytest.raises(UnreadableInput, match=rf"md\.{suffix}: "):
        found.extend(structures)
    assert [structure.source for structure in found] == [f"{path}!{frame}" for frame in range(FRAMES - 1)]
    same(found[-1], read_backbones(trajectory.pdb(FRAMES - 2)))


def test_a_file_that_is_no_trajectory(tmp_path: Path, data: Path) -> None:
    (tmp_path / "topology.pdb").write_bytes((data / "1a8o.pdb").read_bytes())
    for suffix in SUFFIXES:
        path = tmp_path / f"md.{suffix}"
        path.write_bytes(b"nothing" * 100)
        (unit,) = plan("trajectory", path)
        with pytest.raises(UnreadableInput, match=rf"md\.{suffix}: "):
            read([unit])
