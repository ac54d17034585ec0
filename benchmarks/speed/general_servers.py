"""The default model in foldmint-server and in general-purpose servers: throughput and latency under one mixed load.

    python -m benchmarks.baselines.peers
    python -m benchmarks general-servers --json FILE

LitServe (popular, HTTP) and Ray Serve (gRPC, with our API) run the same engine with the same number of threads, in
small servers in benchmarks/baselines: they parse structures in the handler, batch them with the server's own dynamic
batching, and compute the residues of a batch in one call. Since a general-purpose server does not come with such an
engine, LitServe also runs the published encoder with the same weights (`make reference`), as a user without Foldmint
would. All get the same load from the same client process: a fixed list of structures, with a large one after a number
of small ones, taken in order by clients that each wait for their answer. In each round, servers run one at a time,
freshly started. Servers that are not installed are skipped.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks import _published
from benchmarks._common import write
from benchmarks.baselines import peers
from benchmarks.baselines.load import (
    CHAINS,
    LoadClient,
    Part,
    Task,
    cpu_seconds,
    foldmint,
    load_client,
    mixed,
    percentiles,
    residues_of,
    serving,
)
from foldmint_maintenance.datasets.records import read_parquet

OURS, PUBLISHED = "foldmint-server", "LitServe, published encoder"
MOST_SHARE, LEAST_RATIO = 0.5, 1.5


@dataclass(frozen=True)
class Kind:
    """A server: what the client speaks to it, and the command that starts it; package: what it must have installed."""

    speaks: str
    command: list[str]
    package: str = ""


@dataclass(frozen=True)
class Round:
    """Seconds of a load, seconds of each of its structures, and the server's CPU seconds."""

    seconds: float
    each: list[float]
    cpu: float


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    clients: Annotated[int, typer.Option(min=1, help="That wait for an answer each.")] = 16,
    small: Annotated[int, typer.Option(min=1, help="Residues of a small structure, at most.")] = 100,
    large: Annotated[int, typer.Option(min=1, help="Residues of a large structure.")] = 3000,
    each: Annotated[int, typer.Option(min=1, help="Small structures before each large one.")] = 20,
    count: Annotated[int, typer.Option(min=1, help="Large structures in a round.")] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Most structures in a general server's batch.")] = 8,
    threads: Annotated[int, typer.Option(min=0, help="Number of compute threads; 0: torch's default.")] = 0,
) -> None:
    """Print a table."""
    if large <= small:
        sys.exit(f"a large structure must have more residues than a small one, not {large} and {small}")
    kinds = known(threads or torch.get_num_threads(), batch)
    plan = mixed([len(chain.sequence) for chain in read_parquet(CHAINS)], large, each, small, count)
    runs: dict[str, list[Round]] = {}
    with load_client() as client:
        for _ in range(rounds):
            for name, kind in kinds.items():
                try:
                    runs.setdefault(name, []).append(loaded(client, kind, clients, plan))
                except NotStarted as error:
                    if name == OURS:
                        sys.exit(str(error))
                    print(f"{name} is left out: {error}", flush=True)
    runs = {name: found for name, found in runs.items() if len(found) == rounds}
    figures = summary(runs, plan, large)
    one = table(figures, f"{clients} clients, {each} structures of up to {small} residues to one of {large}")
    print(one["title"], *(" | ".join(map(str, row)) for row in [one["columns"], *one["rows"]]), sep="\n")
    load = {"clients": clients, "small": small, "large": large, "each": each, "count": count, "batch": batch}
    write(file, {"tables": [one], "bars": bars(figures), "servers": figures, "load": load})


class NotStarted(Exception):
    """A server that did not start."""


def known(threads: int, batch: int) -> dict[str, Kind]:
    """The installed servers; a message is printed for each of the others."""
    options = ["--threads", str(threads), "--batch", str(batch)]
    litserve = [str(peers.PYTHON), "-m", "benchmarks.baselines.litserve_app", *options]
    kinds = {
        OURS: Kind("grpc", foldmint(threads)),
        "LitServe": Kind("http", litserve, "litserve"),
        PUBLISHED: Kind("http", [*litserve, "--computes", "published"], "litserve"),
        "Ray Serve": Kind("grpc", [str(peers.PYTHON), "-m", "benchmarks.baselines.ray_app", *options], "ray"),
    }
    for name, kind in [*kinds.items()]:
        if kind.package and not peers.available(kind.package):
            print(f"{name} is not installed, and left out: python -m benchmarks.baselines.peers")
            del kinds[name]
    if PUBLISHED in kinds and not _published.installed():
        print(f"{PUBLISHED} is left out: make reference")
        del kinds[PUBLISHED]
    return kinds


def loaded(client: LoadClient, kind: Kind, clients: int, plan: list[list[Part]]) -> Round:
    """Start a server, warm it up, and send the load. Raises NotStarted."""
    try:
        running = serving(kind.command)
        server = running.__enter__()
    except SystemExit as error:
        raise NotStarted(str(error)) from error
    try:
        client.run(Task(kind.speaks, server.address, clients, plan[: 2 * clients]))
        used = cpu_seconds(server.process)
        sent = client.run(Task(kind.speaks, server.address, clients, plan))
        used = cpu_seconds(server.process) - used
    finally:
        running.__exit__(None, None, None)
    total = sum(map(residues_of, plan))
    if sent.tokens != total:
        sys.exit(f"{kind.command[2]}: {sent.tokens} tokens came back for {total} residues")
    return Round(sent.seconds, sent.each, used)


def summary(
    runs: Mapping[str, Sequence[Round]], plan: Sequence[Sequence[Part]], large: int
) -> dict[str, dict[str, float]]:
    """Of each server: residues_per_second, ratio (ours over its, by rounds), and the server's CPU, medians of rounds.

    Percentiles in ms, of all structures and of the small ones, those of fewer than `large` residues; of all rounds.
    """
    sizes = [residues_of(structure) for structure in plan]
    return {
        name: {
            "residues_per_second": median(sum(sizes) / one.seconds for one in rounds),
            "ratio": median(one.seconds / own.seconds for own, one in zip(runs[OURS], rounds, strict=True)),
            "cpu_us": median(1e6 * one.cpu / sum(sizes) for one in rounds),
            **percentiles([seconds for one in rounds for seconds in one.each]),
            **{
                f"small_{key}": value
                for key, value in percentiles(
                    [seconds for one in rounds for size, seconds in zip(sizes, one.each, strict=True) if size < large]
                ).items()
            },
        }
        for name, rounds in runs.items()
    }


_COLUMNS = {
    "residues_per_second": "residues/s",
    "ratio": "ours to this",
    "cpu_us": "server's CPU, µs a residue",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "small_p50_ms": "p50 of small, ms",
    "small_p99_ms": "p99 of small, ms",
}


def table(figures: Mapping[str, Mapping[str, float]], title: str) -> dict[str, Any]:
    """The figures as a table."""
    rows = [[name, *(float(row[key]) for key in _COLUMNS)] for name, row in figures.items()]
    return {"title": title, "columns": ["server", *_COLUMNS.values()], "rows": rows}


def bars(figures: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """What was to be reached, against each general server."""
    found: list[dict[str, object]] = []
    for name, row in figures.items():
        if name == OURS:
            continue
        share = figures[OURS]["small_p99_ms"] / row["small_p99_ms"]
        for measure, bar, value, reached in (
            ("throughput", f"at least {LEAST_RATIO} times", f"{row['ratio']:.2f} times", row["ratio"] >= LEAST_RATIO),
            ("p99 of small requests", f"at most {MOST_SHARE:.0%}", f"{share:.0%}", share <= MOST_SHARE),
        ):
            found.append({"measure": f"{measure}, against {name}", "bar": bar, "found": value, "reached": reached})
    return found


if __name__ == "__main__":
    typer.run(main)
