"""Servers that can be killed: real processes on fixed ports, which a restart reuses."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks._common import ROOT

_ROOTS = ("protos", "tokenizer", "server")
_START_SECONDS = 300.0


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


class ServerProcess(Protocol):
    """As much of `subprocess.Popen` as is used here."""

    pid: int
    stdout: IO[str] | None

    def poll(self) -> int | None: ...  # noqa: D102
    def wait(self, timeout: float | None = None) -> int: ...  # noqa: D102
    def send_signal(self, number: int) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102


class KillableServer:
    """A `foldmint-server` process. address, metrics, admin: HOST:PORT, the same after each start.

    arguments: further options of the server. log: where its log goes; this process' standard error if not given.
    """

    def __init__(self, *arguments: str, log: Path | None = None) -> None:
        self.address, self.metrics, self.admin = (f"127.0.0.1:{port}" for port in free_ports(3))
        self.arguments, self.starts, self.kills = arguments, 0, 0
        self._log = log
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it listens. Raises RuntimeError if it does not."""
        own = ["--listen", self.address, "--metrics-listen", self.metrics, "--admin-listen", self.admin]
        paths = os.pathsep.join(str(ROOT / name) for name in _ROOTS)
        arguments = [*own, "--log-level", "error", *self.arguments]
        self._process = self._launched(arguments, {**os.environ, "PYTHONPATH": paths}, self._log)
        self.starts += 1
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline() for _ in range(3)]
        if not lines[2].startswith("admin on "):
            raise RuntimeError(f"the server said {lines}, exit code {self._process.poll()}")

    def _launched(self, arguments: list[str], environment: dict[str, str], log: Path | None) -> ServerProcess:
        with ExitStack() as files:
            return subprocess.Popen(
                [sys.executable, "-m", "foldmint_server.cli", *arguments],
                stdout=subprocess.PIPE,
                stderr=None if log is None else files.enter_context(log.open("a")),
                text=True,
                env=environment,
            )

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self._end(signal.SIGKILL)
        self.kills += 1

    def stop(self) -> int:
        """End it as a supervisor does, by SIGTERM; the exit code. Nothing happens where it is not running."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            code = process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code


def serving(address: str) -> bool:
    """Whether a server says now that it serves."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Killer:
    """Kills servers in turn, one at a time, and starts each again at once, in a thread, for as long as it is entered.

    A kill comes when all servers serve and it is due, so that how many there are is a matter of progress, not of the
    machine's speed. failed: what went wrong, for whoever entered.
    """

    def __init__(self, servers: list[KillableServer], due: "Due") -> None:
        self.failed: list[BaseException] = []
        self._servers, self._due = servers, due
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_START_SECONDS)

    @property
    def kills(self) -> int:
        """How many there were."""
        return sum(server.kills for server in self._servers)

    def _run(self) -> None:
        try:
            turn = 0
            while not self._over.wait(0.02):
                if self._due() and all(serving(server.address) for server in self._servers):
                    victim = self._servers[turn % len(self._servers)]
                    self._due.done()
                    victim.kill()
                    victim.start()
                    turn += 1
        except BaseException as error:  # noqa: BLE001 (raised in the thread that entered)
            self.failed.append(error)


class Due:
    """Says when a kill is due: whenever there are `every` more answers than at the last one, `most` times in all."""

    def __init__(self, every: int, most: int) -> None:
        self._every, self._left = every, most
        self._answers, self._next = 0, every

    def __call__(self) -> bool:
        """Whether one is due now."""
        return self._left > 0 and self._answers >= self._next

    def count(self, answers: int) -> None:
        """So many answers there are now."""
        self._answers = answers

    def done(self) -> None:
        """One was made."""
        self._left -= 1
        self._next = self._answers + self._every


def wait_until_serving(address: str, seconds: float = _START_SECONDS) -> None:
    """Raises TimeoutError if a server does not say in time that it serves."""
    until = time.monotonic() + seconds
    while not serving(address):
        if time.monotonic() > until:
            raise TimeoutError(f"{address} does not serve after {seconds:g} s")
        time.sleep(0.05)
