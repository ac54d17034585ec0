"""Waiting as the server says, where it refuses a call for now and tells when to come again."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from foldmint_client.connection import Retry
from foldmint_client.errors import Overloaded
from foldmint_client.transport.common import AsyncSleep, Sleep

T = TypeVar("T")
Clock = Callable[[], float]


def patiently(
    call: Callable[[float], T], seconds: float, retry: Retry, sleep: Sleep, clock: Clock = time.monotonic
) -> T:
    """What a call returns, in so many seconds with all its tries; it is given the seconds that it may take.

    It is made again after the pause that the server asked for, `Retry.refused_attempts` times in all. Raises Overloaded
    if the server asked for none, or for more than is left.
    """
    ends, tries = clock() + seconds, 0
    while True:
        try:
            return call(max(ends - clock(), 0.001))
        except Overloaded as error:
            tries += 1
            sleep(_pause(error, tries, ends - clock(), retry))


async def patiently_awaited(
    call: Callable[[float], Awaitable[T]],
    seconds: float,
    retry: Retry,
    sleep: AsyncSleep,
    clock: Clock = time.monotonic,
) -> T:
    """The same, of a call that is awaited."""
    ends, tries = clock() + seconds, 0
    while True:
        try:
            return await call(max(ends - clock(), 0.001))
        except Overloaded as error:
            tries += 1
            await sleep(_pause(error, tries, ends - clock(), retry))


def _pause(error: Overloaded, tries: int, left: float, retry: Retry) -> float:
    """Seconds to wait. Raises the error where that would not help."""
    if error.retry_after is None or tries >= retry.refused_attempts or error.retry_after >= left:
        raise error
    return error.retry_after
