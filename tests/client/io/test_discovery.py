"""Which files paths, folders and patterns mean."""

from pathlib import Path

import pytest

from foldmint_client.io.discovery import find


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ["b.pdb", "a.cif.gz", "C.ENT", "notes.txt", "deep/er/d.mmcif", "deep/e.pdb.gz", ".hidden.pdb", ".git/x.pdb"]
    for name in [*names, "bracket[1].pdb", "plain.gz"]:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths: str) -> tuple[list[str], list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    sources = [one.source for one in find(paths, lambda path, why: problems.append((path, why)))]
    return sources, problems


def test_folders_are_searched_to_the_bottom(folder: Path) -> None:
    names = ["C.ENT", "a.cif.gz", "b.pdb", "bracket[1].pdb", "deep/e.pdb.gz", "deep/er/d.mmcif"]
    assert found("set") == ([f"set/{name}" for name in names], [])
    assert found(str(folder / "set" / "deep"))[0] == [
        f"{folder}/set/deep/{name}" for name in ("e.pdb.gz", "er/d.mmcif")
    ]


def test_patterns(folder: Path) -> None:
    assert found("set/*.pdb")[0] == ["set/b.pdb", "set/bracket[1].pdb"]
    assert found("set/**/*.gz")[0] == ["set/a.cif.gz", "set/deep/e.pdb.gz", "set/plain.gz"]
    assert found("set/de*")[0] == ["set/deep/e.pdb.gz", "set/deep/er/d.mmcif"]
    assert found("set/bracket[1].pdb")[0] == ["set/bracket[1].pdb"]


def test_named_files_keep_their_order_and_need_no_suffix(folder: Path) -> None:
    assert found("set/notes.txt", "-", "set/b.pdb", "set/none.pdb")[0] == [
        "set/notes.txt",
        "-",
        "set/b.pdb",
        "set/none.pdb",
    ]


def test_what_means_nothing_is_told(folder: Path) -> None:
    sources, problems = found("set/*.xyz", "empty", "set/b.pdb")
    assert sources == ["set/b.pdb"]
    assert [path for path, _ in problems] == ["set/*.xyz", "empty"]
    assert "no file matches" in problems[0][1]
    assert "no structure files" in problems[1][1]


def test_a_name_that_is_no_text(folder: Path) -> None:
    name = b"set/\xff.pdb"
    try:
        Path(name.decode("utf-8", "surrogateescape")).write_bytes(b"1")
    except OSError:
        pytest.skip("this file system takes no such name")
    assert "set/\\udcff.pdb" in found("set")[0]
