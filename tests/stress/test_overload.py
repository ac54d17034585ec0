"""More calls and health watches than a server takes: it says so and counts it, and no probe fails."""

from collections.abc import Iterator

import pytest

from benchmarks.stress.overload import Prober, burst, counted, watching
from benchmarks.stress.servers import KillableServer, wait_until_serving
from helpers.forking import ForkedKillableServer

CALLS, WATCHES = 1600, 1024


@pytest.fixture(scope="module")
def server() -> Iterator[KillableServer]:
    with ForkedKillableServer() as running:
        wait_until_serving(running.address)
        burst(running.address, 8)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("connections", [4, 1])
def test_many_calls_at_once(server: KillableServer, connections: int) -> None:
    before = counted(server.metrics, "foldmint_rejects_total")["too_many_calls_of_caller"]
    with Prober(server.address) as prober:
        outcomes = burst(server.address, CALLS, connections)
    assert set(outcomes.statuses) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert outcomes.statuses["OK"] >= 512
    refused = outcomes.statuses["RESOURCE_EXHAUSTED"]
    assert outcomes.told == refused
    assert counted(server.metrics, "foldmint_rejects_total")["too_many_calls_of_caller"] == before + refused
    assert prober.seconds
    assert not prober.failed


@pytest.mark.slow
def test_watches_without_end(server: KillableServer) -> None:
    with Prober(server.address) as prober, watching(server.address, WATCHES, connections=3) as watches:
        assert burst(server.address, 100).statuses == {"OK": 100}
        rejects = counted(server.metrics, "foldmint_rejects_total")
    assert (watches.open, watches.refused, watches.told, watches.others) == (128, WATCHES - 128, WATCHES - 128, {})
    assert rejects["too_many_watches_of_caller"] == WATCHES - 128
    assert prober.seconds
    assert not prober.failed
