"""The child process that reads structures.

    python -m foldmint_tokenizer.parsing.child DESCRIPTOR MEMORY_BYTES NICENESS

It answers requests over the socket of this file descriptor until that is closed. MEMORY_BYTES limits the memory that it
takes beyond what it has at its start; 0: no limit.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import numpy as np

from foldmint_tokenizer.neighborhoods import build_geometry, structure_geometry
from foldmint_tokenizer.parsing.messages import (
    Message,
    Parsed,
    error_message,
    parsed_message,
    receive,
    requested,
    send,
)
from foldmint_tokenizer.structure.reader import read_structure


def main(descriptor: int, memory_bytes: int, niceness: int) -> None:
    """Answer requests until the other side closes the connection."""
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
        while True:
            send(connection, _answer(connection))


def _answer(connection: socket.socket) -> Message:
    try:
        content, options, complex_ = requested(receive(connection))
        structure = read_structure(content, options)
        return parsed_message(Parsed(structure, structure_geometry(structure.chains, complex_)))
    except (EOFError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 (the parent raises it)
        return error_message(error)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
