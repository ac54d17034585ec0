"""Limits on streams: how many a caller may have, structures of each, and how long it may neither send nor read."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.errors import ServerError, Stopping, StreamLimitReached, TooManyStreams
from foldmint_server.rpc.admission.peers import network_of
from foldmint_server.settings import Settings

Ended = Callable[[str], None]
"""Called with the reason for which a stream is ended."""


@dataclass(frozen=True)
class StreamLimits:
    """in_flight: structures of a stream that are worked on at a time. structures: of a stream in all. per_caller:
    streams open at a time. idle_seconds: without a request, while nothing is worked on. send_seconds: for which an
    answer may not be taken.
    """

    in_flight: int
    structures: int = 1_000_000
    per_caller: int = 256
    idle_seconds: float = 600.0
    send_seconds: float = 300.0

    @classmethod
    def from_settings(cls, settings: Settings) -> "StreamLimits":
        """The limits of the settings."""
        return cls(
            settings.max_stream_in_flight,
            settings.max_stream_structures,
            settings.max_streams_per_caller,
            settings.stream_idle_seconds,
            settings.send_timeout_seconds,
        )


class OpenStreams:
    """The streams that each caller has open."""

    def __init__(self, most: int, ended: Ended) -> None:
        self._most, self._ended = most, ended
        self._open: Counter[str] = Counter()

    @contextmanager
    def opened(self, caller: str) -> Iterator[None]:
        """Count a stream while it is open. Raises TooManyStreams."""
        if self._open[caller] >= self._most:
            self._ended("too_many_streams")
            raise TooManyStreams(f"{self._most} streams are open; a caller may have no more at a time")
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


class Requests:
    """The requests of a stream, up to their end, the server's, or that of the caller's time or number.

    working: whether a structure of the stream is in flight. over: why nothing more was taken, if it was not the
    caller's own end.
    """

    def __init__(
        self,
        items: AsyncIterator[pb.TokenizeStreamRequest],
        stop: asyncio.Event,
        limits: StreamLimits,
        working: Callable[[], bool],
        ended: Ended,
    ) -> None:
        self.over: ServerError | None = None
        self._items, self._stop, self._limits, self._working, self._ended = items, stop, limits, working, ended
        # While a request is waited for.
        self._waiting: asyncio.Timeout | None = None
        self._since = 0.0

    async def __aiter__(self) -> AsyncIterator[pb.TokenizeStreamRequest]:
        # One task for all requests: one for each would cost more than reading it does.
        watch = asyncio.create_task(self._watch())
        count = 0
        try:
            while (item := await self._following()) is not None:
                if count == self._limits.structures:
                    self._ended("too_many_structures")
                    self.over = StreamLimitReached(f"the stream had its {count} structures; the others were not taken")
                    return
                count += 1
                yield item
        finally:
            watch.cancel()

    async def _following(self) -> pb.TokenizeStreamRequest | None:
        """The next request, or nothing if no more are taken."""
        if self._stop.is_set():
            self.over = _stopping()
        if self.over is not None:
            return None
        try:
            async with asyncio.timeout(None) as self._waiting:
                self._since = asyncio.get_running_loop().time()
                return await anext(self._items, None)
        except TimeoutError:
            if self.over is None:
                raise
            return None
        finally:
            self._waiting = None

    async def _watch(self) -> None:
        """Once the server stops, or the caller was idle for too long: wait for no more requests."""
        loop, seconds = asyncio.get_running_loop(), self._limits.idle_seconds
        until = loop.time() + seconds
        while self.over is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._stop.wait()
            now = loop.time()
            if self._stop.is_set():
                self.over = _stopping()
            elif self._waiting is None or self._working():
                until = now + seconds
            elif now < self._since + seconds:
                until = self._since + seconds
            else:
                self._ended("idle")
                self.over = StreamLimitReached(f"nothing was sent for {seconds:g} seconds")
        if self._waiting is not None:
            self._waiting.reschedule(loop.time())


def _stopping() -> Stopping:
    return Stopping("the server is stopping; what was not answered was not taken")


class ReadWatch:
    """Ends a stream whose caller does not take its answers; HTTP/2 lets it hold them up as long as it likes."""

    def __init__(
        self,
        context: "grpc.aio.ServicerContext[Any, Any]",
        seconds: float,
        ended: Ended,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._seconds, self._ended, self._clock = context, seconds, ended, clock
        self._since: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the stream that the task which calls answers."""
        task = asyncio.current_task()
        watch = asyncio.create_task(self._watch(task)) if task is not None else None
        try:
            yield
        finally:
            if watch is not None and self._since is None:
                watch.cancel()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the sending of an answer."""
        self._since = self._clock()
        yield
        self._since = None

    async def _watch(self, task: "asyncio.Task[Any]") -> None:
        while not task.done():
            await asyncio.sleep(min(1.0, self._seconds / 4))
            if self._since is None or self._clock() - self._since <= self._seconds:
                continue
            self._ended("not_read")
            reason = f"answers were not taken for {self._seconds:g} seconds"
            # The status waits behind the answers, for as long as the caller does; all else is let go of now.
            telling = asyncio.ensure_future(self._context.abort(grpc.StatusCode.UNAVAILABLE, reason))
            telling.add_done_callback(_seen)
            await asyncio.wait({telling}, timeout=0.1)
            task.cancel()
            await asyncio.wait({telling})
            return


def address_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """Where a call comes from, without the port."""
    return network_of(context.peer())


def _seen(task: "asyncio.Future[Any]") -> None:
    """Look at a task's end, which asyncio would complain of if no one did: its reader may have gone."""
    if not task.cancelled():
        task.exception()
