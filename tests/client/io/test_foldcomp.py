"""What Foldcomp compressed: files and databases; damaged data is told, whatever its library does with it."""

import sys
from pathlib import Path

import pytest

from foldmint_client.errors import InvalidStructure, MissingExtra, UnreadableInput
from foldmint_client.io.foldcomp_files import Foldcomp, entries, is_database
from helpers.files.foldcomp_database import packed_structure, write_database


@pytest.fixture(scope="module")
def packed() -> bytes:
    return packed_structure()


def test_a_structure_and_back(packed: bytes) -> None:
    import foldcomp

    with Foldcomp() as reader:
        pdb = reader.pdb(packed)
        assert pdb == foldcomp.decompress(packed)[1].encode() == reader.pdb(packed)
    assert sum(line[12:16] == b" CA " for line in pdb.splitlines()) == 66


def test_data_that_is_cut_off_is_told(packed: bytes) -> None:
    with Foldcomp() as reader:
        for length in (0, 3, 4, 40, 100, len(packed) // 2, len(packed) - 1):
            with pytest.raises(InvalidStructure, match=r"truncated|not Foldcomp data"):
                reader.pdb(packed[:length])
        with pytest.raises(InvalidStructure, match="not Foldcomp data"):
            reader.pdb(b"ATOM")


def test_damage_that_ends_the_library_is_told_and_others_go_on(packed: bytes) -> None:
    damaged = bytearray(packed)
    damaged[7:9] = b"\xff\xff"
    with Foldcomp() as reader:
        whole = reader.pdb(packed)
        told = 0
        for place in (4, 6, 8, 10, 12, 60, 64, 68, 72, 76, 80, 84):
            damaged = bytearray(packed)
            damaged[place] ^= 0x7F
            try:
                reader.pdb(bytes(damaged))
            except InvalidStructure:
                told += 1
            assert reader.pdb(packed) == whole
    assert told > 2


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foldcomp", None)
    with pytest.raises(MissingExtra, match=r"pip install 'foldmint\[foldcomp\]'"):
        Foldcomp()


def test_entries_of_a_database(tmp_path: Path, packed: bytes) -> None:
    path = write_database(tmp_path / "db", ["one", "two", "three"], [packed, b"x", packed])
    assert is_database(path)
    assert not is_database(tmp_path / "db.index")
    assert [*entries(path, lambda name: name != "two")] == [("one", packed), ("three", packed)]
    path.with_name("db.lookup").unlink()
    assert [name for name, _ in entries(path, lambda _: True)] == ["0", "1", "2"]


def test_a_database_that_is_damaged(tmp_path: Path, packed: bytes) -> None:
    path = write_database(tmp_path / "db", ["one", "two"], [packed, packed])
    path.write_bytes(packed + b"\0")
    found = [*entries(path, lambda _: True)]
    assert found[0] == ("one", packed)
    assert isinstance(found[1][1], InvalidStructure)
    path.with_name("db.index").write_text("0\t0\t5\n1\t-5\t9\n")
    with pytest.raises(UnreadableInput, match="line 2 is damaged"):
        [*entries(path, lambda _: True)]
