"""Loads for servers, the client process that sends them, and statistics of the latencies.

One client process serves a whole run: it reads loads and writes results as lines of JSON.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
CHAINS = ROOT / "tests" / "data" / "chains.parquet"
_ROOTS = {"PYTHONPATH": str(ROOT)}
_PATIENCE = 10.0  # seconds that a server has to end


@dataclass(frozen=True)
class Part:
    """Residues start to stop of a chain of the set, by its number."""

    chain: int
    start: int
    stop: int


@dataclass(frozen=True)
class Task:
    """A load. kind: stream, unary (both by foldmint_client), grpc (the bare stub) or http. clients: that send at once.

    structures: a list of parts each, which are its chains. rate: structures a second that are sent whether or not
    earlier ones are answered, by so many clients at most; 0: each client waits for its answer. deadline: seconds for
    an answer.
    """

    kind: str
    address: str
    clients: int
    structures: list[list[Part]]
    rate: float = 0
    deadline: float = 600


@dataclass(frozen=True)
class Sent:
    """What came of a load: seconds in all, CPU seconds of the client's process, seconds of each structure.

    tokens: how many came back. Of a stream, no structure has a time of its own. outcomes: of a load with a rate, how
    many structures were answered, refused, late or failed; `each` then has the times of those answered.
    """

    seconds: float
    cpu: float
    each: list[float]
    tokens: int
    outcomes: dict[str, int] = field(default_factory=dict)


class LoadClient:
    """The client's process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, task: Task) -> Sent:
        """Send a load, and wait for the last answer. Raises SystemExit if the client failed; its log has the reason."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("the client has no pipes")
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the client failed; its log is above")
        return Sent(**json.loads(line))


@contextmanager
def load_client(chains: Path = CHAINS) -> Iterator[LoadClient]:
    """A client's process, which holds the chains of a set in memory."""
    command = [sys.executable, "-m", "benchmarks.baselines.client", str(chains)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield LoadClient(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()


def task_of(line: str) -> Task:
    """A load from its line of JSON."""
    given: dict[str, Any] = json.loads(line)
    given["structures"] = [[Part(**part) for part in parts] for parts in given["structures"]]
    return Task(**given)


def whole(lengths: Sequence[int], residues: int) -> list[list[Part]]:
    """Chains with these lengths, repeated in order until they have that many residues."""
    structures: list[list[Part]] = []
    while residues > 0 and lengths:
        number = len(structures) % len(lengths)
        structures.append([Part(number, 0, lengths[number])])
        residues -= lengths[number]
    return structures


def mixed(lengths: Sequence[int], large: int, each: int, small: int, size: int) -> list[list[Part]]:
    """Small structures of one chain, and large ones of as many chains as `large` residues need.

    After every `each` small ones, of up to `small` residues, comes a large one; `size`: of large ones.
    """
    structures, at = [], 0
    for _ in range(size):
        for _ in range(each):
            number = at % len(lengths)
            structures.append([Part(number, 0, min(small, lengths[number]))])
            at += 1
        parts, missing = [], large
        while missing > 0:
            number = at % len(lengths)
            parts.append(Part(number, 0, min(missing, lengths[number])))
            missing -= lengths[number]
            at += 1
        structures.append(parts)
    return structures


def residues_of(structure: Sequence[Part]) -> int:
    """Residues of a structure."""
    return sum(part.stop - part.start for part in structure)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, ms; the latter is a time that was measured, never one between two."""
    times = 1000 * np.array(seconds)
    return {
        "p50_ms": float(np.percentile(times, 50, method="higher")),
        "p99_ms": float(np.percentile(times, 99, method="higher")),
    }


def cpu_seconds(process: int) -> float:
    """CPU seconds of a process and of all that descend from it and live."""
    return sum(used for _, used in _family(process).values()) / os.sysconf("SC_CLK_TCK")


def memory_mib(process: int) -> float:
    """Memory of a process and of all that descend from it and live, MiB; what they share counts once (PSS)."""
    total = 0
    for member in _family(process):
        with suppress(OSError):  # it ended meanwhile
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def _family(process: int) -> dict[int, tuple[int, int]]:
    """A process and its descendants: the parent of each, and the clock ticks that it used."""
    known: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                known[int(folder.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {process}
    while more := {child for child, (parent, _) in known.items() if parent in family} - family:
        family |= more
    return {member: known[member] for member in family if member in known}


@dataclass(frozen=True)
class Serving:
    """A server's process, and where it listens."""

    process: int
    address: str


@contextmanager
def serving(command: Sequence[str]) -> Iterator[Serving]:
    """A server as a child process, whose line `listening on HOST:PORT` says that it is ready; ended by SIGTERM.

    In a session of its own: what is left of the session 10 s later is killed, for LitServe leaves processes behind.
    Raises SystemExit if it ends before it says so.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | _ROOTS, start_new_session=True
    ) as process:
        try:
            yield Serving(process.pid, _address(process, command))
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _address(process: "subprocess.Popen[str]", command: Sequence[str]) -> str:
    if process.stdout is None:
        raise SystemExit(f"{command} has no output")
    for line in process.stdout:
        if line.startswith("listening on "):
            threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would stop it
            return line.split()[-1]
    raise SystemExit(f"{' '.join(command)} did not start; its log is above")


def foldmint(threads: int) -> list[str]:
    """The command of a server with the default model."""
    command = [sys.executable, "-m", "foldmint_server.cli", "--log-level", "warning", "--threads", str(threads)]
    for name in ("listen", "metrics-listen", "admin-listen"):
        command += [f"--{name}", "127.0.0.1:0"]
    return command
