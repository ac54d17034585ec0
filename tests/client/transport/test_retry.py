"""A server that says when to come again is asked then, within the time that the caller gave."""

from typing import TYPE_CHECKING

import grpc
import pytest

from foldmint_client import DeadlineExceeded, Overloaded, Retry
from foldmint_client.transport.retry import call_with_retries

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


def test_it_waits_as_it_is_told(client: "Both", server: "ScriptedServer") -> None:
    server.fail(FULL, retry_after=2.5)
    server.fail(FULL, retry_after=0.25)
    assert client.tokenize(b"5").chains[0].tokens[0] == 5
    server.fail(FULL, retry_after=7)
    assert client.detokenize([1, 2, 3]).chains
    assert server.sleeps == [2.5, 0.25, 7]


def test_it_does_not_wait_for_what_comes_too_late(client: "Both", server: "ScriptedServer") -> None:
    server.fail(FULL, retry_after=3600)
    with pytest.raises(Overloaded) as caught:
        client.tokenize(b"5", timeout=30)
    assert caught.value.retry_after == 3600
    assert server.sleeps == []


def test_it_does_not_wait_where_it_is_told_nothing(client: "Both", server: "ScriptedServer") -> None:
    server.fail(FULL)
    with pytest.raises(Overloaded) as caught:
        client.tokenize(b"5")
    assert caught.value.retry_after is None
    assert server.sleeps == []


def test_it_gives_up_in_the_end(server: "ScriptedServer") -> None:
    server.fail(FULL, times=9, retry_after=1)
    client = server.both("sync", retry=Retry(refused_attempts=3))
    with pytest.raises(Overloaded):
        client.tokenize(b"5")
    assert server.sleeps == [1, 1]


def test_all_tries_share_the_time_given() -> None:
    now, given = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def call(left: float) -> int:
        given.append(left)
        now[0] += 2
        if len(given) < 3:
            raise Overloaded("full", 3)
        raise DeadlineExceeded("late")

    with pytest.raises(DeadlineExceeded):
        call_with_retries(call, 20, Retry(), sleep, lambda: now[0])
    assert given == [20, 15, 10]
    given.clear()
    with pytest.raises(Overloaded):
        call_with_retries(call, 5, Retry(), sleep, lambda: now[0])
    assert given == [5]
