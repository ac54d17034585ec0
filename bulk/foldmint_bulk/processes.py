"""Child processes that answer one message after another, over pipes."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.structure.formats import messagepack

_ARRAY = 1  # msgpack's type of arrays


class ChildDied(Exception):
    """A child ended, or was killed, instead of answering. code: its exit code, negative: the signal that killed it."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(f"ended with {code}" if code is None or code >= 0 else f"killed by signal {-code}")


class TimedOut(Exception):
    """A child did not answer in time."""


class Child:
    """A process that runs a module, which answers messages with `serve`; to be closed.

    It ends when this process does, since its pipe ends. variables: added to its environment.
    """

    def __init__(self, module: str, variables: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (this software's own module)
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(variables or {}), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C is for the process that started it, which then ends it.
            start_new_session=True,
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the process has pipes")
        self._lock = threading.Lock()
        self._requests = Connection(os.dup(stdin.fileno()), readable=False)
        self._answers = Connection(os.dup(stdout.fileno()), writable=False)
        stdin.close()
        stdout.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Send a message. Raises ChildDied."""
        try:
            self._requests.send_bytes(packed(message))
        except (BrokenPipeError, OSError) as error:
            raise ChildDied(self._ended()) from error

    def receive(self, timeout: float | None = None) -> Any:  # noqa: ANN401 (what a message holds)
        """The next message. Raises ChildDied, and TimedOut after so many seconds."""
        try:
            if timeout is not None and not self._answers.poll(timeout):
                raise TimedOut
            return unpacked(self._answers.recv_bytes())
        except (EOFError, OSError) as error:
            raise ChildDied(self._ended()) from error

    def close(self) -> None:
        """Kill the process. Any thread may call it, also while another one waits for an answer, and repeatedly."""
        self._process.kill()
        self._process.wait()
        with self._lock:
            # To close a descriptor twice could close one that another thread has just opened.
            self._requests.close()
            self._answers.close()

    def _ended(self) -> int | None:
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def connect_parent() -> tuple[Connection, Connection]:
    """In a child: where requests come from, and where answers go; what is printed goes to standard error instead."""
    requests, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return requests, answers


def packed(message: object) -> bytes:
    """A message of plain values and arrays, as bytes."""
    return messagepack.packb(message, default=_pack_array)


def unpacked(content: bytes) -> Any:  # noqa: ANN401 (what a message holds)
    """The message of `packed`; its arrays cannot be written to."""
    return messagepack.unpackb(content, ext_hook=_unpack_array, strict_map_key=False)


def _pack_array(value: object) -> messagepack.ExtType:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"messages hold no {type(value).__name__}")
    head = messagepack.packb((value.dtype.str, value.shape))
    return messagepack.ExtType(_ARRAY, head + value.tobytes())


def _unpack_array(kind: int, data: bytes) -> NDArray[Any]:
    if kind != _ARRAY:
        raise ValueError(f"a message holds the type {kind}")
    unpacker = messagepack.Unpacker()
    unpacker.feed(data[:256])
    dtype, shape = unpacker.unpack()
    return np.frombuffer(data, dtype, offset=unpacker.tell()).reshape(shape)
