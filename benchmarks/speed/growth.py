"""Scaling: time and memory of 100 to 50,000 residues, rates of 1 to 10,000 queued requests, scrapes under load.

    python -m benchmarks growth --json FILE

In process: time per residue, alternating over all lengths in one process, and peak memory above the weights, in a
separate process for each length. A long chain consists of real chains, shifted so that none is near another, and
numbered consecutively. Over a real server with the default model: concurrent requests over one client's stream, then
scrapes of /metrics, idle and while another process keeps the server busy. `--long` adds lengths at ESM3's size, which
take minutes.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks._common import ROOT, interleaved, write
from benchmarks._load import load, loaded, queued, scraped, server
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer import Backbone, StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import ESM3, Encoder
from foldmint_tokenizer.model import CodebookVersion, Model

CHAINS = ROOT / "tests" / "data" / "chains.parquet"
_WARM_UP, _APART = 16, 500.0  # residues; Å, more than any of the chains is long
_MOST_MB, _MOST_MS = 400.0, 50.0
_THIS = [sys.executable, "-m", "benchmarks", "growth"]


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    lengths: Annotated[str, typer.Option(help="Residues, of the default model.")] = "100,1000,10000,50000",
    wide_lengths: Annotated[str, typer.Option(help="Residues, at ESM3's size; for memory.")] = "100,1000",
    requests: Annotated[str, typer.Option(help="Requests at once.")] = "1,10,100,1000,10000",
    residues: Annotated[int, typer.Option(help="Of a request.")] = 50,
    threads: Annotated[int, typer.Option(help="Number of compute threads; 0: torch's default.")] = 0,
    long: Annotated[bool, typer.Option("--long", help="10,000 and 50,000 residues at ESM3's size, too.")] = False,
    memory_of: Annotated[str, typer.Option(hidden=True)] = "",
    load_on: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print tables."""
    if threads:
        torch.set_num_threads(threads)
    sizes, wide_sizes, counts = map(numbers, (lengths, wide_lengths, requests))
    if memory_of:
        print(peak(memory_of, sizes[0]))
        return
    if load_on:
        load(load_on, residues)
    per_residue = times(sizes)
    shown([f"{size:,} residues: {taken * 1e3:.3f} ms each" for size, taken in per_residue.items()])
    memory = {
        name: {size: measured_peak(name, size, threads) for size in of}
        for name, of in (("default", sizes), ("esm3", wide_sizes + ([10_000, 50_000] if long else [])))
    }
    shown([f"{name}, {size:,} residues: {mb:.0f} MB" for name, of in memory.items() for size, mb in of.items()])
    with server(threads) as (address, metrics):
        rates = []
        for count in counts:
            rates.append(queued(address, count, residues))
            shown([f"{name}: {value:,.1f}" for name, value in rates[-1].items()])
        scrapes = {"idle": scraped(metrics)}
        with loaded([*_THIS, "--load-on", address, "--residues", str(residues)]):
            scrapes["under load"] = scraped(metrics)
    shown([f"a scrape, {name}: {median(found):.1f} ms" for name, found in scrapes.items()])
    figures = {
        "seconds_per_residue": per_residue,
        "memory_mb": memory,
        "queued": rates,
        "scrapes_ms": scrapes,
        "residues_of_a_request": residues,
    }
    write(file, {"tables": tables(figures), "bars": bars(per_residue, memory, scrapes), **figures})


def numbers(text: str) -> list[int]:
    """Whole numbers, comma-separated; exits if there are others, or none, or one below 1."""
    try:
        found = [int(one) for one in text.split(",")]
    except ValueError:
        sys.exit(f"{text!r} is not a comma-separated list of integers")
    if min(found) < 1:
        sys.exit(f"{text!r}: all must be at least 1")
    return found


def shown(lines: Sequence[str]) -> None:
    """Print what is known by now."""
    print("\n".join(lines), flush=True)


def joined(size: int) -> Backbone:
    """A chain of `size` residues, of real ones, taken again if there are too few, at places of a grid."""
    parts: list[NDArray[np.float32]] = []
    total = 0
    side = 1 + int(np.ceil((size / 16) ** (1 / 3)))  # room enough if no chain has less than 16 residues
    for place, record in enumerate(cycle(list(read_parquet(CHAINS)))):
        corner = np.array(np.unravel_index(place, (side, side, side))) * _APART
        centred = record.coordinates - np.nanmean(record.coordinates, axis=(0, 1))
        parts.append((centred + corner).astype(np.float32)[: size - total])
        total += len(parts[-1])
        if total == size:
            return backbone(np.concatenate(parts), np.arange(1, size + 1))
    raise AssertionError("a cycle of chains ended")


def times(sizes: Sequence[int]) -> dict[int, float]:
    """Median seconds a residue of each length, all in turn; those above 10,000 residues are computed once."""
    tokenizer = StructureTokenizer.load()
    tokenizer.tokenize(joined(_WARM_UP))
    tasks: dict[str, Callable[[], object]] = {str(size): partial(tokenizer.tokenize, joined(size)) for size in sizes}
    often = interleaved({name: task for name, task in tasks.items() if int(name) <= 10_000}, 3)
    once = interleaved({name: task for name, task in tasks.items() if int(name) > 10_000}, 1)
    return {int(name): median(seconds) / int(name) for name, seconds in (often | once).items()}


def measured_peak(name: str, size: int, threads: int) -> float:
    """`peak`, in a process of its own."""
    command = [*_THIS, "--memory-of", name, "--lengths", str(size), "--threads", str(threads)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with status {done.returncode}")
    return float(done.stdout.splitlines()[-1])


def peak(name: str, size: int) -> float:
    """Peak memory in MB (10^6 bytes) of this process while it tokenizes a chain, relative to its memory before.

    That includes the weights, the input, and what remains after computing one chain of 16 residues.
    """
    tokenizer = StructureTokenizer(random_esm3()) if name == "esm3" else StructureTokenizer.load()
    given = joined(size)
    tokenizer.tokenize(joined(_WARM_UP))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory_mb("VmRSS")
    tokenizer.tokenize(given)
    return memory_mb("VmHWM") - before


def random_esm3() -> Model:
    """A model of ESM3's size with random weights."""
    torch.manual_seed(0)
    codes = Codebook(torch.randn(ESM3.codes, ESM3.out), torch.ones(ESM3.codes), torch.zeros(0))
    return Model("random", ESM3, Encoder(ESM3), "-", CodebookVersion("-", "-", codes))


def memory_mb(what: str) -> float:
    """A line of this process' /proc/self/status, in MB (10^6 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{what}:"))


def tables(figures: dict[str, object]) -> list[dict[str, object]]:
    """As docs/performance.md shows them."""
    per_residue, memory, rates, scrapes = (
        figures[key] for key in ("seconds_per_residue", "memory_mb", "queued", "scrapes_ms")
    )
    assert isinstance(per_residue, dict)
    assert isinstance(memory, dict)
    assert isinstance(rates, list)
    assert isinstance(scrapes, dict)
    sizes = sorted({*memory["default"], *memory["esm3"]})
    return [
        {
            "title": "In process, a chain of so many residues",
            "columns": ["residues", "default model, ms a residue", "its peak MB", "peak MB at ESM3's size"],
            "rows": [
                [
                    size,
                    per_residue[size] * 1e3 if size in per_residue else "–",
                    round(memory["default"][size], 1) if size in memory["default"] else "–",
                    round(memory["esm3"][size], 1) if size in memory["esm3"] else "–",
                ]
                for size in sizes
            ],
        },
        {
            "title": f"Over a stream, requests of {figures['residues_of_a_request']} residues at once",
            "columns": ["requests", "residues/s", "p50, ms", "p99, ms"],
            "rows": [list(row.values()) for row in rates],
        },
        {
            "title": "Scrapes of /metrics",
            "columns": ["the server is", "median, ms", "longest, ms"],
            "rows": [[name, median(found), max(found)] for name, found in scrapes.items()],
        },
    ]


def bars(
    per_residue: dict[int, float], memory: dict[str, dict[int, float]], scrapes: dict[str, list[float]]
) -> list[dict[str, object]]:
    """What was to be reached."""
    longest = max(memory["esm3"])
    found = [
        (
            f"peak MB above the weights at ESM3's size, most of up to {longest:,} residues",
            _MOST_MB,
            max(memory["esm3"].values()),
        ),
        ("ms of a scrape under load, median", _MOST_MS, median(scrapes["under load"])),
    ]
    least, most = (pick([size for size in per_residue if size >= 1000] or per_residue) for pick in (min, max))
    if least < most:
        grown = per_residue[most] / per_residue[least]
        found.append((f"time a residue, {most:,} residues over {least:,}", 1.2, grown))
    for name, of in memory.items():
        least, most = (pick([size for size in of if size >= 1000] or of) for pick in (min, max))
        if least < most:
            found.append(
                (
                    f"kB of memory a residue beyond {least:,}, up to {most:,}, {name}",
                    1.0,
                    1e3 * (of[most] - of[least]) / (most - least),
                )
            )
    return [
        {"measure": measure, "bar": f"under {limit:g}", "found": float(value), "reached": bool(value < limit)}
        for measure, limit, value in found
    ]


if __name__ == "__main__":
    typer.run(main)
