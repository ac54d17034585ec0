"""Bulk jobs on a real Ray cluster: the same rows as without it, whatever is killed."""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from pyarrow import parquet

from helpers.support import DATA, ROOT
from helpers.waiting import wait_until

pytestmark = pytest.mark.slow

NAMES = ("1gbt.cif.gz", "1lcd.cif.gz", "4cup.cif.gz")
BULK = [sys.executable, "-m", "foldmint_bulk.cli"]
RAYJOB = ROOT / "deploy/ray/rayjob.yaml"
STRUCTURES = 48
PER_UNIT = 4
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Variables with which Ray's parts trust each other."""
START_SECONDS = 400.0
"""That a cluster and its workers may take to do their first unit, on a machine that does something else besides."""


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real structures, many times, and one that is none."""
    folder = tmp_path_factory.mktemp("structures")
    for number in range(STRUCTURES):
        shutil.copy(DATA / NAMES[number % len(NAMES)], folder / f"{number:03d}-{NAMES[number % len(NAMES)]}")
    (folder / "999-damaged.cif").write_text("not a structure")
    return folder


@pytest.fixture(scope="module")
def expected(structures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the local engine makes of them."""
    out = tmp_path_factory.mktemp("local") / "out"
    # Workers with one thread each, as Ray's have.
    _finished(_bulk(structures, out, f"--workers={len(os.sched_getaffinity(0))}"))
    return _output(out)


class Cluster(NamedTuple):
    """A cluster of one node, on the loopback interface. pid: of the process that started it."""

    address: str
    pid: int


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster that is there."""
    code = (
        "import ray, sys\n"
        "print(ray.init('local', include_dashboard=False, num_cpus=2).address_info['address'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **TOKEN}
    for _ in range(10):  # its parts may take longer than it allows them
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **variables},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            if address := process.stdout.readline().strip():
                yield Cluster(address, process.pid)
                return
        finally:
            process.communicate()
    pytest.fail("no cluster started")


def _command(structures: Path, out: Path, *options: str) -> list[str]:
    return [*BULK, str(structures), "-o", str(out), f"--unit-structures={PER_UNIT}", *options]


def _started(command: Sequence[str], **variables: str) -> "subprocess.Popen[str]":
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        command, env={**others, **variables}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _bulk(structures: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return _started(_command(structures, out, *options))


def _ray(structures: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return _bulk(structures, out, "--engine=ray", "--workers=2", *options)


def _on(cluster: Cluster, structures: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    """On a cluster that is there."""
    command = _command(structures, out, "--engine=ray", "--workers=2", f"--ray-address={cluster.address}", *options)
    return _started(command, **TOKEN)


def _output(out: Path) -> dict[str, Any]:
    """The rows of all parts, in order, the failures, and the counts of a job that is done."""
    assert (out / "DONE").exists()
    parts = sorted(out.glob("parts/*/*.parquet"), key=lambda path: path.name.partition(".")[0])
    failures = parquet.read_table(out / "failures.parquet").to_pylist()
    return {
        "rows": [row for part in parts for row in parquet.read_table(part).to_pylist()],
        "failures": sorted((one["unit"], one["source"], one["kind"], one["reason"]) for one in failures),
        "counts": json.loads((out / "usage.json").read_text())["counts"],
    }


def _records(out: Path) -> int:
    return len(list(out.glob("units/*/*.json")))


def _descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Processes that a process started, and those that they started, each with its command line."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            try:
                yield child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            yield from _descendants(child)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _actors(pid: int) -> list[int]:
    return [child for child, command in _descendants(pid) if command.startswith("ray::") and "_RayWorker" in command]


@contextmanager
def _in_the_middle(out: Path, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Once some units have records, and others do not."""
    wait_until(lambda: _records(out) or process.poll() is not None, START_SECONDS)
    if process.poll() is not None:
        pytest.fail(f"exit code {process.returncode}: {process.communicate()[0]}")
    try:
        assert _records(out) < STRUCTURES // PER_UNIT
        yield
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _finished(process: "subprocess.Popen[str]") -> str:
    said = _ended(process)
    assert process.returncode == 0, said
    return said


def _ended(process: "subprocess.Popen[str]") -> str:
    """What a process printed until its end."""
    try:
        said, _ = process.communicate(timeout=START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        pytest.fail(f"it did not end in {START_SECONDS:g} s: {said}")
    return said


def _listening(pids: Sequence[int]) -> set[str]:
    """The addresses on which processes listen."""
    said = subprocess.run(["ss", "-ltnpH"], text=True, capture_output=True, check=True).stdout
    lines = (line.split() for line in said.splitlines())
    return {
        fields[3].rpartition(":")[0].strip("[]").removeprefix("::ffff:")
        for fields in lines
        if {int(pid) for pid in re.findall(r"pid=(\d+)", fields[-1])} & set(pids)
    }


def test_a_cluster_of_its_own_gives_the_same_rows_and_listens_to_this_machine_alone(
    structures: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = _ray(structures, out)
    with _in_the_middle(out, process):
        started = [pid for pid, _ in _descendants(process.pid)]
        assert _listening(started) <= {"127.0.0.1", "::1"}
    said = _finished(process)
    assert _output(out) == expected
    # Progress, and nothing of Ray's but the line about its log level.
    lines = [line for line in said.splitlines() if "Set ray log level" not in line]
    assert all(re.match(r"\d+ of \d+ units|.*: \d+ structures, |failed: ", line) for line in lines), said
    wait_until(lambda: not any(map(_running, started)))


def test_a_killed_worker_loses_nothing(
    structures: Path, expected: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = _on(cluster, structures, out)
    with _in_the_middle(out, process):
        actor = _actors(cluster.pid)[0]
        os.kill(actor, signal.SIGKILL)
    _finished(process)
    assert not _running(actor)
    assert _output(out) == expected


def test_a_killed_driver_loses_nothing_and_its_workers_end(
    structures: Path, expected: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = _on(cluster, structures, out)
    with _in_the_middle(out, process):
        actors = _actors(cluster.pid)
        workers = [pid for actor in actors for pid, _ in _descendants(actor)]
        assert workers
        process.kill()
    process.communicate()
    wait_until(lambda: not any(map(_running, actors + workers)))
    records = {path: path.read_bytes() for path in out.glob("units/*/*.json")}
    said = _finished(_on(cluster, structures, out))
    assert said.startswith(f"{len(records)} of ") or f"\n{len(records)} of " in said
    assert {path: path.read_bytes() for path in records} == records
    assert _output(out) == expected


@pytest.mark.long
def test_a_job_that_was_begun_in_slices_is_finished_on_a_cluster_that_is_there(
    structures: Path, expected: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _finished(_bulk(structures, out, "--slice=0/3", f"--workers={len(os.sched_getaffinity(0))}"))
    said = _finished(_on(cluster, structures, out))
    assert not said.startswith("0 of ")
    assert _output(out) == expected


def test_the_rayjobs_command_does_the_job(
    structures: Path, expected: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = next(one for one in yaml.safe_load_all(RAYJOB.read_text()) if one["kind"] == "RayJob")
    command = job["spec"]["entrypoint"].replace("/data/structures", str(structures)).replace("/data/tokens", str(out))
    program, *options = shlex.split(command)
    assert program == "foldmint-bulk"
    options.append(f"--unit-structures={PER_UNIT}")
    _finished(_started([*BULK, *options], RAY_ADDRESS=cluster.address, **TOKEN))
    assert _output(out) == expected


def test_workers_that_need_a_gpu_do_not_wait_for_one(structures: Path, cluster: Cluster, tmp_path: Path) -> None:
    process = _on(cluster, structures, tmp_path / "out", "--device=cuda")
    said = _ended(process)
    assert (process.returncode, said.splitlines()[-1]) == (
        1,
        "error: the Ray cluster has no GPU; --device cuda needs one",
    )


def test_a_cluster_that_is_not_there_is_named(structures: Path, tmp_path: Path) -> None:
    process = _ray(structures, tmp_path / "out", "--ray-address=127.0.0.1:1")
    said = _ended(process)
    assert (process.returncode, "127.0.0.1:1" in said.splitlines()[-1]) == (1, True), said


@pytest.mark.parametrize(
    ("options", "reason"),
    [(["--ray-address=auto"], "it needs --engine ray"), (["--engine=ray", "--device=cuda:1"], "Ray chooses GPUs")],
)
def test_options_that_do_not_fit(options: list[str], reason: str, structures: Path, tmp_path: Path) -> None:
    done = subprocess.run(_command(structures, tmp_path / "out", *options), text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "out").exists()
