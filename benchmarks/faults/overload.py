"""More calls and health watches at once than a server takes: what is refused is told and counted, and probes pass.

    python -m benchmarks overload --json FILE

A real server with its default limits. First many unary calls at once, once each, as a caller without retries makes
them, over three connections and over one; then as many by the asyncio client, which waits as long as it is told; then
health watches over three connections, held open while calls are made. All the while the server is probed over a new
connection each time, as Kubernetes does.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks._common import write
from benchmarks.stress.overload import Prober, burst, counted, watching
from benchmarks.stress.servers import KillableServer, wait_until_serving
from foldmint_client import AsyncClient, Backbone, FoldmintError, Retry, Tokens

_CONNECTIONS = 3
_RETRY = Retry(refused_attempts=1000)


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Where the figures go, too.")] = None,
    calls: Annotated[int, typer.Option(help="Unary calls at once.")] = 1600,
    watches: Annotated[int, typer.Option(help="Health watches at once.")] = 1024,
    residues: Annotated[int, typer.Option(help="Of each structure.")] = 16,
) -> None:
    """Print a table; fails if a probe failed, or a refusal was not told or not counted."""
    with KillableServer("--log-level", "error") as server:
        wait_until_serving(server.address)
        burst(server.address, 8, residues=residues)
        floods = [_flooded(server, calls, residues, connections) for connections in (_CONNECTIONS, 1)]
        patient = _patient(server, calls, residues)
        watched = _watched(server, watches, residues)
    rows = [*floods, patient, watched]
    columns = ["load", "tried", "taken", "refused", "with the time to wait", "counted", "otherwise", "probes", "failed"]
    columns += ["slowest probe, s", "s"]
    bars = [
        _bar("probes that failed", sum(row["failed"] for row in rows)),
        _bar("refusals that were not counted", sum(abs(row["refused"] - row["counted"]) for row in rows)),
        _bar("refusals that did not say when to try again", sum(row["refused"] - row["told"] for row in rows)),
        _bar("calls that ended otherwise than answered or refused", sum(row["otherwise"] for row in rows)),
        _bar("structures of the client that waits that were not answered", calls - patient["taken"]),
        _bar("calls not answered while watches were open", watched["unanswered"]),
    ]
    names = (
        "load",
        "tried",
        "taken",
        "refused",
        "told",
        "counted",
        "otherwise",
        "probes",
        "failed",
        "slowest",
        "seconds",
    )
    table = [[row[name] for name in names] for row in rows]
    settings = {"calls": calls, "watches": watches, "connections": _CONNECTIONS, "residues": residues}
    write(
        file,
        {"settings": settings, "tables": [{"title": "Overload", "columns": columns, "rows": table}], "bars": bars},
    )
    for line in [columns, *table]:
        print(*line, sep="\t")
    if failed := [f"{bar['measure']}: {bar['found']}" for bar in bars if not bar["reached"]]:
        sys.exit("\n".join(failed))


def _bar(measure: str, found: int) -> dict[str, Any]:
    return {"measure": measure, "bar": "0", "found": found, "reached": found == 0}


def _flooded(server: KillableServer, calls: int, residues: int, connections: int) -> dict[str, Any]:
    """Unary calls, once each."""
    before, began = _refusals(server), time.monotonic()
    with Prober(server.address) as prober:
        outcomes = burst(server.address, calls, connections, residues)
    taken, refused = outcomes.statuses["OK"], outcomes.statuses["RESOURCE_EXHAUSTED"]
    return {
        "load": f"unary calls, once each, {connections} connection{'s' if connections > 1 else ''}",
        "tried": calls,
        "taken": taken,
        "refused": refused,
        "told": outcomes.told,
        "otherwise": calls - taken - refused,
    } | _measured(server, prober, before, began)


def _patient(server: KillableServer, calls: int, residues: int) -> dict[str, Any]:
    """The same by a client that comes again when it is told to; the refusals are between it and the server."""
    before, began = _refusals(server), time.monotonic()
    structure = Backbone(np.cumsum(np.random.default_rng(0).normal(size=(residues, 3, 3)) * 2, 0))

    async def run() -> list[Tokens | BaseException]:
        async with AsyncClient(server.address, retry=_RETRY, timeout=600) as client:
            tasks = [client.tokenize(structure) for _ in range(calls)]
            return await asyncio.gather(*tasks, return_exceptions=True)

    with Prober(server.address) as prober:
        results = asyncio.run(run())
    taken = sum(isinstance(result, Tokens) for result in results)
    refused = int(_refusals(server) - before)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, FoldmintError):
            raise result
    return {
        "load": "unary calls of the asyncio client",
        "tried": calls,
        "taken": taken,
        "refused": refused,
        "told": refused,
        "otherwise": calls - taken,
    } | _measured(server, prober, before, began)


def _watched(server: KillableServer, watches: int, residues: int) -> dict[str, Any]:
    """Health watches that last, with calls meanwhile."""
    before, began = _refusals(server), time.monotonic()
    with Prober(server.address) as prober, watching(server.address, watches, _CONNECTIONS) as found:
        meanwhile = burst(server.address, 100, residues=residues)
    return {
        "load": f"health watches over {_CONNECTIONS} connections",
        "tried": watches,
        "taken": found.open,
        "refused": found.refused,
        "told": found.told,
        "otherwise": sum(found.others.values()),
        "unanswered": 100 - meanwhile.statuses["OK"],
    } | _measured(server, prober, before, began)


def _measured(server: KillableServer, prober: Prober, before: float, began: float) -> dict[str, Any]:
    return {
        "counted": int(_refusals(server) - before),
        "probes": len(prober.seconds),
        "failed": sum(prober.failed.values()),
        "slowest": round(max(prober.seconds, default=0.0), 2),
        "seconds": round(time.monotonic() - began, 1),
    }


def _refusals(server: KillableServer) -> float:
    """Calls and watches that were refused, by the server's own count."""
    rejects = counted(server.metrics, "foldmint_rejects_total")
    return sum(count for reason, count in rejects.items() if reason.startswith("too_many_"))


if __name__ == "__main__":
    typer.run(main)
