"""The child process that reads structures.

    python -m foldmint_tokenizer.parsing.child DESCRIPTOR MEMORY_BYTES SECONDS NICENESS

It sends a message when it is ready, then answers requests, over the socket of this file descriptor, until that is
closed. MEMORY_BYTES limits the memory that it takes beyond what it has at its start; 0: no limit. A structure on which
it spends more than SECONDS ends it, if its parent has not done so; 0: no limit.

A module of another package may be such a process too, with a reader of its own; see `answer_requests`.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.neighborhoods import build_geometry, structure_geometry
from foldmint_tokenizer.parsing.messages import (
    READY,
    Message,
    Parsed,
    Request,
    error_message,
    parsed_message,
    receive,
    requested,
    send,
)
from foldmint_tokenizer.structure.left_out import StructureContent, frame_warnings
from foldmint_tokenizer.structure.options import ReadOptions
from foldmint_tokenizer.structure.reader import read_structure

Read = Callable[[bytes, str, ReadOptions], StructureContent]
"""Reads a file, of this name, with these options. Raises InvalidStructure."""


def read_file(content: bytes, name: str, options: ReadOptions) -> StructureContent:  # noqa: ARG001 (as `Read` has it)
    """The structure of a file, whatever its name."""
    return read_structure(content, options)


def answer_requests(read: Read = read_file) -> None:
    """Be the process that a ParserProcess starts: answer requests until the other side closes the connection."""
    descriptor, memory_bytes, seconds, niceness = map(int, sys.argv[1:])
    # Ctrl-C reaches a terminal's whole process group; it is the parent that decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(niceness)
    # Compiled functions are loaded, or compiled, before memory is limited.
    build_geometry(np.eye(3)[None], np.zeros(1, np.int64))
    if memory_bytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, OSError):
        send(connection, READY)
        while True:
            message = receive(connection)
            signal.alarm(seconds)
            answer = _answer(message, read)
            signal.alarm(0)
            send(connection, answer)


def _answer(message: Message, read: Read) -> Message:
    try:
        request = requested(message)
        structure = _structure(request, read)
        return parsed_message(Parsed(structure, structure_geometry(structure.chains, request.complex)))
    except Exception as error:  # noqa: BLE001 (the parent raises it)
        return error_message(error)


def _structure(request: Request, read: Read) -> StructureContent:
    if isinstance(request.structure, bytes):
        return read(request.structure, request.name, request.options)
    if not request.structure:
        raise InvalidStructure("chains", "there are no chains")
    return StructureContent(request.structure, warnings=frame_warnings(request.structure))


if __name__ == "__main__":
    answer_requests()
