"""The time until a command answers, and until a server serves.

    python -m benchmarks startup --json FILE

Each command runs in fresh processes, one after another and in turn with the others; medians count. A server is timed
from the start of its process until its health is SERVING. A first run, which is not counted, fills the caches of byte
code, of numba's functions and of the system's files. The bars are for elapsed time on an idle machine; CPU time (user
and system) depends less on what else runs.
"""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks._common import write

_BAR, _SERVER_BAR = 0.1, 3.0  # seconds
_WAIT = 120.0
_SERVER = "foldmint-server, until SERVING"
_BARRED = ("import foldmint_client", "foldmint --help")


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", f"from {module} import main; main()", *arguments]


COMMANDS: Mapping[str, Sequence[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import foldmint_client": [sys.executable, "-c", "import foldmint_client"],
    "import foldmint_tokenizer": [sys.executable, "-c", "import foldmint_tokenizer"],
    "foldmint --help": _command("foldmint_client.__main__", "--help"),
    "foldmint tokenize --help": _command("foldmint_client.__main__", "tokenize", "--help"),
    "foldmint --version": _command("foldmint_client.__main__", "--version"),
    "foldmint-maintenance --help": _command("foldmint_maintenance.cli.__main__", "--help"),
    "foldmint-bulk --help": _command("foldmint_bulk.cli.__main__", "--help"),
    "foldmint-server --help": _command("foldmint_server.cli.__main__", "--help"),
}


class Taken(NamedTuple):
    """Seconds of one process: elapsed, and of CPU time of all its threads."""

    elapsed: float
    cpu: float


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each command.")] = 15,
    servers: Annotated[int, typer.Option(min=1, help="Servers that are started.")] = 7,
) -> None:
    """Print a table."""
    found = measured({name: lambda argv=argv: run(argv) for name, argv in COMMANDS.items()}, repeats)  # type: ignore[misc]
    found |= measured({_SERVER: serve}, servers)
    medians = {name: Taken(*map(median, zip(*taken, strict=True))) for name, taken in found.items()}
    for name, taken in medians.items():
        print(f"{name:32} {taken.elapsed:6.3f} s, CPU {taken.cpu:6.3f} s")
    write(file, {"tables": [table(medians)], "bars": bars(medians)})


def measured(tasks: Mapping[str, Callable[[], Taken]], repeats: int) -> dict[str, list[Taken]]:
    """What each task takes, run in turn so many times, after a first time that is not counted."""
    found: dict[str, list[Taken]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            taken = task()
            if repeat:
                found[name].append(taken)
    return found


def run(command: Sequence[str]) -> Taken:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    before, began = _children_cpu(), time.perf_counter()
    subprocess.run(command, env=_environment(), stdout=subprocess.DEVNULL, check=True)
    return Taken(time.perf_counter() - began, _children_cpu() - before)


def serve() -> Taken:
    """Start a server with the default model, wait until it reports SERVING, and stop it.

    Exits if it ends before, or does not report SERVING in two minutes. CPU time counts until SERVING.
    """
    address = f"127.0.0.1:{_free_port()}"
    command = _command("foldmint_server.cli.__main__", "--listen", address, "--log-level", "warning")
    command += ["--metrics-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    began = time.perf_counter()
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_serving(address, process)
            return Taken(time.perf_counter() - began, _cpu_of(process.pid))
        finally:
            process.terminate()


def _wait_until_serving(address: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _WAIT
    # A connection that fails is tried again soon, not after gRPC's usual second and more.
    options = [(f"grpc.{name}_reconnect_backoff_ms", 20) for name in ("initial", "min", "max")]
    with grpc.insecure_channel(address, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < until and process.poll() is None:
            try:
                status = stub.Check(health_pb2.HealthCheckRequest(), timeout=1).status
            except grpc.RpcError:
                status = None
            if status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.01)
    sys.exit("the server did not come to serve; its log is above")


def _environment() -> dict[str, str]:
    """The own variables, without the one that keeps Python from caching byte code: installed packages have it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_of(process: int) -> float:
    """CPU seconds that a running process has used, from /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(medians: Mapping[str, Taken]) -> dict[str, object]:
    """As docs/performance.md shows it."""
    rows = [[name, taken.elapsed, taken.cpu] for name, taken in medians.items()]
    return {"title": "Start of fresh processes, medians", "columns": ["process", "elapsed, s", "CPU, s"], "rows": rows}


def bars(medians: Mapping[str, Taken]) -> list[dict[str, object]]:
    """What was to be reached."""
    limits = dict.fromkeys(_BARRED, _BAR) | {_SERVER: _SERVER_BAR}
    return [
        {
            "measure": f"{name}, elapsed s",
            "bar": f"at most {limit:g}",
            "found": medians[name].elapsed,
            "reached": medians[name].elapsed <= limit,
        }
        for name, limit in limits.items()
    ]
