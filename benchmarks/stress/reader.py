"""Reads bad files in a supervised process that may crash, hang or run out of memory.

    python -m benchmarks.stress.reader FIRST COUNT SEED [FILE ...]

`hunt` and `replay` run it and read its output.

RLIMIT_AS limits the memory, above what the process has at the start. A timer of the process' own CPU seconds limits the
time of an input: other load does not matter to it, and its signal also ends a call inside a library.
"""

import json
import resource
import signal
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks._common import ROOT
from benchmarks.stress.files import file
from foldmint_tokenizer import Backbone, InvalidStructure, Limits, read_backbones
from foldmint_tokenizer.neighborhoods import structure_geometry
from foldmint_tokenizer.structure.backbone import FARTHEST, LONGEST_NAME

# Of one input, which has at most 300 kB.
CPU_SECONDS, MEMORY_BYTES = 20.0, 2**30
LIMITS = Limits(unpacked_bytes=16 * 2**20, chains=100, residues=5_000)
_LONGEST_MESSAGE = 2_000
# What is run: a test puts a reader of known faults in its place.
MODULE = "benchmarks.stress.reader"


@dataclass
class Findings:
    """Results: how many inputs were read or refused, and all failures, (input, what happened)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return sum(self.outcomes.values()) + len(self.wrong)


def clean(message: str) -> bool:
    """Whether a message may be shown and logged: short, and nothing in it that a terminal obeys."""
    return len(message) <= _LONGEST_MESSAGE and not any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for character in message
    )


def judged(content: bytes) -> str:
    """`read` or `refused`; raises AssertionError for an invalid error or backbone."""
    refusal: InvalidStructure | None = None
    try:
        backbones = read_backbones(content, limits=LIMITS)
    except InvalidStructure as error:
        refusal = error
    if refusal is not None:
        assert clean(str(refusal)), f"an error message with control characters: {str(refusal)!r:.300}"
        assert refusal.field == "content", f"a refusal of {refusal.field!r}"
        return "refused"
    assert backbones, "no chain, and no refusal"
    assert len(backbones) <= LIMITS.chains
    assert sum(map(len, backbones)) <= LIMITS.residues
    for chain in backbones:
        _judge_chain(chain)
    for complex_ in (False, True):
        shape = structure_geometry(backbones, complex_)
        rows = shape.rows(slice(0, 64))
        assert all(np.isfinite(part).all() for part in (rows.rotation, rows.origin)), "a neighborhood is not finite"
    return "read"


def _judge_chain(chain: Backbone) -> None:
    assert len(chain.chain) <= LONGEST_NAME
    assert chain.chain.isprintable(), f"an unprintable name: {chain.chain!r}"
    assert not (np.abs(chain.coordinates) > FARTHEST).any(), "a coordinate too far"
    # The letters go into answers, and strings of protobuf are UTF-8.
    assert chain.sequence.isascii(), f"a sequence of other letters: {chain.sequence!r:.100}"
    assert chain.insertion_codes.isprintable(), f"unprintable insertion codes: {chain.insertion_codes!r:.100}"
    assert np.iinfo(np.int32).min <= chain.residue_index.min(), "a number that the contract does not hold"
    assert chain.residue_index.max() <= np.iinfo(np.int32).max, "a number that the contract does not hold"


def hunt(first: int, count: int, seed: int = 0, on_progress: Callable[[Findings], object] | None = None) -> Findings:
    """Give the reader the files `first` to `first + count - 1`. on_progress: called with the results so far."""
    found, then, end = Findings(), first, first + count
    while then < end:
        then = _watched([str(then), str(end - then), str(seed)], found, then, on_progress)
    return found


def replay(files: Sequence[Path]) -> Findings:
    """Give the reader these files."""
    found, left = Findings(), list(files)
    while left:
        done = _watched(["0", str(len(left)), "0", *map(str, left)], found, 0, None)
        left = left[done:]
    return found


def _watched(
    arguments: list[str], found: Findings, first: int, on_progress: Callable[[Findings], object] | None
) -> int:
    """Run the process until it ends or dies, and take in what it says; the number of the input to go on with."""
    command = [sys.executable, "-m", MODULE, *arguments]
    names = arguments[3:]
    at = first - 1
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            kind, at, *rest = json.loads(line)
            if kind == "wrong":
                found.wrong.append((names[at] if names else f"file {at}", rest[0]))
            elif kind != "begun":
                found.outcomes[kind] += 1
                if on_progress is not None and at % 1000 == 999:
                    on_progress(found)
    code = process.returncode
    if code == 0:
        return at + 1
    if at < first:
        raise RuntimeError(f"the process that is to read did not begin; exit code {code}")
    name = names[at] if names else f"file {at}"
    took_too_long = code == -signal.SIGVTALRM
    found.wrong.append((name, f"no end after {CPU_SECONDS:g} s" if took_too_long else f"the process died: {code}"))
    return at + 1


def _contents(first: int, count: int, seed: int, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    for number in range(first, first + count):
        yield number, Path(names[number]).read_bytes() if names else file(number, seed)


def main(arguments: Sequence[str]) -> None:
    """Check inputs, and print a line for each: its result and its number."""
    first, count, seed, *names = arguments
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, content in _contents(int(first), int(count), int(seed), names):
        print(json.dumps(["begun", number]), flush=True)
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        try:
            outcome: list[object] = [judged(content), number]
        except Exception as error:  # noqa: BLE001 (any other error is a finding)
            outcome = ["wrong", number, f"{type(error).__name__}: {error}"[:300]]
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
