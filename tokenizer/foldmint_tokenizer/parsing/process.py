"""A child process that reads structures, one at a time, within limits of time and memory."""

import os
import signal
import socket
import subprocess
import sys
from typing import Self

from foldmint_tokenizer.errors import ParserKilled
from foldmint_tokenizer.parsing.messages import Parsed, parsed_of, receive, request_message, send
from foldmint_tokenizer.structure.options import ReadOptions

_END_SECONDS = 5.0
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


class ParserProcess:
    """Reads structures in a child process, which starts with the first one; to be closed.

    A structure that takes more than `seconds`, needs more than `memory_bytes` beyond what the child has at its start,
    or ends its process, raises ParserKilled; the next one gets a new process. None: no limit. niceness: of the child,
    above that of this process.

    For one thread at a time.
    """

    def __init__(self, *, seconds: float | None = None, memory_bytes: int | None = None, niceness: int = 0) -> None:
        self._seconds, self._memory_bytes, self._niceness = seconds, memory_bytes, niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return None if self._process is None else self._process.pid

    def parse(self, content: bytes, options: ReadOptions = ReadOptions(), *, complex: bool = False) -> Parsed:  # noqa: A002
        """The structure that `read_structure` reads, and its geometry, by `structure_geometry`.

        Raises InvalidStructure as `read_structure` does, ParserKilled, and RuntimeError for what should not happen.
        """
        connection = self._started()
        try:
            send(connection, request_message(content, options, complex_=complex))
            return parsed_of(receive(connection))
        except ParserKilled:
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise ParserKilled(f"reading it takes more than {self._seconds:g} s", limit=True) from None
        except (EOFError, OSError) as error:
            raise ParserKilled(f"the process that read it ended {self._ending()}") from error

    def close(self) -> None:
        """End the child process. What it is reading is not finished."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it ended between two structures: nobody's fault
        if self._connection is None:
            own, other = socket.socketpair()
            own.settimeout(self._seconds)
            with other:
                memory_bytes = self._memory_bytes or 0
                numbers = [str(number) for number in (other.fileno(), memory_bytes, self._niceness)]
                self._process = subprocess.Popen(  # noqa: S603 (our own module, and numbers)
                    # -P: not from the working directory.
                    [sys.executable, "-P", "-m", "foldmint_tokenizer.parsing.child", *numbers],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[other.fileno()],
                    env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            self._connection = own
        return self._connection

    def _ending(self) -> str:
        """How the child process ended, in words."""
        if self._process is None:
            raise AssertionError("a process was started")
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        self.close()
        return f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
