"""The command `foldmint tokenize`, killed in the middle and resumed: the same tokens, and nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from foldmint.v1 import tokenizer_pb2
from foldmint_client.cli.main import app

if TYPE_CHECKING:
    from client.conftest import Request, ScriptedServer

ROOT = Path(__file__).parents[3]
COUNT = 40
NAMES = [f"in/{number:03}.pdb" for number in range(COUNT)]
SHARDS = ["--format", "parquet", "--rows-per-shard", "7"]

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: "ScriptedServer") -> Path:
    """Structures of two chains each, and one that is bad, in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("in").mkdir()
    for number, name in enumerate(NAMES):
        Path(name).write_text(str(number))
    Path("in/bad.pdb").write_text("bad")
    server.servicer.stream = lambda requests, context: (two_chains(server, request) for request in requests)
    return tmp_path


def two_chains(server: "ScriptedServer", request: "Request") -> tokenizer_pb2.TokenizeStreamResponse:
    response = server.answer(request)
    if response.WhichOneof("result") == "response":
        other = response.response.chains.add()
        other.CopyFrom(response.response.chains[0])
        other.chain = "B"
    return response


def tokenize(server: "ScriptedServer", *arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokenize", "--server", server.target, *arguments])


@contextmanager
def running(server: "ScriptedServer", *arguments: str, until: int) -> "Iterator[subprocess.Popen[bytes]]":
    """The command as a process, whose server answers so many structures and then no more."""

    def answers(requests: Any, context: Any) -> Any:
        for count, request in enumerate(requests):
            if count == until:
                server.servicer.hang.wait(30)
                return
            yield two_chains(server, request)

    before, server.servicer.stream = server.servicer.stream, answers
    roots = os.pathsep.join(str(ROOT / name) for name in ("protos", "client"))
    command = [sys.executable, "-m", "foldmint_client", "tokenize", "--server", server.target, *arguments]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": roots}, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        server.servicer.hang.set()
        server.servicer.stream = before


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def lines(path: str) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def shards(path: str) -> list[Row]:
    return [row for part in sorted(Path(path).glob("part-*")) for row in parquet.read_table(part).to_pylist()]


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["source"], row["chain"]))


@pytest.mark.parametrize(("until", "torn"), [(0, 0), (1, 10), (23, 0), (23, 10), (23, 150), (COUNT, 1)])
def test_lines_are_resumed_after_a_kill(server: "ScriptedServer", until: int, torn: int) -> None:
    assert tokenize(server, "-o", "whole", "in").exit_code == 1
    with running(server, "-o", "out", "in", until=until) as process:
        part = Path("out.part")
        wait_for(lambda: part.exists() and part.read_bytes().count(b"\n") == 2 * until)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    assert not Path("out").exists()
    os.truncate("out.part", max(part.stat().st_size - torn, 0))  # what a crash of the machine leaves
    server.servicer.requests.clear()
    result = tokenize(server, "--resume", "--json", "-o", "out", "in")
    assert (result.exit_code, part.exists()) == (1, False)
    assert in_order(lines("out")) == in_order(lines("whole"))
    # The last structure is asked for again: whether its other chains were written, nobody knows.
    kept = max(until - 1, 0)
    assert json.loads(result.stdout)["earlier"] == kept
    assert [request.file.content for request in server.servicer.requests] == [
        *(str(number).encode() for number in range(kept, COUNT)),
        b"bad",
    ]


@pytest.mark.parametrize("until", [0, 5, 23, COUNT])
def test_shards_are_resumed_after_a_kill(server: "ScriptedServer", until: int) -> None:
    assert tokenize(server, *SHARDS, "-o", "whole", "in").exit_code == 1
    complete = 2 * until // 8  # four structures of two chains fill a shard of seven rows
    with running(server, *SHARDS, "-o", "out", "in", until=until) as process:
        wait_for(lambda: Path("out").is_dir() and len([*Path("out").glob("part-*")]) == complete)
        wait_for(lambda: len(server.servicer.requests) > until)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    server.servicer.requests.clear()
    result = tokenize(server, "--resume", "--json", *SHARDS, "-o", "out", "in")
    assert result.exit_code == 1
    assert in_order(shards("out")) == in_order(shards("whole"))
    assert json.loads(result.stdout)["earlier"] == 4 * complete
    assert len(server.servicer.requests) == COUNT - 4 * complete + 1
    assert sorted(path.name for path in Path("out").iterdir()) == [f"part-{number:05}.parquet" for number in range(10)]


@pytest.mark.parametrize("rows", ["7", "8"])
def test_each_shard_is_whole(server: "ScriptedServer", rows: str) -> None:
    options = ["--format", "parquet", "--rows-per-shard", rows]
    assert tokenize(server, *options, "-o", "out", *NAMES).exit_code == 0
    for number, path in enumerate(sorted(Path("out").iterdir())):
        assert path.name == f"part-{number:05}.parquet"
        assert parquet.read_metadata(path).num_rows == 8
        metadata = parquet.read_schema(path).metadata
        assert (metadata[b"model"], metadata[b"codebook_version"]) == (b"scripted", b"000007")
    assert [row["source"] for row in shards("out")] == [name for name in NAMES for _ in "AB"]


def test_a_server_that_breaks_off(server: "ScriptedServer") -> None:
    def broken(requests: Any, context: Any) -> Any:
        for _ in range(6):
            yield two_chains(server, next(requests))
        context.abort(grpc.StatusCode.INTERNAL, "as scripted")

    whole = server.servicer.stream
    for options in ([], SHARDS):
        server.servicer.stream = broken
        result = tokenize(server, *options, "-o", "out", *NAMES)
        assert result.exit_code == 3
        assert result.stderr.splitlines()[-1].endswith("with --resume")
        refused = tokenize(server, *options, "-o", "out", *NAMES)  # what is there is not lost by mistake
        assert refused.exit_code == 2
        assert "--resume" in refused.stderr
        server.servicer.stream = whole
        assert tokenize(server, *options, "--resume", "-o", "out", *NAMES).exit_code == 0
        rows = shards("out") if options else lines("out")
        assert [row["source"] for row in rows] == [name for name in NAMES for _ in "AB"]
        if not options:
            Path("out").unlink()


def test_what_failed_is_asked_again(server: "ScriptedServer") -> None:
    assert tokenize(server, "-o", "out", "in/000.pdb", "in/bad.pdb", "in/001.pdb").exit_code == 1
    Path("in/bad.pdb").write_text("99")
    server.servicer.requests.clear()
    # A file that is not asked for this time keeps its tokens.
    assert tokenize(server, "--resume", "-o", "out", "in/000.pdb", "in/bad.pdb").exit_code == 0
    assert [row["source"] for row in lines("out")[::2]] == ["in/000.pdb", "in/001.pdb", "in/bad.pdb"]
    assert [request.file.content for request in server.servicer.requests] == [b"99"]
    assert server.servicer.requests[0].codebook_version == "000007"


def test_what_does_not_fit(server: "ScriptedServer") -> None:
    assert tokenize(server, "-o", "out", *NAMES[:3]).exit_code == 0
    before = Path("out").read_bytes()
    for option in ("--distances", "--special-tokens"):
        result = tokenize(server, "--resume", option, "-o", "out", *NAMES)
        assert (result.exit_code, Path("out").read_bytes()) == (2, before)
        assert f"{option} off, and now it would be on" in result.stderr
    Path("out").write_bytes(before.replace(b"scripted", b"another"))
    assert "begun with model another" in tokenize(server, "--resume", "-o", "out", *NAMES).stderr
    Path("out").write_bytes(before.replace(b"{", b"[", 1))
    assert "out:1: no row" in tokenize(server, "--resume", "-o", "out", *NAMES).stderr
    assert not Path("out.part").exists()
    assert tokenize(server, *SHARDS, "-o", "shards", *NAMES[:9]).exit_code == 0
    result = tokenize(server, "--resume", "--distances", *SHARDS, "-o", "shards", *NAMES)
    assert "--distances off, and now it would be on" in result.stderr
    Path("shards/part-00001.parquet").write_bytes(b"torn")
    result = tokenize(server, "--resume", *SHARDS, "-o", "shards", *NAMES)
    assert result.exit_code == 2
    assert "no shard that foldmint tokenize wrote" in result.stderr


@pytest.mark.parametrize("options", [[], SHARDS])
def test_two_at_once(server: "ScriptedServer", options: list[str]) -> None:
    with running(server, *options, "-o", "out", "in", until=1):
        wait_for(lambda: len(server.servicer.requests) > 1)
        result = tokenize(server, *options, "--resume", "-o", "out", "in")
        assert result.exit_code == 2
        assert "another run is writing" in result.stderr


def test_ctrl_c_keeps_what_is_answered(server: "ScriptedServer") -> None:
    with running(server, *SHARDS, "-o", "out", "in", until=6) as process:
        wait_for(lambda: len(server.servicer.requests) > 6 and [*Path("out").glob("part-00000*")])
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 130
    assert told.decode().splitlines()[-1].endswith("with --resume")
    # Which of the six answers have arrived is up to the network; those are kept, in order, beyond the first shard too.
    kept = [row["source"] for row in shards("out")[::2]]
    assert kept
    assert kept == NAMES[: len(kept)]
