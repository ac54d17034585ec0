"""A TCP proxy that randomly cuts, delays and throttles connections, from a seed."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_CHUNK = 16 * 1024


@dataclass(frozen=True)
class Faults:
    """What the proxy does to a connection.

    cut_bytes: after how many bytes, both ways together, it is cut: between this and twice as many; 0: never. Half the
    cuts are resets, half close it as if in order. refused: share of new connections that are closed at once,
    never more than two in a row. delay:
    seconds, at most, that a piece of up to 16 KiB is held back. pause: share of pieces that are held back for
    `pause_seconds`. bytes_per_second: of each direction; 0: as fast as it goes.
    """

    cut_bytes: int = 0
    refused: float = 0.0
    delay: float = 0.0
    pause: float = 0.0
    pause_seconds: float = 0.0
    bytes_per_second: int = 0


class FaultyProxy:
    """Listens on a port of its own, in a thread, while it is entered. address: HOST:PORT.

    done: how often it did what, by name: `connections`, `cuts`, `refusals`, `delays`, `pauses`. faults may be exchanged
    at any time, for what then goes through.
    """

    def __init__(self, upstream: str, faults: Faults, seed: int = 0) -> None:
        self.faults, self.address = faults, ""
        self.done: Counter[str] = Counter()
        host, _, port = upstream.rpartition(":")
        self._upstream = host, int(port)
        self._refused = 0  # in a row
        self._random = random.Random(seed)  # noqa: S311 (chance, not secrets)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut_all(self) -> None:
        """Cut every connection that there is now."""

        async def cut() -> None:
            for task in self._connections:
                task.cancel()

        self._call(cut())

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 (whatever it returns)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _stop(self) -> None:
        self._server.close()
        for task in [*self._connections]:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.done["connections"] += 1
        ends = [writer]
        reset = True
        try:
            if self._refused < 2 and self._random.random() < self.faults.refused:
                self._refused += 1
                self.done["refusals"] += 1
                return
            self._refused = 0
            there, back = await asyncio.open_connection(*self._upstream)
            ends.append(back)
            least = self.faults.cut_bytes
            budget = _Budget(self._random.randint(least, 2 * least) if least else None)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pump(reader, back, budget))
                ways.create_task(self._pump(there, writer, budget))
        except* _Cut:
            self.done["cuts"] += 1
            reset = self._random.random() < 0.5
        except* (OSError, asyncio.CancelledError):
            pass  # one end has closed, or the proxy is stopping
        finally:
            for end in ends:
                if reset:
                    end.transport.abort()
                else:
                    end.close()
            self._connections.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: "_Budget") -> None:
        while piece := await source.read(_CHUNK):
            faults = self.faults
            seconds = 0.0
            if faults.delay:
                seconds += self._random.uniform(0, faults.delay)
                self.done["delays"] += 1
            if faults.pause and self._random.random() < faults.pause:
                seconds += faults.pause_seconds
                self.done["pauses"] += 1
            if faults.bytes_per_second:
                seconds += len(piece) / faults.bytes_per_second
            if seconds:
                await asyncio.sleep(seconds)
            piece, cut = budget.spend(piece)
            sink.write(piece)
            await sink.drain()
            if cut:
                raise _Cut
        if sink.can_write_eof():
            sink.write_eof()


class _Cut(Exception):
    """The connection has carried what it may."""


class _Budget:
    """Bytes that a connection may still carry; None: any number."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    def spend(self, piece: bytes) -> tuple[bytes, bool]:
        """What of a piece is carried, in the middle of a frame if it comes so, and whether that was the last."""
        if self._left is None:
            return piece, False
        carried = piece[: self._left]
        self._left -= len(carried)
        return carried, self._left == 0
