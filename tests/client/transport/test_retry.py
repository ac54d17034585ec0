"""Calls that a server rejects for now are retried when it says so, within the caller's timeout."""

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from foldmint_client import DeadlineExceeded, Overloaded, Retry, Unavailable
from foldmint_client.transport.retry import RetryState, await_with_retries, call_with_retries, server_paced

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_pause_is_the_one_that_the_server_asks_for(client: "Both", server: "ScriptedServer") -> None:
    server.fail(FULL, retry_after=2.5)
    server.fail(FULL, retry_after=0.25)
    assert client.tokenize(b"5").chains[0].tokens[0] == 5
    server.fail(FULL, retry_after=7)
    assert client.detokenize([1, 2, 3]).chains
    assert server.sleeps == [2.5, 0.25, 7]


def test_there_is_no_retry_after_the_deadline(client: "Both", server: "ScriptedServer") -> None:
    server.fail(FULL, retry_after=3600)
    with pytest.raises(Overloaded) as caught:
        client.tokenize(b"5", timeout=30)
    assert caught.value.retry_after == 3600
    assert server.sleeps == []


def test_there_is_no_retry_unless_the_server_asks_for_one(client: "Both", server: "ScriptedServer") -> None:
    server.fail(FULL)
    with pytest.raises(Overloaded) as caught:
        client.tokenize(b"5")
    assert caught.value.retry_after is None
    assert server.sleeps == []


def test_calls_that_http2_refuses_are_retried(server: "ScriptedServer") -> None:
    """More often than calls that fail with UNAVAILABLE, which gRPC's own retries see as well."""
    text = (
        'Stream removed (RST_STREAM (Received RST_STREAM with error code 7 (Refused stream)) {peer:"10.0.0.1:50051"})'
    )
    retry = Retry(attempts=1, initial_backoff=0.01, maximum_backoff=0.02)
    for kind in ("sync", "async"):
        client = server.both(kind, retry=retry)
        server.sleeps.clear()
        server.fail(grpc.StatusCode.UNAVAILABLE, times=8, message=text)
        assert client.tokenize(b"5").chains[0].tokens[0] == 5
        server.fail(grpc.StatusCode.UNAVAILABLE, times=3, message=text)
        assert len(client.many([b"1", b"2"])) == 2
        assert len(server.sleeps) == 11
        assert all(0 < pause < 0.03 for pause in server.sleeps)
        server.fail(grpc.StatusCode.UNAVAILABLE, times=1, message="Received RST_STREAM with error code 77")
        with pytest.raises(Unavailable):
            client.tokenize(b"5")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_calls_that_the_server_drops_are_made_again(server: "ScriptedServer", kind: str) -> None:
    """With what gRPC makes of it, where a flood fills its own queue of calls (tests/stress/test_floods.py)."""
    client = server.both(kind, retry=Retry(attempts=1, initial_backoff=0.01, maximum_backoff=0.02))
    server.fail(grpc.StatusCode.CANCELLED, times=8, message="CANCELLED")
    assert client.tokenize(b"5").chains[0].tokens[0] == 5
    server.fail(grpc.StatusCode.CANCELLED, message="CANCELLED")
    assert client.detokenize([1, 2, 3]).chains
    server.fail(grpc.StatusCode.CANCELLED, times=3, message="CANCELLED")
    assert len(client.many([b"1", b"2"])) == 2
    assert len(server.sleeps) == 12
    server.fail(grpc.StatusCode.CANCELLED, times=20, message="CANCELLED")
    with pytest.raises(Unavailable, match="dropped the call"):
        client.tokenize(b"5")


def test_attempts_are_limited(server: "ScriptedServer") -> None:
    server.fail(FULL, times=9, retry_after=1)
    client = server.both("sync", retry=Retry(refused_attempts=3))
    with pytest.raises(Overloaded):
        client.tokenize(b"5")
    assert server.sleeps == [1, 1]


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_all_attempts_share_the_time_given(driver: str) -> None:
    now, given = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    async def async_sleep(seconds: float) -> None:
        sleep(seconds)

    def call(left: float) -> int:
        given.append(left)
        now[0] += 2
        if len(given) < 3:
            raise Overloaded("full", 3)
        raise DeadlineExceeded("late")

    async def async_call(left: float) -> int:
        return call(left)

    def run(seconds: float) -> int:
        state = server_paced(Retry(), seconds, lambda: now[0])
        if driver == "sync":
            return call_with_retries(call, state, sleep)
        return asyncio.run(await_with_retries(async_call, state, async_sleep))

    with pytest.raises(DeadlineExceeded):
        run(20)
    assert given == [20, 15, 10]
    given.clear()
    with pytest.raises(Overloaded):
        run(5)
    assert given == [5]


def test_backoff_starts_over_after_a_success() -> None:
    retry = Retry(initial_backoff=1, maximum_backoff=60, multiplier=2)
    state = RetryState(retry, 4, (Unavailable,), chance=lambda: 0.5)
    assert [state.record_failure(Unavailable("gone")) for _ in range(4)] == [1, 2, 4, None]
    state.record_success()
    assert state.record_failure(Unavailable("gone")) == 1
    assert state.record_failure(DeadlineExceeded("late")) is None
