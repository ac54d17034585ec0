"""Where the time of the default model goes on a CPU, stage by stage.

    python -m benchmarks profile --json FILE

On one thread, so that the stages add up to the whole. The functions of each stage are timed where they are called; the
rest is Python and copies between them. To see the stages of the encoder, it is also run in parts, with torch's own
products, instead of by compiled layers, as usual. All ways alternate in each round; the figures are medians over the
rounds.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer

from benchmarks._common import ROOT, write
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer import StructureTokenizer, backbone, codebook, neighborhoods, tokenizer
from foldmint_tokenizer.cpu import code_search, fast_encoder
from foldmint_tokenizer.cpu.weights import Products
from foldmint_tokenizer.kernels import encoder as encoder_kernels
from foldmint_tokenizer.kernels import geometry as geometry_kernels
from foldmint_tokenizer.kernels import layers

DATA = ROOT / "tests" / "data"
FILES = ("1a8o.pdb", "1a8o.cif")
REST, WHOLE = "Python and copies", "whole"
STAGES: Sequence[tuple[str, Sequence[tuple[Any, str]]]] = (
    ("reading", [(tokenizer, "read_structure")]),
    ("frames", [(geometry_kernels, "frames")]),
    ("nearest neighbors", [(neighborhoods, "_nearest")]),
    ("relative geometry", [(neighborhoods.Geometry, "rows")]),
    ("embedding", [(torch, "index_select")]),
    ("compiled layers", [(layers, "project"), (layers, "attend_and_feed"), (layers, "finish")]),
    ("products with weights and codes", [(torch, "mm"), (torch, "addmm"), (torch.Tensor, "addmm_")]),
    ("geometric attention", [(encoder_kernels, "attend")]),
    ("norms, biases", [(encoder_kernels, "add_and_norm")]),
    ("SwiGLU between its products", [(encoder_kernels, "gate")]),
    ("nearest code, after its product", [(codebook, "_argmin")]),
    ("nearest code, by tiles", [(code_search, "nearest_codes")]),
    ("segments, tokens by chain", [(tokenizer, "coded"), (tokenizer, "assembled")]),
)
"""The stages, and the functions that compute them, by the names by which they are called."""


class Clock:
    """Seconds that were spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 (any function's)
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

        return call

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the stages of what is called in this context."""
        with ExitStack() as stack:
            for stage, functions in STAGES:
                for owner, name in functions:
                    stack.enter_context(patch.object(owner, name, self.timed(stage, getattr(owner, name))))
            yield


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    chains: Annotated[int, typer.Option(min=1, help="Of the test set, at most.")] = 1000,
) -> None:
    """Print two tables."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        held = [backbone(one.coordinates, one.residue_index) for one in read_parquet(DATA / "chains.parquet")][:chains]
        own = StructureTokenizer.load()
        with patch.object(fast_encoder, "fastest_products", lambda _: Products.TORCH):
            parted = StructureTokenizer.load()
        ways: dict[str, Callable[[], object]] = {
            "all chains in one call": lambda: own.tokenize(held),
            "one chain after another": lambda: [own.tokenize(one) for one in held],
            "in parts, all in one call": lambda: parted.tokenize(held),
        }
        of_files: dict[str, Callable[[], object]] = {name: partial(own.tokenize, DATA / name) for name in FILES}
        found = profiled(ways | of_files, rounds)
    finally:
        torch.set_num_threads(threads)
    residues = sum(map(len, held))
    tables = [
        table("The default model on one thread, µs a residue", "stage", ways, found, 1e6 / residues),
        table("One file of 70 residues on one thread, ms", "stage", of_files, found, 1e3),
    ]
    for one in tables:
        for row in one["rows"]:
            print(" | ".join(f"{cell:,.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    write(file, {"tables": tables, "seconds": found, "residues": residues})


def profiled(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each stage of each way, of the rest, and of the whole; medians."""
    for way in ways.values():
        way()  # libraries load and functions are compiled before anything is timed
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            clock = Clock()
            with clock.running():
                began = time.perf_counter()
                way()
                whole = time.perf_counter() - began
            rest = whole - sum(clock.seconds.values())
            runs[name].append(clock.seconds | {REST: rest, WHOLE: whole})
    return {
        name: {stage: median(run.get(stage, 0.0) for run in each) for stage in (*dict(STAGES), REST, WHOLE)}
        for name, each in runs.items()
    }


def table(
    title: str, first: str, ways: dict[str, Any], found: dict[str, dict[str, float]], per_second: float
) -> dict[str, Any]:
    """A row for each stage that takes time, and its share of the whole in the first way."""
    shown = [stage for stage in (*dict(STAGES), REST, WHOLE) if any(found[way][stage] for way in ways)]
    leading = found[next(iter(ways))]
    return {
        "title": title,
        "columns": [first, *ways, "share of the first"],
        "rows": [
            [stage, *(found[way][stage] * per_second for way in ways), f"{leading[stage] / leading[WHOLE]:.1%}"]
            for stage in shown
        ],
    }


if __name__ == "__main__":
    typer.run(main)
