"""The default model in foldmint-server and in general-purpose servers: a mixed load, memory, and too high a load.

    python -m benchmarks.baselines.peers
    python -m benchmarks general-servers --json FILE

LitServe (popular, HTTP) and Ray Serve (gRPC, with our API) run the same engine with the same number of threads, in
small servers in benchmarks/baselines: they parse structures in the handler, batch them with the server's own dynamic
batching, and compute the residues of a batch in one call. Since a general-purpose server does not come with such an
engine, LitServe also runs the published encoder with the same weights (`make reference`), as a user without Foldmint
would. All get the same load from the same client process: a fixed list of structures, with a large one after a number
of small ones, taken in order by clients that each wait for their answer. In each round, servers run one at a time,
freshly started. Then each gets more structures than it can compute, at the same rate for all, and each structure has a
deadline; gRPC servers get it over 16 connections, HTTP servers over one for each outstanding structure. Servers that
are not installed are skipped.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
    Sent,
    Serving,
    Task,
    cpu_seconds,
    foldmint,
    load_client,
    memory_mib,
    mixed,
    percentiles,
    residues_of,
    serving,
    whole,
)
from foldmint_maintenance.datasets.records import read_parquet

OURS, PUBLISHED = "foldmint-server", "LitServe, published encoder"
MOST_SHARE, LEAST_RATIO, LEAST_RATIO_PUBLISHED = 0.3, 1.3, 4.5


@dataclass(frozen=True)
class Kind:
    """A server: what the client speaks to it, and the command that starts it; package: what it must have installed."""

    speaks: str
    command: list[str]
    package: str = ""


@dataclass(frozen=True)
class Round:
    """Seconds of a load and of each of its structures, the server's CPU seconds, and its memory afterwards, MiB."""

    seconds: float
    each: list[float]
    cpu: float
    memory: float


@dataclass(frozen=True)
class Overload:
    """Too high a load: structures, how many a second, and the seconds that each has."""

    structures: list[list[Part]]
    rate: float
    deadline: float


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    clients: Annotated[int, typer.Option(min=1, help="That wait for an answer each.")] = 16,
    small: Annotated[int, typer.Option(min=1, help="Residues of a small structure, at most.")] = 100,
    large: Annotated[int, typer.Option(min=1, help="Residues of a large structure.")] = 3000,
    each: Annotated[int, typer.Option(min=1, help="Small structures before each large one.")] = 20,
    count: Annotated[int, typer.Option(min=1, help="Large structures in a round.")] = 12,
    batch: Annotated[int, typer.Option(min=1, help="Most structures in a general server's batch.")] = 8,
    threads: Annotated[int, typer.Option(min=0, help="Number of compute threads; 0: torch's default.")] = 0,
    overload: Annotated[float, typer.Option(help="Load, in times our throughput, with a deadline; 0: none.")] = 2.0,
    seconds: Annotated[float, typer.Option(help="Of that load.")] = 20.0,
    deadline: Annotated[float, typer.Option(help="Seconds that each of its structures has.")] = 5.0,
) -> None:
    """Print the tables."""
    if large <= small:
        sys.exit(f"a large structure must have more residues than a small one, not {large} and {small}")
    kinds = known(threads or torch.get_num_threads(), batch)
    lengths = [len(chain.sequence) for chain in read_parquet(CHAINS)]
    plan = mixed(lengths, large, each, small, count)
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
        tables = [table(figures, f"{clients} clients, {each} structures of up to {small} residues to one of {large}")]
        if overload:
            residues = overload * figures[OURS]["residues_per_second"]
            structures = whole(lengths, round(residues * seconds))
            more = Overload(structures, len(structures) / seconds, deadline)
            outcomes = {name: overloaded(client, kinds[name], clients, more) for name in runs}
            tables.append(overload_table(outcomes, more, overload))
    for one in tables:
        print(one["title"], *(" | ".join(map(str, row)) for row in [one["columns"], *one["rows"]]), sep="\n")
    load = {"clients": clients, "small": small, "large": large, "each": each, "count": count, "batch": batch}
    write(file, {"tables": tables, "bars": bars(figures), "servers": figures, "load": load})


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
    with _started(kind) as server:
        client.run(Task(kind.speaks, server.address, clients, plan[: 2 * clients]))
        used = cpu_seconds(server.process)
        sent = client.run(Task(kind.speaks, server.address, clients, plan))
        used = cpu_seconds(server.process) - used
        memory = memory_mib(server.process)
    total = sum(map(residues_of, plan))
    if sent.tokens != total:
        sys.exit(f"{kind.command[2]}: {sent.tokens} tokens came back for {total} residues")
    return Round(sent.seconds, sent.each, used, memory)


def overloaded(client: LoadClient, kind: Kind, clients: int, load: Overload) -> Sent:
    """Start a server, warm it up, and send more than it can compute. Raises NotStarted."""
    with _started(kind) as server:
        client.run(Task(kind.speaks, server.address, clients, load.structures[: 2 * clients]))
        # As many as can be without an answer at once, and a few more.
        most = round(1.1 * load.rate * load.deadline) + clients
        return client.run(Task(kind.speaks, server.address, most, load.structures, load.rate, load.deadline))


@contextmanager
def _started(kind: Kind) -> Iterator[Serving]:
    """A server that runs. Raises NotStarted."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(serving(kind.command))
        except SystemExit as error:
            raise NotStarted(str(error)) from error
        yield server


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
            "memory_mib": median(one.memory for one in rounds),
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
    "memory_mib": "memory, MiB",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "small_p50_ms": "p50 of small, ms",
    "small_p99_ms": "p99 of small, ms",
}


def table(figures: Mapping[str, Mapping[str, float]], title: str) -> dict[str, Any]:
    """The figures as a table."""
    rows = [[name, *(float(row[key]) for key in _COLUMNS)] for name, row in figures.items()]
    return {"title": title, "columns": ["server", *_COLUMNS.values()], "rows": rows}


def overload_table(found: Mapping[str, Sent], load: Overload, times: float) -> dict[str, Any]:
    """What became of the structures, %, and the 99th percentile of those answered."""
    count = len(load.structures)
    rows = [
        [
            name,
            *(100 * sent.outcomes[outcome] / count for outcome in ("answered", "refused", "late", "failed")),
            percentiles(sent.each)["p99_ms"] if sent.each else "–",
        ]
        for name, sent in found.items()
    ]
    return {
        "title": f"{times:g} times the load that foldmint-server can do: {load.rate:.0f} structures/s for "
        f"{count / load.rate:.0f} s, each with a deadline of {load.deadline:g} s",
        "columns": ["server", "answered in time, %", "refused at once, %", "late, %", "failed, %", "p99, ms"],
        "rows": rows,
    }


def bars(figures: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """What was to be reached, against each general server."""
    found: list[dict[str, object]] = []
    for name, row in figures.items():
        if name == OURS:
            continue
        share = figures[OURS]["small_p99_ms"] / row["small_p99_ms"]
        least = LEAST_RATIO_PUBLISHED if name == PUBLISHED else LEAST_RATIO
        for measure, bar, value, reached in (
            ("throughput", f"at least {least} times", f"{row['ratio']:.2f} times", row["ratio"] >= least),
            ("p99 of small requests", f"at most {MOST_SHARE:.0%}", f"{share:.0%}", share <= MOST_SHARE),
        ):
            found.append({"measure": f"{measure}, against {name}", "bar": bar, "found": value, "reached": reached})
    return found


if __name__ == "__main__":
    typer.run(main)
