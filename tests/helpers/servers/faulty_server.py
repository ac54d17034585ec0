"""The real server, whose devices fail or wait on command: by what the file in FOLDMINT_TEST_FAULTS says at each step.

Its lines: `hold 1` (devices and the decoder begin nothing while it is there), `memory N` (rows that a step may have),
`not_finite 1` and `broken 1` (structures with a residue that is more than 7777 Å from the others), `lost N` (devices up
to that number compute nothing any more), `clock N` (seconds that the clock of the day jumps).

python -m helpers.servers.faulty_server --listen 127.0.0.1:0
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foldmint_server.cli.main import app
from foldmint_tokenizer import DecodedStructure
from foldmint_tokenizer.detokenizer import StructureDetokenizer
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.neighborhoods import Neighborhoods

FAULTS = Path(os.environ["FOLDMINT_TEST_FAULTS"])
_vectors, _probe, _time, _time_ns = Engine.vectors, Engine.probe, time.time, time.time_ns
_detokenize = StructureDetokenizer.detokenize
_MARK = 7777.0


def faults() -> dict[str, float]:
    """What is to fail now."""
    try:
        lines = FAULTS.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {line.split()[0]: float(line.split()[1]) for line in lines if line}


def _wait_while_held() -> None:
    while "hold" in faults():
        time.sleep(0.01)


def _check_lost(now: dict[str, float]) -> None:
    number = threading.current_thread().name.rpartition(" ")[2]
    if "lost" in now and number.isdecimal() and int(number) <= now["lost"]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def vectors(self: Engine, rows: Neighborhoods) -> Tensor:
    """As an engine's, but for the faults."""
    _wait_while_held()
    now = faults()
    _check_lost(now)
    if len(rows.offset) > now.get("memory", 10**9):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    marked = torch.from_numpy(abs(rows.origin).max((1, 2)) > _MARK)
    if "broken" in now and marked.any():
        raise RuntimeError("a kernel that does not like these rows")
    z = _vectors(self, rows)
    if "not_finite" in now:
        z[marked] = torch.nan
    return z


def probe(self: Engine, embeddings: Tensor) -> None:
    """As an engine's, but for a device that is lost."""
    _check_lost(faults())
    _probe(self, embeddings)


def detokenize(self: StructureDetokenizer, *arguments: Any, **options: Any) -> DecodedStructure:
    """As a detokenizer's, once it may begin."""
    _wait_while_held()
    return _detokenize(self, *arguments, **options)


StructureDetokenizer.detokenize = detokenize  # type: ignore[method-assign]
Engine.vectors = vectors  # type: ignore[method-assign]
Engine.probe = probe  # type: ignore[method-assign]
time.time = lambda: _time() + faults().get("clock", 0.0)
time.time_ns = lambda: _time_ns() + int(faults().get("clock", 0.0) * 1e9)

if __name__ == "__main__":
    app()
