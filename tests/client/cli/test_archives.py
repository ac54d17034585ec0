"""The command `foldmint tokenize` on archives, selections, lists and Foldcomp's files."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from client.io.test_archives import tar
from client.io.test_foldcomp import packed  # noqa: F401 (a fixture)
from typer.testing import CliRunner, Result

from foldmint_client.cli.main import app
from helpers.files.foldcomp_database import write_database

if TYPE_CHECKING:
    from client.conftest import ScriptedServer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two archives of numbers and a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("one.tar.gz").write_bytes(gzip.compress(tar([(f"in/{n}.pdb", b"%d" % n) for n in range(10)])))
    with zipfile.ZipFile("two.zip", "w") as archive:
        for name, content in (("20.pdb", "20"), ("bad.cif", "bad"), ("notes.txt", "")):
            archive.writestr(name, content)
    Path("3.pdb").write_text("3")
    return tmp_path


def tokenize(server: "ScriptedServer", *arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["tokenize", "--server", server.target, *arguments], input=stdin)


def rows(path: str) -> dict[str, int]:
    """The first token of each source."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return {row["source"]: row["tokens"][0] for row in lines}


ONE = {f"one.tar.gz!in/{number}.pdb": number for number in range(10)}


def test_each_member_is_a_source(server: "ScriptedServer") -> None:
    result = tokenize(server, "--json", "-o", "out", "3.pdb", "one.tar.gz", "two.zip")
    assert result.exit_code == 1
    assert rows("out") == {"3.pdb": 3, **ONE, "two.zip!20.pdb": 20}
    summary = json.loads(result.stdout)
    assert [summary[key] for key in ("inputs", "tokenized", "earlier", "failed")] == [13, 12, 0, 1]
    assert "two.zip!bad.cif: no protein" in result.stderr
    assert "one.tar.gz: skipped 2 links and devices\n" in result.stderr
    assert "two.zip: skipped 1 .txt\n" in result.stderr
    assert tokenize(server, "-q", "one.tar.gz").stderr == ""


def test_folders_have_archives_in_them(server: "ScriptedServer") -> None:
    assert tokenize(server, "-o", "out", ".").exit_code == 1
    assert rows("out") == {
        "./3.pdb": 3,
        **{f"./{name}": number for name, number in ONE.items()},
        "./two.zip!20.pdb": 20,
    }


def test_a_torn_archive_is_one_failure_and_the_next_goes_on(server: "ScriptedServer") -> None:
    content = tar([(f"{n}.pdb", b"%d" % n) for n in range(10)])
    Path("torn.tar").write_bytes(content[: 5 * 1024 + 600])
    Path("torn.zip").write_bytes(Path("two.zip").read_bytes()[:-20])
    result = tokenize(server, "--failures", "failed", "-o", "out", "torn.tar", "torn.zip", "3.pdb")
    assert result.exit_code == 1
    assert rows("out") == {**{f"torn.tar!{number}.pdb": number for number in range(6)}, "3.pdb": 3}
    failed = [json.loads(line) for line in Path("failed").read_text().splitlines()]
    assert [(entry["source"], entry["kind"]) for entry in failed] == [
        ("torn.tar", "UnreadableInput"),
        ("torn.zip", "UnreadableInput"),
    ]
    assert "damaged or cut off" in failed[0]["message"]


def test_archives_of_nothing(server: "ScriptedServer") -> None:
    Path("empty.tar").write_bytes(tar([]))
    result = tokenize(server, "empty.tar", "one.tar.gz!none.pdb", "none.tar", "3.pdb")
    assert result.exit_code == 1
    told = result.stderr.splitlines()
    assert "empty.tar: there are no structures in it" in told
    assert "one.tar.gz!none.pdb: there is no such member" in told
    assert any(line.startswith("none.tar: ") and "No such file" in line for line in told)


@pytest.mark.parametrize("shards", [[], ["--format", "parquet", "--rows-per-shard", "4"]])
def test_a_run_on_archives_is_resumed(server: "ScriptedServer", shards: list[str]) -> None:
    """The last row may be of a structure whose other chains are not there, so it is asked for again."""
    arguments = [*shards, "--json", "-o", "out", "one.tar.gz", "3.pdb:A"]
    assert tokenize(server, *arguments[:-2], "one.tar.gz!in/0.pdb", "3.pdb:A", "one.tar.gz!in/4.pdb").exit_code == 0
    server.servicer.requests.clear()
    result = tokenize(server, "--resume", *arguments)
    assert result.exit_code == 0
    again = [4] if not shards else []
    assert [int(request.file.content) for request in server.servicer.requests] == sorted(
        [1, 2, 3, 5, 6, 7, 8, 9, *again]
    )
    summary = json.loads(result.stdout)
    assert (summary["inputs"], summary["earlier"]) == (11, 3 - len(again))
    if not shards:
        assert rows("out") == {**ONE, "3.pdb:A": 3}
    finished = tokenize(server, "--resume", *arguments)
    assert json.loads(finished.stdout)["earlier"] >= 10


def test_chains_of_each_input_reach_the_server(server: "ScriptedServer") -> None:
    Path("list.txt").write_text("one.tar.gz!in/5.pdb:C,D\n# no more\n")
    result = tokenize(server, "--chain", "X", "3.pdb:A,B", "@list.txt", "3.pdb", "-o", "out")
    assert result.exit_code == 0
    assert [list(request.file.chains) for request in server.servicer.requests] == [["A", "B"], ["C", "D"], ["X"]]
    assert rows("out") == {"3.pdb:A,B": 3, "one.tar.gz!in/5.pdb:C,D": 5, "3.pdb": 3}


def test_foldcomp(server: "ScriptedServer", packed: bytes) -> None:  # noqa: F811
    Path("a.fcz").write_bytes(packed)
    Path("bad.fcz").write_bytes(packed[:-5])
    Path("more.tar").write_bytes(tar([("in.fcz", packed)]))
    write_database(Path("db"), ["x", "y"], [packed, packed[:-5]])
    result = tokenize(server, "-o", "out", "a.fcz", "bad.fcz", "more.tar", "db:A", "db!x")
    assert result.exit_code == 1
    assert [*rows("out")] == ["a.fcz", "more.tar!in.fcz", "db!x:A", "db!x"]
    assert all(request.file.content.startswith(b"TITLE     1a8o") for request in server.servicer.requests)
    assert "bad.fcz: the Foldcomp data is truncated" in result.stderr
    assert "db!y:A: the Foldcomp data is truncated" in result.stderr


def test_without_foldcomp(server: "ScriptedServer", packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(__import__("sys").modules, "foldcomp", None)
    Path("a.fcz").write_bytes(packed)
    write_database(Path("db"), ["x", "y"], [packed, packed])
    result = tokenize(server, "--failures", "failed", "a.fcz", "db", "3.pdb")
    assert result.exit_code == 1
    failed = [json.loads(line) for line in Path("failed").read_text().splitlines()]
    assert [(entry["source"], entry["kind"]) for entry in failed] == [("a.fcz", "MissingExtra"), ("db", "MissingExtra")]
    assert "pip install 'foldmint[foldcomp]'" in failed[0]["message"]
