"""A child process that reads structures, one at a time, within limits of time and memory."""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Self

from foldmint_tokenizer.errors import ParserKilled
from foldmint_tokenizer.parsing.messages import Parsed, Request, parsed_of, receive, request_message, send
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.options import ReadOptions

_END_SECONDS = 5.0
_START_SECONDS = 300.0
_ORPHAN_SECONDS = 60  # that a child whose parent is gone may take beyond the limit
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


class ParserProcess:
    """Reads structures in a child process, which starts with the first one; to be closed.

    A structure that takes more than `seconds`, needs more than `memory_bytes` beyond what the child has at its start,
    or ends its process, raises ParserKilled; the next one gets a new process. None: no limit. niceness: of the child,
    above that of this process. module: that the child runs, which calls `answer_requests`.

    For one thread at a time, except `close`.
    """

    def __init__(
        self,
        *,
        seconds: float | None = None,
        memory_bytes: int | None = None,
        niceness: int = 0,
        module: str = "foldmint_tokenizer.parsing.child",
    ) -> None:
        self._seconds, self._memory_bytes, self._niceness, self._module = seconds, memory_bytes, niceness, module
        self._lock = threading.Lock()  # guards the two below
        self._child: _Child | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        child = self._child
        return None if child is None else child.process.pid

    def start(self) -> None:
        """Start the child process, if there is none, and wait until it is ready.

        Raises ParserKilled if it is killed meanwhile, or after `close`; RuntimeError if it cannot start.
        """
        self._started()

    def parse(
        self,
        structure: bytes | Sequence[Backbone],
        options: ReadOptions = ReadOptions(),
        *,
        name: str = "",
        complex: bool = False,  # noqa: A002
    ) -> Parsed:
        """The structure that `read_structure` reads, and its geometry, by `structure_geometry`.

        structure: a file's content; or backbones, which the options do not concern. name: of the file, for modules that
        read other files too.

        Raises InvalidStructure as `read_structure` does, ParserKilled, also after `close`, and RuntimeError for what
        should not happen.
        """
        child = self._started()
        try:
            send(child.connection, request_message(Request(structure, options, name, complex)))
            return parsed_of(receive(child.connection))
        except ParserKilled:
            self._end(child)
            raise
        except TimeoutError:
            self._end(child)
            raise ParserKilled(f"reading it takes more than {self._seconds:g} s", limit=True) from None
        except (EOFError, OSError) as error:
            raise ParserKilled(f"the process that read it ended {_words(self._end(child, _END_SECONDS))}") from error

    def close(self) -> None:
        """End the child process, for good. What it is reading is not finished. Any thread may call this."""
        with self._lock:
            self._closed, child = True, self._child
        if child is not None:
            self._end(child)

    def _started(self) -> "_Child":
        child = self._child
        if child is not None:
            if child.process.poll() is None:
                return child
            self._end(child)  # it ended between two structures: nobody's fault
        with self._lock:
            if self._closed:
                raise ParserKilled("the process that reads structures was closed")
            child = self._child = _Child.started(
                self._module,
                self._memory_bytes or 0,
                math.ceil(self._seconds) + _ORPHAN_SECONDS if self._seconds else 0,
                self._niceness,
            )
        what = "the process that reads structures"
        try:
            child.connection.settimeout(_START_SECONDS)
            receive(child.connection)
            child.connection.settimeout(self._seconds)
        except TimeoutError:
            self._end(child)
            raise RuntimeError(f"{what} takes more than {_START_SECONDS:g} s to start") from None
        except (EOFError, OSError) as error:
            code = self._end(child, _END_SECONDS)
            if code > 0:
                raise RuntimeError(f"{what} does not start: it ended {_words(code)}") from error
            raise ParserKilled(f"{what} ended {_words(code)}") from error
        return child

    def _end(self, child: "_Child", seconds: float = 0) -> int:
        """End a child, if it does not by itself within so many seconds; its exit code."""
        with self._lock:
            if self._child is child:
                self._child = None
        return child.end(seconds)


class _Child:
    """A child process, and the connection to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
        self.process, self.connection = process, connection

    @classmethod
    def started(cls, module: str, *numbers: int) -> Self:
        """Start it. numbers: its arguments, but the first."""
        own, other = socket.socketpair()
        with other:
            process = subprocess.Popen(  # noqa: S603 (our own module, and numbers)
                # -P: not from the working directory.
                [sys.executable, "-P", "-m", module, *map(str, (other.fileno(), *numbers))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return cls(process, own)

    def end(self, seconds: float) -> int:
        """End it, if it does not by itself within so many seconds; its exit code. Any thread may, and repeatedly."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.connection.close()
        return code


def _words(code: int) -> str:
    """How a process ended, in words."""
    return f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
