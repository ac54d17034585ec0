"""A reader with faults, in the place of the real one: `stress.broken_reader` is what the watcher runs in its test."""

import os
import signal
import sys

from benchmarks.stress import reader

FOUND = {
    "file 1": "the process died: -11",
    "file 3": "no end after 20 s",
    "file 4": "MemoryError: ",
    "file 6": "KeyError: 'as no one expects'",
}
_SECONDS = 0.3


def judged(content: bytes) -> str:
    """As its number says, but for the faults."""
    number = int(content)
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    while number == 3:
        pass
    if number == 4:
        bytearray(2 * reader.MEMORY_BYTES)
    if number == 6:
        raise KeyError("as no one expects")
    return "read"


if __name__ == "__main__":
    reader.CPU_SECONDS = _SECONDS
    reader.judged = judged
    vars(reader)["file"] = lambda number, seed: b"%d" % number
    reader.main(sys.argv[1:])
