"""Retries: one rule for when to make another attempt, without input or output, and a sync and an async driver."""

import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from foldmint_client.connection import Retry
from foldmint_client.errors import DroppedCall, FoldmintError, Overloaded, RefusedStream
from foldmint_client.transport.common import AsyncSleep, Sleep

T = TypeVar("T")
Clock = Callable[[], float]
Chance = Callable[[], float]

_SHORTEST = 0.001  # seconds that an attempt is given at least


class RetryState:
    """Decides after each failed attempt whether there is another, and after which pause.

    retry: the pauses, and how many attempts there are in all if the server says when to make the next one. attempts:
    how many otherwise. retryable: the errors that another attempt may not meet.
    server_paced: pause exactly as long as the server asks, and give up if it does not ask, unless the call was refused
    or dropped below its own code, where it cannot ask; by default the pause is that of `retry`, or the server's where
    that is longer.
    seconds: time for all attempts together. longest_pause: in seconds; gives up if the server asks for more.
    """

    def __init__(
        self,
        retry: Retry,
        attempts: int,
        retryable: tuple[type[FoldmintError], ...] = (Overloaded,),
        *,
        server_paced: bool = False,
        seconds: float = math.inf,
        longest_pause: float = math.inf,
        clock: Clock = time.monotonic,
        chance: Chance = random.random,
    ) -> None:
        self._retry, self._attempts, self._retryable = retry, attempts, retryable
        self._server_paced, self._clock, self._chance = server_paced, clock, chance
        self._ends, self._longest_pause = clock() + seconds, longest_pause
        self._failures = 0

    @property
    def seconds_left(self) -> float:
        """Time for the next attempt."""
        return max(self._ends - self._clock(), _SHORTEST)

    def record_success(self) -> None:
        """Count failures from zero again."""
        self._failures = 0

    def record_failure(self, error: FoldmintError) -> float | None:
        """Seconds to wait before the next attempt; None if there is none."""
        self._failures += 1
        asked = error.retry_after if isinstance(error, Overloaded) else None
        refused = isinstance(error, RefusedStream | DroppedCall)
        attempts = self._retry.refused_attempts if refused or asked is not None else self._attempts
        if not isinstance(error, self._retryable) or self._failures >= attempts:
            return None
        if refused or not self._server_paced:
            pause = max(self._retry.backoff(self._failures, self._chance()), asked or 0.0)
        elif asked is None:
            return None
        else:
            pause = asked
        return pause if pause < min(self._ends - self._clock(), self._longest_pause) else None


def server_paced(retry: Retry, seconds: float, clock: Clock = time.monotonic) -> RetryState:
    """Retries of one call that the server rejects for now, within so many seconds."""
    return RetryState(retry, retry.refused_attempts, server_paced=True, seconds=seconds, clock=clock)


def call_with_retries(call: Callable[[float], T], state: RetryState, sleep: Sleep) -> T:
    """What a call returns, or the error of its last attempt; each attempt is given the seconds that are left."""
    while True:
        try:
            return call(state.seconds_left)
        except FoldmintError as error:
            pause = state.record_failure(error)
            if pause is None:
                raise
        if pause:
            sleep(pause)


async def await_with_retries(call: Callable[[float], Awaitable[T]], state: RetryState, sleep: AsyncSleep) -> T:
    """The same for a coroutine."""
    while True:
        try:
            return await call(state.seconds_left)
        except FoldmintError as error:
            pause = state.record_failure(error)
            if pause is None:
                raise
        if pause:
            await sleep(pause)
