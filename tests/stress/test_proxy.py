"""Between client and server a line that is cut, delayed and throttled: jobs are done whole all the same."""

import asyncio
import time

import pytest

from benchmarks.stress.jobs import Account, Stretch, collect, collect_async, stretches
from benchmarks.stress.proxy import Faults, FaultyProxy
from foldmint_client import AsyncClient, Client, Retry
from helpers.support import RunningServer, metrics_of

# The most that a client has on its way, 8 x 48 residues of 38 bytes, is less than any connection carries.
IN_FLIGHT, LENGTHS = 8, (16, 32, 48)
RETRY = Retry(initial_backoff=0.2)
LINES = (
    Faults(cut_bytes=40_000),
    Faults(cut_bytes=40_000, refused=0.2, delay=0.01),
    Faults(bytes_per_second=200_000, pause=0.05, pause_seconds=0.2),
)


@pytest.fixture(scope="module")
def pool() -> list[Stretch]:
    return stretches(LENGTHS, 61)


def job(kind: str, address: str, account: Account, count: int) -> None:
    if kind == "sync":
        with Client(address, retry=RETRY) as client:
            collect(account, client.tokenize_many(account.structures(count), in_flight=IN_FLIGHT))
        return

    async def run() -> None:
        async with AsyncClient(address, retry=RETRY) as client:
            await collect_async(account, client.tokenize_many(account.structures(count), in_flight=IN_FLIGHT))

    asyncio.run(run())


@pytest.mark.parametrize(("kind", "line"), [("sync", 0), ("async", 1), ("sync", 2)])
def test_a_job_is_whole(server: RunningServer, pool: list[Stretch], kind: str, line: int) -> None:
    account = Account(pool)
    with FaultyProxy(server.address, LINES[line], seed=7) as proxy:
        job(kind, proxy.address, account, 200)
        done = proxy.done
    assert account.whole, str(account)
    assert account.asked == 200
    assert done["cuts"] >= 3 if LINES[line].cut_bytes else done["pauses"] >= 1


def test_what_was_cut_off_does_not_stay_with_the_server(server: RunningServer, pool: list[Stretch]) -> None:
    with FaultyProxy(server.address, Faults()) as proxy, Client(proxy.address, retry=Retry(attempts=1)) as client:
        results = client.tokenize_many(Account(pool).structures(10**6))
        next(results)
        proxy.cut_all()
        results.close()
    until = time.monotonic() + 60
    while metrics_of(server)["foldmint_requests_in_flight"]:
        assert time.monotonic() < until, "structures of a connection that is gone are still worked on"
        time.sleep(0.1)


def test_a_line_so_long_that_to_connect_takes_half_a_second(server: RunningServer, pool: list[Stretch]) -> None:
    with FaultyProxy(server.address, Faults(pause=1, pause_seconds=0.3)) as proxy, Client(proxy.address) as client:
        assert client.model().model == "foldmint"
    assert proxy.done["connections"] == 1
