"""Half an hour of mixed load with a swap every minute: memory, threads and file descriptors do not grow.

    python -m benchmarks soak --json FILE

Runs a real server with several versions of the codebook under the callers of `stress/load.py`, which compare each
answer with the same version in process, and samples the server's process every few seconds. After the first quarter, in
which caches fill, a line is fitted to the memory; threads and descriptors are compared between the second and the last
quarter.
"""

import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks._common import ROOT, write
from benchmarks.faults import swap
from benchmarks.stress.jobs import stretches
from benchmarks.stress.load import MixedLoad
from benchmarks.stress.progress import tell
from benchmarks.stress.servers import KillableServer, wait_until_serving
from foldmint_client import CodebookAdmin
from foldmint_tokenizer import StructureTokenizer
from foldmint_tokenizer.store.model_store import Store

DATA = ROOT / "tests" / "data"
_FILES = ("1a8o.pdb", "1a8o.cif", "4cup.cif.gz", "1gbt.cif.gz")
_LENGTHS, _STRETCHES = (16, 40, 90, 200), 23
# Maximum growth in half an hour: negligible for a server of 500 MB.
_MOST_GROWTH_MB, _MOST_THREADS, _MOST_DESCRIPTORS = 32.0, 2, 8
_SHOWN = 20


class Sample(NamedTuple):
    """A sample of a process. seconds: since the start. memory: resident, MB."""

    seconds: float
    memory: float
    threads: int
    descriptors: int


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    minutes: Annotated[float, typer.Option(help="Duration, minutes.")] = 30.0,
    swap_seconds: Annotated[float, typer.Option(help="Seconds between swaps.")] = 60.0,
    sample_seconds: Annotated[float, typer.Option(help="Seconds between samples of the process.")] = 5.0,
) -> None:
    """Print a table. Fails if something grew, or an answer was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        store = swap.store(Path(folder))
        # More than the server keeps: some are in its memory, some come from the store.
        versions = Store(store).versions()[: swap.KEPT + 2]
        tokenizers = {version: StructureTokenizer(Store(store).load(version)) for version in versions}
        pool = stretches(_LENGTHS, _STRETCHES, tokenizers)
        files = {DATA / name: expected(DATA / name, tokenizers) for name in _FILES}
        arguments = [
            "--model",
            str(store),
            "--insecure-admin",
            "--poll-seconds",
            "0",
            "--keep-versions",
            str(swap.KEPT),
        ]
        with KillableServer(*arguments) as server:
            wait_until_serving(server.address)
            with MixedLoad(server, pool, files) as load:
                samples, swaps = watched(server, load, versions, 60 * minutes, swap_seconds, sample_seconds)
            code = server.stop()
    if code:
        load.wrong.append(f"the server stopped with exit code {code}")
    report(file, samples, load, {"minutes": minutes, "swap_seconds": swap_seconds}, swaps)


def expected(path: Path, tokenizers: Mapping[str, StructureTokenizer]) -> dict[str, list[list[int]]]:
    """The tokens of a file's chains by version, in process."""
    return {
        version: [chain.tokens.tolist() for chain in tokenizer.tokenize(path)]
        for version, tokenizer in tokenizers.items()
    }


def watched(
    server: KillableServer,
    load: MixedLoad,
    versions: Sequence[str],
    seconds: float,
    swap_seconds: float,
    sample_seconds: float,
) -> tuple[list[Sample], int]:
    """Samples of the server, and how many swaps there were; ends early if an answer was wrong."""
    began = time.monotonic()
    samples, swaps, turns = [], 0, cycle([*versions[1:], versions[0]])
    while (now := time.monotonic() - began) < seconds and not load.wrong:
        samples.append(sample(server.pid, now))
        if now >= (swaps + 1) * swap_seconds:
            with CodebookAdmin(server.admin) as admin:
                admin.activate(next(turns))
            swaps += 1
            tell(
                f"{now:.0f} s: {samples[-1].memory:.0f} MB, {samples[-1].threads} threads, "
                f"{samples[-1].descriptors} descriptors, {swaps} swaps, {sum(load.answers.values())} answers"
            )
        time.sleep(sample_seconds)
    return samples, swaps


def sample(pid: int, seconds: float) -> Sample:
    """Sample a process. Raises FileNotFoundError if it has ended."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    descriptors = len(list((process / "fd").iterdir()))
    return Sample(seconds, int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), descriptors)


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """After the first quarter: MB that a line through the memory rises; and by how much the median of the last quarter
    is above that of the second, of threads and descriptors.
    """
    quarter = len(samples) // 4
    if quarter < 1:
        raise ValueError(f"{len(samples)} samples are too few")
    later = samples[quarter:]
    seconds = np.array([one.seconds for one in later])
    slope = np.polyfit(seconds - seconds[0], [one.memory for one in later], 1)[0] if len(later) > 1 else 0.0
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]

    def more(name: str) -> float:
        before, after = (statistics.median(getattr(one, name) for one in some) for some in (second, last))
        return float(after - before)

    return {
        "memory": float(slope * (seconds[-1] - seconds[0])),
        "threads": more("threads"),
        "descriptors": more("descriptors"),
    }


def report(
    file: Path | None, samples: Sequence[Sample], load: MixedLoad, settings: dict[str, object], swaps: int
) -> None:
    """Write and print the results."""
    grown = growth(samples)
    minutes = samples[-1].seconds / 60
    limits = {"memory": _MOST_GROWTH_MB, "threads": _MOST_THREADS, "descriptors": _MOST_DESCRIPTORS}
    later = samples[len(samples) // 4 :]
    rows = [
        [
            name,
            *(round(each(getattr(one, name) for one in later), 1) for each in (min, statistics.median, max)),
            round(grown[name], 1),
        ]
        for name in limits
    ]
    answers: deque[list[object]] = deque([name, count] for name, count in sorted(load.answers.items()))
    answers.append(["swaps", swaps])
    answers.append(["answers that were wrong", len(load.wrong)])
    bars = [
        {
            "measure": f"growth of {name} over {minutes:.1f} minutes",
            "bar": f"at most {most:g}",
            "found": round(grown[name], 1),
            "reached": grown[name] <= most,
        }
        for name, most in limits.items()
    ]
    bars.append({"measure": "answers that were wrong", "bar": "0", "found": len(load.wrong), "reached": not load.wrong})
    write(
        file,
        {
            "settings": settings,
            "tables": [
                {
                    "title": f"{minutes:.1f} minutes of mixed load: what was done",
                    "columns": ["", "count"],
                    "rows": [*answers],
                },
                {
                    "title": "The server's process after the first quarter",
                    "columns": ["", "least", "median", "most", "growth"],
                    "rows": rows,
                },
            ],
            "bars": bars,
            "wrong": load.wrong[:_SHOWN],
            "samples": [[round(value, 1) for value in one] for one in samples],
        },
    )
    for row in [*answers, *rows]:
        print(*row, sep="\t")
    if failed := [f"{bar['measure']}: {bar['found']}" for bar in bars if not bar["reached"]]:
        sys.exit("\n".join([*failed, *load.wrong[:_SHOWN]]))


if __name__ == "__main__":
    typer.run(main)
