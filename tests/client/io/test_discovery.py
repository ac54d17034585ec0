"""Which files paths, folders and patterns mean."""

import io
from pathlib import Path

import pytest

from foldmint_client.io.discovery import find_inputs


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
    sources = [one.source for one in find_inputs(paths, lambda path, why: problems.append((path, why)))]
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


def selected(*paths: str) -> list[tuple[str, tuple[str, ...], str]]:
    def problem(path: str, why: str) -> None:
        raise AssertionError(f"{path}: {why}")

    return [(one.path, one.chains, one.member) for one in find_inputs(paths, problem)]


def test_every_suffix_of_a_structure_and_of_an_archive(tmp_path: Path) -> None:
    structures = [f"a{suffix}" for suffix in (".pdb", ".ent", ".pdb1", ".cif", ".mmcif", ".bcif", ".pdbqt")]
    packed = [name + suffix for name in structures for suffix in (".gz", ".zst", ".xz", ".bz2")]
    archives = ["a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.bz2", "a.tar.zst", "a.zip"]
    names = sorted([*structures, *packed, *archives, "a.fcz", "db"])
    for name in [*names, "a.gz", "a.txt", "db.index", "db.dbtype", "db.lookup", "a.pdb.7z"]:
        (tmp_path / name).write_bytes(b"1")
    notes: list[str] = []
    found = [Path(one.path).name for one in find_inputs([str(tmp_path)], lambda path, why: None, notes.append)]
    assert found == names
    assert notes == [f"{tmp_path}: skipped 1 no suffix, 1 .7z, 1 .txt"]


def test_what_a_folder_passes_over_is_told_in_a_line(folder: Path) -> None:
    (folder / "set" / "linked").symlink_to(folder / "empty")
    for number in range(3):
        (folder / "set" / "deep" / f"{number}.log").write_bytes(b"1")
    notes: list[str] = []
    assert len([*find_inputs(["set", "empty"], lambda path, why: None, notes.append)]) == 6
    assert notes == ["set: skipped 3 .log, 1 linked folders, 1 .txt, 1 no suffix"]


def test_chains_of_a_file(folder: Path) -> None:
    assert selected("set/b.pdb:A") == [("set/b.pdb", ("A",), "")]
    assert selected("set/b.pdb:A,b,10", "-:C") == [("set/b.pdb", ("A", "b", "10"), ""), ("-", ("C",), "")]
    assert selected("set/deep:B") == [("set/deep/e.pdb.gz", ("B",), ""), ("set/deep/er/d.mmcif", ("B",), "")]
    assert selected("set/[ab].*:B") == [("set/a.cif.gz", ("B",), ""), ("set/b.pdb", ("B",), "")]
    sources = [one.source for one in find_inputs(["set/b.pdb:A,B", "set/b.pdb"], lambda path, why: None)]
    assert sources == ["set/b.pdb:A,B", "set/b.pdb"]


def test_a_file_that_exists_by_its_very_name_wins(folder: Path) -> None:
    for name in ("set/b.pdb:A", "@list", "x!y.pdb"):
        Path(name).write_bytes(b"1")
    names = ["set/b.pdb:A", "@list", "x!y.pdb"]
    assert selected(*names) == [(name, (), "") for name in names]
    assert selected("set/b.pdb:A:B") == [("set/b.pdb:A", ("B",), "")]


@pytest.mark.parametrize(
    "path",
    ["C:\\data\\x.pdb", "C:/data/x.pdb", "https://example.org:443/x.cif", "s3://bucket/x.pdb", "none.pdb:A", "a:"],
)
def test_other_colons_stay_as_they_are(folder: Path, path: str) -> None:
    assert selected(path) == [(path, (), "")]


def test_members_of_archives(folder: Path) -> None:
    for name in ("x.tar", "we!rd.zip"):
        Path(name).write_bytes(b"1")
    assert selected("x.tar!deep/a.pdb") == [("x.tar", (), "deep/a.pdb")]
    assert selected("x.tar!a.pdb:A,B", "x.tar:C") == [("x.tar", ("A", "B"), "a.pdb"), ("x.tar", ("C",), "")]
    assert selected("we!rd.zip!a.pdb") == [("we!rd.zip", (), "a.pdb")]
    assert selected("set/b.pdb!a.pdb") == [("set/b.pdb!a.pdb", (), "")]  # no archive
    (one,) = find_inputs(["x.tar!a.pdb:A"], lambda path, why: None)
    assert one.source == "x.tar!a.pdb:A"


def test_lists_of_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("deep").mkdir()
    lines = ["# mine", "", "set/b.pdb:A", "  set/deep  ", "set/[b].pdb", "none.pdb", "#set/x.pdb"]
    Path("deep/list.txt").write_text("\ufeff" + "\r\n".join(lines))
    expected = ["set/b.pdb:A", "set/deep/e.pdb.gz", "set/deep/er/d.mmcif", "set/b.pdb", "none.pdb"]
    assert found("@deep/list.txt", "set/C.ENT") == ([*expected, "set/C.ENT"], [])
    sources, problems = found("@none.txt", "set/b.pdb")
    assert (sources, problems) == (["set/b.pdb"], [("@none.txt", "the list cannot be read: No such file or directory")])
    monkeypatch.setattr("sys.stdin", io.StringIO("set/b.pdb\n"))
    assert found("@-") == (["set/b.pdb"], [])
