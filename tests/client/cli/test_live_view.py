"""The command, against a real server and its real codebook: `usage`, `watch`, `compare`, and a job that is resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from foldmint_client.cli.main import app
from helpers.support import DATA, ROOT, RunningServer, running_server


@pytest.fixture(scope="module")
def live() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: RunningServer) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FOLDMINT_SERVER", live.address)
    monkeypatch.setenv("FOLDMINT_ADMIN", live.admin)
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    assert not result.stderr, result.stderr
    return result


def answer(*arguments: str) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def hits() -> "np.typing.NDArray[np.int64]":
    return np.array(answer("usage", "--json")["hits"])


def started(*arguments: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
    roots = os.pathsep.join(str(ROOT / name) for name in ("protos", "client"))
    command = [sys.executable, "-m", "foldmint_client", *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": roots})


def test_usage_counts_the_tokens_that_were_given() -> None:
    before = hits()
    rows = [json.loads(line) for line in run("tokenize", str(DATA / "1a8o.cif")).stdout.splitlines()]
    given = np.concatenate([np.array(row["tokens"])[row["has_frame"]] for row in rows])
    after = hits()
    assert (after - before).tolist() == np.bincount(given, minlength=4096).tolist()
    told = answer("usage", "--json", "--top", "2")
    assert (told["codebook_version"], told["codes"], told["residues"]) == ("000001", 4096, after.sum())
    assert told["utilization"] == np.count_nonzero(after) / 4096
    shares = after[after > 0] / after.sum()
    assert told["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert told["dead"] is None  # far too few residues to tell
    assert [entry["hits"] for entry in told["top"]] == sorted(after.tolist())[:-3:-1]
    table = run("usage", "--top", "1").stdout
    assert f"code {told['top'][0]['code']}" in table
    assert "unknown before ten residues per code" in table


def test_usage_of_a_version_that_is_not_there() -> None:
    result = CliRunner().invoke(app, ["usage", "--codebook-version", "000009"])
    assert (result.exit_code, result.stdout) == (3, "")
    assert "000009" in result.stderr


def test_watch_prints_a_line_a_tick() -> None:
    lines = run("watch", "--count", "3", "--interval", "0.01").stdout.splitlines()
    assert len(lines) == 3
    assert all("version 000001" in line and "utilization" in line for line in lines)
    first, second = map(json.loads, run("watch", "--json", "--count", "2", "--interval", "0.01").stdout.splitlines())
    assert (first["residues_per_second"], second["residues_per_second"], second["error"]) == (None, 0, None)


def test_watch_sees_traffic() -> None:
    process = started("watch", "--json", "--interval", "0.1")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    run("tokenize", str(DATA / "1a8o.cif"))
    end = time.monotonic() + 20
    while time.monotonic() < end:
        row = json.loads(process.stdout.readline())
        if row["residues_per_second"]:
            break
    assert row["residues_per_second"] > 0
    assert row["residues"] > first["residues"]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, b"")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_watch_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    monkeypatch.setenv("TERM", "xterm-256color")
    ours, theirs = pty.openpty()
    process = started("watch", "--interval", "0.1", stdout=theirs)
    os.close(theirs)
    text = b""
    while text.count(b"utilization") < 3:
        text += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:
        pass  # how Linux says that the other end is closed
    os.close(ours)
    assert (process.returncode, told) == (0, b"")
    assert text.endswith(b"\x1b[?25h") or b"\x1b[?25h" in text[-40:]  # the cursor is back
    for name in ("version", "residues/s", "perplexity", "dead codes"):
        assert name in text.decode()


@pytest.mark.slow
def test_watch_waits_for_a_server_that_goes_away() -> None:
    with running_server() as other:
        process = started("watch", "--json", "--interval", "0.1", "--admin", other.admin)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["error"] is None
    end = time.monotonic() + 20
    while (row := json.loads(process.stdout.readline()))["error"] is None:
        assert time.monotonic() < end
    assert row["error"].startswith("cannot connect")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, b"")


def test_no_admin_listener() -> None:
    for command in ("usage", "watch"):
        result = CliRunner().invoke(app, [command, "--admin", "127.0.0.1:1"])
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith("error: cannot connect to 127.0.0.1:1")


def test_the_same_structure_in_two_forms_has_the_same_tokens() -> None:
    told = answer("compare", "--json", str(DATA / "1a8o.cif"), str(DATA / "1a8o.pdb"))
    assert told["share"] == 1
    assert {kind for pair in told["pairs"] for kind in pair["kinds"]} <= {"equal", "unknown"}


@pytest.mark.slow
def test_a_job_on_a_real_server_is_resumed_after_a_kill() -> None:
    Path("in").mkdir()
    for number in range(60):
        shutil.copy(DATA / "1a8o.pdb", f"in/{number:02}.pdb")
    run("tokenize", "-o", "whole", "in")
    process = started("tokenize", "--in-flight", "1", "-o", "out", "in")
    end = time.monotonic() + 30
    part = Path("out.part")
    while not part.exists() or part.read_bytes().count(b"\n") < 10:
        assert time.monotonic() < end
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert not Path("out").exists()
    there = part.read_bytes().count(b"\n")
    summary = answer("tokenize", "--resume", "--json", "-o", "out", "in")
    assert 0 < summary["earlier"] < 60
    assert there - 1 <= summary["earlier"] <= there
    assert sorted(Path("out").read_text().splitlines()) == sorted(Path("whole").read_text().splitlines())
