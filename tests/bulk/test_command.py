"""The command: plans, goes on, sums up; what it refuses, and its exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from benchmarks.stress.bulk_inputs import Archives, differing, plain_loop, rows_of
from benchmarks.stress.bulk_runs import descendants, start
from foldmint_bulk import units
from foldmint_tokenizer import StructureTokenizer
from helpers.waiting import wait_until

START = 300.0
"""Seconds that a job may take to its first records, on a machine that does something else besides."""


def test_a_job_from_end_to_end(archives: Archives, tokenizer: StructureTokenizer, command: Any, tmp_path: Path) -> None:
    out, metrics = tmp_path / "out", tmp_path / "bulk.prom"
    arguments = (*archives.paths, "-o", out, "--unit-structures", 3, "--workers", 2, "--metrics-file", metrics)
    done = command(*arguments)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        f"{out}: 8 structures, 8 chains, {sum(map(len, _tokens(out))):,} residues",
    )
    assert "0 of 4 units" in done.stderr
    plain_loop(tokenizer, archives.paths, tmp_path / "plain.parquet")
    assert differing(rows_of(tmp_path / "plain.parquet"), rows_of(out)) == []
    usage = json.loads((out / "usage.json").read_text())
    assert usage["counts"] == np.bincount(np.concatenate(_tokens(out)), minlength=4096).tolist()
    assert (usage["residues"], usage["version"]) == (sum(usage["counts"]), tokenizer.model.codebook.version)
    assert json.loads((out / "DONE").read_text())["units"] == 4
    assert {path.name for path in out.iterdir()} == {
        *("job.json", "units.parquet", "parts", "units", "summaries"),
        *("usage.json", "failures.parquet", "DONE"),
    }
    written = metrics.read_text()
    assert 'foldmint_bulk_units{state="done"} 4.0' in written
    assert "foldmint_bulk_structures_total 8.0" in written
    before = {path: path.stat().st_mtime_ns for path in out.glob("parts/*/*")}
    again = command(*arguments)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert {path: path.stat().st_mtime_ns for path in out.glob("parts/*/*")} == before


def _tokens(out: Path) -> list[np.ndarray[Any, Any]]:
    return [np.array(tokens) for tokens in rows_of(out).column("tokens").to_pylist()]


def test_another_job_at_the_place(archives: Archives, command: Any, make_job: Any, tmp_path: Path) -> None:
    make_job()
    for arguments, said in {
        (*archives.paths, "--unit-structures", 3): "unit_structures is 2 there, 3 here",
        (archives.paths[0], "--unit-structures", 2): "inputs is [",
        (*archives.paths, "--unit-structures", 2, "--assignment", "anchored"): "assignment is 'independent' there",
        (*archives.paths, "--unit-structures", 2, "--model", "geometry"): "name is 'foldmint' there",
    }.items():
        done = command(*arguments, "-o", tmp_path / "out")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "-o", "out"], "none: no such file or folder"),
        ([".", "-o", "out", "--slice", "2/2"], "is not I/N"),
        ([".", "-o", "out", "--device", "gpu"], "is not a device"),
        ([".", "-o", "out", "--engine", "none"], "is not one of local"),
        ([".", "-o", "out", "--metrics-listen", "here"], "is not HOST:PORT"),
        ([".", "-o", "out", "--assignment", "best"], "best"),
        ([".", "-o", "out"], "the folder contains no inputs"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_loaded(arguments: list[str], said: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom foldmint_bulk.cli.main import app\n"
        "try: app(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert done.stdout == "False\n"
    assert not (tmp_path / "out").exists()


def test_slices_do_their_share_and_the_last_one_sums_up(
    archives: Archives, tokenizer: StructureTokenizer, command: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (*archives.paths, "-o", out, "--unit-structures", 2)
    for number, left in ((2, 2), (0, 1)):
        done = command(*arguments, "--slice", f"{number}/3")
        assert (done.returncode, f"{left} units of {out} are left" in done.stderr) == (0, True), done.stderr
        assert not (out / "DONE").exists()
    assert command(*arguments, "--slice", "1/3").returncode == 0
    plain_loop(tokenizer, archives.paths, tmp_path / "plain.parquet")
    assert differing(rows_of(tmp_path / "plain.parquet"), rows_of(out)) == []
    assert (out / "DONE").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_another_run_goes_on(
    archives: Archives, command: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = [*map(str, archives.paths), "-o", str(out), "--unit-structures", "1", "--device", "cpu"]
    process = start(*arguments, log=log)
    try:
        wait_until(lambda: [*out.glob("units/*/*.json")], START)
        workers = descendants(process.pid, "worker")
        process.send_signal(number)
        assert process.wait(60) == code, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert f"stopped by {number.name}" in log.read_text()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert command(*arguments).returncode == 0
    assert len(rows_of(out)) == 8


def test_a_unit_that_kills_its_workers(archives: Archives, command: Any, tmp_path: Path) -> None:
    """Its workers are killed whenever they do it; the others are done, and another run does it again."""
    out, log = tmp_path / "out", tmp_path / "log"
    slow = tmp_path / "pipe.pdb"
    os.mkfifo(slow)  # reading it waits for ever
    inputs = [str(slow), str(archives.paths[0])]
    process = start(*inputs, "-o", str(out), "--device", "cpu", log=log)
    killed: list[int] = []

    def kill_one() -> bool:
        """Kill a worker that waits for the pipe. Those that were killed may still be there for a moment."""
        for pid in set(descendants(process.pid, "worker")).difference(killed):
            if _waits_for(pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return True
        return False

    try:
        for _ in range(3):
            wait_until(kill_one, START)
        assert process.wait(START) == 4, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "its worker killed by signal 9, 3 times" in log.read_text()
    assert (out / "usage.json").exists()
    assert not (out / "DONE").exists()
    (failure,) = parquet.read_table(out / "failures.parquet").to_pylist()
    assert (failure["kind"], failure["source"]) == ("UnitFailed", str(slow))
    slow.unlink()
    slow.write_bytes(b"no structure")
    assert command(*inputs, "-o", out, "--retry-failed").returncode == 0
    (failure,) = parquet.read_table(out / "failures.parquet").to_pylist()
    assert (failure["kind"], failure["source"]) == ("InvalidStructure", str(slow))


def _waits_for(pid: int) -> bool:
    """Whether a process's threads wait for a pipe's other end."""
    for task in Path(f"/proc/{pid}/task").glob("*/wchan"):
        with suppress(OSError):  # it may have ended
            if any(place in task.read_text() for place in ("fifo", "wait_for_partner")):
                return True
    return False


def test_metrics_on_a_port(archives: Archives, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [*map(str, archives.paths), "-o", str(tmp_path / "out"), "--unit-structures", "1", "--device", "cpu"]
    process = start(*arguments, "--metrics-listen", f"127.0.0.1:{port}", log=tmp_path / "log")

    def read() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    try:
        wait_until(lambda: 'foldmint_bulk_units{state="left"} 8.0' in read(), START)
        assert process.wait(START) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


def test_a_damaged_output_is_no_success(
    archives: Archives, command: Any, make_job: Any, make_worker: Callable[..., Any], tmp_path: Path
) -> None:
    job = make_job()
    worker = make_worker(job)
    records = [worker(unit) for unit in units(job.out)]
    (tmp_path / "out" / records[1]["part"]).unlink()
    done = command(*archives.paths, "-o", tmp_path / "out", "--unit-structures", 2)
    assert (done.returncode, f"{records[1]['part']} is missing" in done.stderr) == (1, True)
    assert not (tmp_path / "out" / "DONE").exists()
