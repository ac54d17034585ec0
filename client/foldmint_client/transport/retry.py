"""Retries of calls that the server rejected for now, after the pause that it asked for."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from foldmint_client.connection import Retry
from foldmint_client.errors import Overloaded
from foldmint_client.transport.common import AsyncSleep, Sleep

T = TypeVar("T")
Clock = Callable[[], float]


def call_with_retries(
    call: Callable[[float], T], seconds: float, retry: Retry, sleep: Sleep, clock: Clock = time.monotonic
) -> T:
    """Make a call, with retries, within so many seconds; each try is given the seconds that are left.

    It is retried after the pause that the server asked for, `Retry.refused_attempts` tries in all. Raises Overloaded
    if the server asked for none, or for more than is left.
    """
    ends, tries = clock() + seconds, 0
    while True:
        try:
            return call(max(ends - clock(), 0.001))
        except Overloaded as error:
            tries += 1
            sleep(_pause(error, tries, ends - clock(), retry))


async def await_with_retries(
    call: Callable[[float], Awaitable[T]],
    seconds: float,
    retry: Retry,
    sleep: AsyncSleep,
    clock: Clock = time.monotonic,
) -> T:
    """The same for a coroutine."""
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
