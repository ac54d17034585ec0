"""Rate limits in residues: each caller's token has a bucket that fills at its rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from foldmint_server.errors import RateLimited
from foldmint_server.security.authorization import CALLER, Caller
from foldmint_server.security.bearer_tokens import Rate


class TokenBucket:
    """Residues that may be requested. It fills at the rate, up to the burst.

    A request larger than the burst is admitted when the bucket is full, and leaves a debt that later requests wait for:
    the rate holds over time, and no request is rejected for ever.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate, self._level, self._at = rate, rate.burst, now

    def take(self, residues: int, now: float) -> float:
        """0 if the residues were taken at this time, in seconds; else the seconds until they could be."""
        elapsed = max(0.0, now - self._at)
        self._level = min(self.rate.burst, self._level + elapsed * self.rate.residues_per_second)
        self._at = max(self._at, now)
        lacking = min(float(residues), self.rate.burst) - self._level
        if lacking > 1e-6:
            return lacking / self.rate.residues_per_second
        self._level -= residues
        return 0.0


class ResidueRateLimiter:
    """The buckets of all callers with a rate, by name; for one event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        limited: Callable[[], object] = lambda: None,
    ) -> None:
        """limited: is called for each rejected structure."""
        self._clock, self._sleep, self._limited = clock, sleep, limited
        self._buckets: dict[str, TokenBucket] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def admit(self, residues: int, *, wait: bool) -> None:
        """Take residues from the bucket of who calls. wait: until there are enough, in the order of asking.

        Raises RateLimited, unless it is to wait.
        """
        caller = CALLER.get()
        if caller.rate is None or residues == 0:
            return
        if not wait:
            seconds = self._take(caller, caller.rate, residues)
            if seconds:
                self._limited()
                raise RateLimited(
                    f"{caller.name} has used up its {caller.rate.residues_per_second:g} residues a second", seconds
                )
            return
        async with self._turns.setdefault(caller.name, asyncio.Lock()):
            while seconds := self._take(caller, caller.rate, residues):
                await self._sleep(seconds)

    def _take(self, caller: Caller, rate: Rate, residues: int) -> float:
        now = self._clock()
        bucket = self._buckets.get(caller.name)
        if bucket is None or bucket.rate != rate:  # the file of tokens may have changed
            bucket = self._buckets[caller.name] = TokenBucket(rate, now)
        return bucket.take(residues, now)
