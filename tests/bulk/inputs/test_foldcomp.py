"""Databases of Foldcomp, and its files in archives: units of entries; damaged entries are failures."""

import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from foldmint_bulk.errors import InvalidInput, UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, Unreadable
from foldmint_bulk.inputs.registry import KINDS
from foldmint_bulk.parsing.pool import ParserLimits, ParserPool
from foldmint_bulk.parsing.results import INVALID, Failure, Parsed
from foldmint_bulk.planning import check_inputs
from foldmint_tokenizer.structure.reader import read_backbones
from helpers.bulk_inputs import contents, plan, read
from helpers.files.foldcomp_database import packed_structure, write_database

PACKED = packed_structure()


def test_units_of_entries(tmp_path: Path) -> None:
    values = [f"entry {number}".encode() for number in range(25)]
    names = [f"name-{number}" for number in range(25)]
    path = write_database(tmp_path / "db", names, values)
    units = plan("foldcomp", path, structures=10)
    assert [(unit.start, unit.stop, unit.structures) for unit in units] == [(0, 10, 10), (10, 20, 10), (20, 25, 5)]
    assert contents(read(units)) == {f"{path}!{name}": value for name, value in zip(names, values, strict=True)}
    assert contents(read(units[1:2])) == {f"{path}!{names[at]}": values[at] for at in range(10, 20)}
    # Unit by unit, the sources are those of the whole.
    assert [one.source for one in read(plan("foldcomp", path, structures=7))] == [one.source for one in read(units)]


def test_without_a_lookup_entries_are_named_by_their_keys(tmp_path: Path) -> None:
    path = write_database(tmp_path / "db", ["a", "b", "c"], [b"1", b"2", b"3"])
    path.with_name("db.lookup").unlink()
    assert [*contents(read(plan("foldcomp", path, structures=2)))] == [f"{path}!{key}" for key in range(3)]


def test_structures_and_damaged_entries(tmp_path: Path) -> None:
    import foldcomp

    damaged = bytearray(PACKED)
    damaged[80] ^= 0x7F
    path = write_database(
        tmp_path / "db", ["one", "torn", "other", "two"], [PACKED, PACKED[:-40], bytes(damaged), PACKED]
    )
    with ParserPool(1, ParserLimits(), "all") as pool:
        one, torn, other, two = pool.parse(iter(read(plan("foldcomp", path))), "unit")
    expected = read_backbones(foldcomp.decompress(PACKED)[1].encode())
    for found, name in ((one, "one"), (two, "two")):
        assert isinstance(found, Parsed)
        assert found.source == f"{path}!{name}"
        assert np.array_equal(found.content.chains[0].coordinates, expected[0].coordinates, equal_nan=True)
    for found, name in ((torn, "torn"), (other, "other")):
        assert isinstance(found, Failure)
        assert (found.source, found.kind) == (f"{path}!{name}", INVALID)


def test_files_of_foldcomp_in_archives(tmp_path: Path) -> None:
    (tmp_path / "one.fcz").write_bytes(PACKED)
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "one.fcz", "one.fcz")
    with ParserPool(1, ParserLimits(), "all") as pool:
        (one,) = pool.parse(iter(read(plan("tar", path))), "unit")
    assert isinstance(one, Parsed)
    assert len(one.content.chains[0]) == 67


def test_a_cut_database_and_a_damaged_index(tmp_path: Path) -> None:
    path = write_database(tmp_path / "db", ["a", "b", "c"], [b"1111", b"2222", b"3333"])
    path.write_bytes(path.read_bytes()[:-3])
    found = contents(read(plan("foldcomp", path)))
    assert found[f"{path}!b"] == b"2222"
    assert found[f"{path}!c"] == Unreadable("entry 2 of the database is out of range")
    index = path.with_name("db.index")
    index.write_text(index.read_text().replace("2\t", "?"))
    with pytest.raises(UnreadableInput, match=r"db\.index: line 3 is damaged"):
        read(plan("foldcomp", path, structures=2))


def test_a_database_in_a_folder_is_found(tmp_path: Path) -> None:
    path = write_database(tmp_path / "db", ["a"], [PACKED])
    assert KINDS["foldcomp"].claims(str(path), {"db.index", "db.dbtype"})
    assert not KINDS["foldcomp"].claims(f"{path}.index", {"db.index", "db.dbtype"})
    check_inputs([str(tmp_path)])


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_database(tmp_path / "db", ["a"], [PACKED])
    (tmp_path / "one.fcz").write_bytes(PACKED)
    monkeypatch.setitem(sys.modules, "foldcomp", None)
    for given in (path, tmp_path / "one.fcz"):
        with pytest.raises(InvalidInput, match=r"pip install 'foldmint\[foldcomp\]'"):
            check_inputs([str(given)], InputOptions())
