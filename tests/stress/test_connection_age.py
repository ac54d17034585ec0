"""Connections that the server ends at a short age: jobs over one stream continue on the next, whole and in order."""

import asyncio
from collections.abc import Iterator

import pytest

from benchmarks.stress.jobs import Account, Stretch, collect, collect_async, stretches
from benchmarks.stress.proxy import Faults, FaultyProxy
from foldmint_client import AsyncClient, Client, Retry
from helpers.support import RunningServer, metrics_of, running_server

STRUCTURES, CONNECTIONS = 400, 6
RETRY = Retry(initial_backoff=0.05)


@pytest.fixture(scope="module")
def pool() -> list[Stretch]:
    return stretches((64, 96, 128), 61)


@pytest.fixture(scope="module")
def short_lived() -> Iterator[RunningServer]:
    """A server whose connections take new calls for half a second, and are cut 0.2 s later."""
    with running_server("--max-connection-age-seconds", "0.5", "--drain-seconds", "0.2", "--threads", "1") as server:
        yield server


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_continues_on_the_next_connection(short_lived: RunningServer, pool: list[Stretch], kind: str) -> None:
    account = Account(pool)
    # A line that only counts connections.
    with FaultyProxy(short_lived.address, Faults()) as line:
        structures = account.structures(STRUCTURES, lambda: line.done["connections"] >= CONNECTIONS)
        if kind == "sync":
            with Client(line.address, retry=RETRY) as client:
                collect(account, client.tokenize_many(structures, in_flight=16))
        else:

            async def run() -> None:
                async with AsyncClient(line.address, retry=RETRY) as client:
                    await collect_async(account, client.tokenize_many(structures, in_flight=16))

            asyncio.run(run())
        assert line.done["connections"] >= CONNECTIONS
    assert account.whole, str(account)
    assert account.asked >= STRUCTURES
    # What was cut off is not worked on for nobody.
    assert metrics_of(short_lived)["foldmint_requests_in_flight"] == 0


def test_single_calls_do_not_notice(short_lived: RunningServer, pool: list[Stretch]) -> None:
    account = Account(pool)
    with FaultyProxy(short_lived.address, Faults()) as line, Client(line.address, retry=RETRY) as client:
        for number, structure in account.structures(50, lambda: line.done["connections"] >= CONNECTIONS):
            account.take(number, client.tokenize(structure))
        assert line.done["connections"] >= CONNECTIONS
    assert account.whole, str(account)
