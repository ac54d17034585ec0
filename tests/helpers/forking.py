"""Processes of tests that are forked from one that has imported what they run, torch among it.

Each is a process of its own, and runs the same code with the same arguments and environment as a command would; what is
saved are the interpreter's start and end and the imports, which are four fifths of a server's first three seconds.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import IO

import pytest

from benchmarks.stress.servers import KillableServer

_IMPORTED = [
    "foldmint_server.cli.main",
    "foldmint_server.server",
    "foldmint_maintenance.repair.job",
    "foldmint_tokenizer.store.lock",
]
_starting = threading.Lock()


def forking() -> ForkServerContext:
    """What starts processes that have imported the server, the repair and the store."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with _starting, pytest.MonkeyPatch.context() as changed:
        changed.setenv("GRPC_VERBOSITY", "NONE")  # read when gRPC is loaded; commands set it before
        multiprocessing.forkserver.ensure_running()
    return context


class ForkedModule:
    """`python -m MODULE ARGUMENT...`, forked; as much of `subprocess.Popen` as tests use.

    log: to which its standard error is appended; without one it goes where that of the first one's parent did.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None) -> None:
        context = forking()
        reader, writer = context.Pipe(duplex=False)
        given = (module, [*arguments], dict(environment), writer, log)
        self._process: ForkServerProcess = context.Process(target=_run, args=given)
        self._process.start()
        writer.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.stdout: IO[str] | None = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    def poll(self) -> int | None:
        """The exit code, of a signal its number below zero; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired after so many seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedKillableServer(KillableServer):
    """One that is forked at each start."""

    def _launched(self, arguments: list[str], environment: dict[str, str], log: Path | None) -> ForkedModule:
        return ForkedModule("foldmint_server.cli", arguments, environment, log)


def _run(module: str, arguments: list[str], environment: dict[str, str], output: Connection, log: Path | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output.fileno(), sys.stdout.fileno())
    output.close()
    if log is not None:
        with log.open("a") as file:
            os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
