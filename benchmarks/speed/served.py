"""The default model in process and over gRPC: residues a second, relative to in process; and mini3di.

    python -m benchmarks served --json FILE

In process means `StructureTokenizer`, one chain after another, as a caller would use it; and, as an upper bound, all
chains in one call. The server runs in its own process with the same number of threads, and the client in another, on
the same cores, so that their overhead reduces the throughput. All alternate in each round; the figures are medians over
the rounds. mini3di (20 states, NumPy, one thread) is measured if `python -m benchmarks.baselines.peers` installed it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks._common import write
from benchmarks.baselines import peers
from benchmarks.baselines.load import (
    CHAINS,
    LoadClient,
    Part,
    Serving,
    Task,
    cpu_seconds,
    foldmint,
    load_client,
    residues_of,
    serving,
    whole,
)
from foldmint_maintenance.datasets.records import Record, read_parquet
from foldmint_tokenizer import Backbone, StructureTokenizer

IN_PROCESS, TOGETHER, STREAM, MINI3DI = "in process", "in process, all in one call", "stream", "mini3di"
CLIENTS = (1, 8, 64)
LEAST_SHARE, LEAST_RATE = 0.95, 4000.0
_WARM_UP = 1000  # residues


@dataclass(frozen=True)
class Run:
    """Seconds of a way, and CPU seconds of who computes (this process or the server) and of the client's process."""

    seconds: float
    computing_cpu: float
    client_cpu: float = 0.0


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    residues: Annotated[int, typer.Option(min=1, help="Of each way in a round; whole chains, so some more.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Number of compute threads; 0: torch's default.")] = 0,
) -> None:
    """Print a table."""
    if threads:
        torch.set_num_threads(threads)
    chains = list(read_parquet(CHAINS))
    plan = whole([len(chain.sequence) for chain in chains], residues)
    total = sum(map(residues_of, plan))
    with load_client() as client, serving(foldmint(torch.get_num_threads())) as server:
        ways = in_process(chains, plan) | over_grpc(client, server, plan)
        small = whole([len(chain.sequence) for chain in chains], _WARM_UP)
        for warm_up in (in_process(chains, small) | over_grpc(client, server, small)).values():
            warm_up()
        runs = {name: [way()] for name, way in ways.items()}
        for _ in range(rounds - 1):
            for name, way in ways.items():
                runs[name].append(way())
    figures = summary(runs, total)
    for row in table(figures)["rows"]:
        print(" | ".join(f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    if MINI3DI not in figures:
        print("mini3di is not installed, and left out: python -m benchmarks.baselines.peers")
    write(file, {"tables": [table(figures)], "bars": bars(figures), "ways": figures, "residues": total})


def in_process(chains: Sequence[Record], plan: Sequence[Sequence[Part]]) -> dict[str, Callable[[], Run]]:
    """What computes here: the tokenizer, and mini3di where it is."""
    tokenizer = StructureTokenizer.load()
    records = [chains[parts[0].chain] for parts in plan]
    backbones = [Backbone(one.id, one.sequence, one.residue_index, one.coordinates) for one in records]

    def separately() -> None:
        for backbone in backbones:
            tokenizer.tokenize(backbone)

    ways: dict[str, Callable[[], Run]] = {
        IN_PROCESS: partial(timed, separately),
        TOGETHER: partial(timed, partial(tokenizer.tokenize, backbones)),
    }
    if peers.available("mini3di"):
        encoder = peers.load("mini3di").Encoder()

        def states() -> None:
            for backbone in backbones:
                n, ca, c = backbone.coordinates.transpose(1, 0, 2)
                # It makes up the CB, which we are not given, as it does of any residue without one.
                encoder.encode_atoms(ca, np.full_like(ca, np.nan), n, c)

        ways[MINI3DI] = partial(timed, states)
    return ways


def timed(call: Callable[[], object]) -> Run:
    """Seconds of a call, and this process' CPU seconds."""
    began, used = time.perf_counter(), time.process_time()
    call()
    return Run(time.perf_counter() - began, time.process_time() - used)


def over_grpc(client: LoadClient, server: Serving, plan: list[list[Part]]) -> dict[str, Callable[[], Run]]:
    """The ways over the network."""
    total = sum(map(residues_of, plan))

    def sent(kind: str, clients: int) -> Run:
        used = cpu_seconds(server.process)
        answer = client.run(Task(kind, server.address, clients, plan))
        if answer.tokens != total:
            raise SystemExit(f"{kind}: {answer.tokens} tokens came back for {total} residues")
        return Run(answer.seconds, cpu_seconds(server.process) - used, answer.cpu)

    ways: dict[str, Callable[[], Run]] = {unary(clients): partial(sent, "unary", clients) for clients in CLIENTS}
    return ways | {STREAM: partial(sent, "stream", 1)}


def unary(clients: int) -> str:
    """The name of a way."""
    return f"unary, {clients} client{'s' * (clients > 1)}"


def summary(runs: Mapping[str, Sequence[Run]], residues: int) -> dict[str, dict[str, float]]:
    """Medians of rounds: residues_per_second; share of in process in the same round; CPU, µs a residue."""
    return {
        name: {
            "residues_per_second": median(residues / run.seconds for run in each),
            "share": median(own.seconds / run.seconds for own, run in zip(runs[IN_PROCESS], each, strict=True)),
            "computing_cpu_us": median(1e6 * run.computing_cpu / residues for run in each),
            "client_cpu_us": median(1e6 * run.client_cpu / residues for run in each),
        }
        for name, each in runs.items()
    }


def table(figures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The figures as a table."""
    return {
        "title": "Default model, the same chains",
        "columns": ["way", "residues/s", "share of in process", "CPU there, µs a residue", "of the client"],
        "rows": [[name, *map(float, row.values())] for name, row in figures.items()],
    }


def bars(figures: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """What was to be reached."""
    share = figures[STREAM]["share"] / figures[TOGETHER]["share"]
    rate = figures[IN_PROCESS]["residues_per_second"]
    return [
        {
            "measure": f"gRPC stream against {TOGETHER}",
            "bar": f"at least {LEAST_SHARE:.0%}",
            "found": f"{share:.0%}",
            "reached": share >= LEAST_SHARE,
        },
        {
            "measure": "default model, in process",
            "bar": f"at least {LEAST_RATE:,.0f} residues/s",
            "found": f"{rate:,.0f} residues/s",
            "reached": rate >= LEAST_RATE,
        },
    ]


if __name__ == "__main__":
    typer.run(main)
