"""Rates in residues: what comes at once, what is refused and until when, and what waits."""

import asyncio

import pytest
from google.rpc import error_details_pb2

from foldmint_server.errors import RateLimited, status_of
from foldmint_server.security.authorization import CALLER, Caller
from foldmint_server.security.bearer_tokens import Rate
from foldmint_server.security.rate_limit import ResidueRateLimiter, TokenBucket


class Time:
    """A clock that goes on when someone sleeps."""

    def __init__(self) -> None:
        self.now, self.sleeps = 100.0, 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await asyncio.sleep(0)
        self.now += seconds


def limited(name: str, per_second: float, burst: float) -> Caller:
    return Caller(name, frozenset({"tokenize"}), Rate(per_second, burst))


def test_a_bucket_holds_its_burst_and_fills_at_its_rate() -> None:
    bucket = TokenBucket(Rate(10, 100), now=0.0)
    assert bucket.take(60, 0.0) == 0
    assert bucket.take(40, 0.0) == 0
    assert bucket.take(30, 0.0) == pytest.approx(3)
    assert bucket.take(30, 2.9) == pytest.approx(0.1)
    assert bucket.take(30, 3.0) == 0
    assert bucket.take(100, 1000.0) == 0  # no more than the burst has come together
    assert bucket.take(1, 1000.0) == pytest.approx(0.1)


def test_what_is_larger_than_the_burst_passes_and_is_paid_for() -> None:
    bucket = TokenBucket(Rate(10, 100), now=0.0)
    assert bucket.take(500, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(40.1)
    assert bucket.take(500, 0.0) == pytest.approx(50)
    assert bucket.take(500, 50.0) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(Rate(10, 100), now=1000.0)
    assert bucket.take(100, 1000.0) == 0
    assert bucket.take(10, 0.0) == pytest.approx(1)
    assert bucket.take(10, 1001.0) == 0


async def test_each_caller_has_a_bucket_of_its_own() -> None:
    refused: list[None] = []
    time = Time()
    rates = ResidueRateLimiter(time, time.sleep, lambda: refused.append(None))
    CALLER.set(limited("alice", 10, 100))
    await rates.admit(100, wait=False)
    with pytest.raises(RateLimited, match="alice has used up its 10 residues a second") as caught:
        await rates.admit(50, wait=False)
    assert caught.value.seconds == pytest.approx(5)
    assert len(refused) == 1
    CALLER.set(limited("bob", 10, 100))
    await rates.admit(100, wait=False)
    CALLER.set(Caller())
    await rates.admit(10**9, wait=False)
    CALLER.set(limited("alice", 1000, 1000))  # the file has changed
    await rates.admit(1000, wait=False)


async def test_streams_wait_in_the_order_of_asking() -> None:
    time = Time()
    rates = ResidueRateLimiter(time, time.sleep)
    CALLER.set(limited("alice", 10, 100))
    order: list[int] = []

    async def ask(number: int) -> None:
        await rates.admit(100, wait=True)
        order.append(number)

    await asyncio.gather(*(ask(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert time.now == pytest.approx(140)


async def test_who_gives_up_leaves_its_turn() -> None:
    time = Time()
    rates = ResidueRateLimiter(time, lambda _: asyncio.sleep(3600))
    CALLER.set(limited("alice", 10, 100))
    await rates.admit(100, wait=True)
    waiting = [asyncio.create_task(rates.admit(100, wait=True)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    time.now += 10
    await asyncio.wait_for(rates.admit(100, wait=True), 5)


def test_a_refusal_tells_when_to_come_again() -> None:
    status = status_of(RateLimited("too many", 2.5001))
    assert status.code == 8
    (detail,) = status.details
    info = error_details_pb2.RetryInfo()
    assert detail.Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 2501
