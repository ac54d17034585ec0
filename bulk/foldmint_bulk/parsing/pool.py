"""Parsers: processes of a worker's own, each of which may die of a structure."""

import queue
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from foldmint_bulk.errors import UnreadableInput, WorkerFailed
from foldmint_bulk.inputs.base import RawStructure, Unreadable
from foldmint_bulk.parsing.messages import KILLED, UNREADABLE, Failure, Parsed, parsed_of, request_of
from foldmint_bulk.processes import Child, ChildDied, TimedOut

_TRIES = 3
"""Parsers that may die of a structure: a process may also be killed from outside."""
_AHEAD = 16
"""Structures a parser, read ahead of the encoder."""
_START_SECONDS = 300.0


@dataclass(frozen=True)
class ParserLimits:
    """Of one parser. memory: bytes. seconds: that a structure may take."""

    memory: int = 4 * 2**30
    seconds: float = 120.0


_Task = tuple[RawStructure, "Future[Parsed | Failure]"]


class ParserPool:
    """Parses structures in processes; to be closed.

    A structure whose parser dies is tried again in new ones, alone, and then it is a failure of the kind `Killed`; the
    other structures are parsed all the same.
    """

    def __init__(self, count: int, limits: ParserLimits, reading: str) -> None:
        self._count, self._limits, self._reading = count, limits, reading
        self._tasks: queue.Queue[_Task | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._work, name=f"parser-{i}", daemon=True) for i in range(count)]
        self._children: set[Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        with self._lock:
            return [child.pid for child in self._children]

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.close()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def parse(self, structures: Iterable[RawStructure], whole: str) -> Generator[Parsed | Failure]:
        """The structures or failures, in order; they are read and parsed ahead of the caller, by a bounded number.

        whole: the source of a failure of reading, after which there are no more structures.
        """
        ordered: queue.Queue[Future[Parsed | Failure] | None] = queue.Queue(self._count * _AHEAD)
        stopped = threading.Event()
        reader = threading.Thread(
            target=self._read, args=(structures, whole, ordered, stopped), name="reader", daemon=True
        )
        reader.start()
        try:
            while (future := ordered.get()) is not None:
                yield future.result()
        finally:
            stopped.set()
            while reader.is_alive():
                try:
                    ordered.get(timeout=0.05)
                except queue.Empty:
                    continue
            reader.join()

    def _read(
        self,
        structures: Iterable[RawStructure],
        whole: str,
        ordered: "queue.Queue[Future[Parsed | Failure] | None]",
        stopped: threading.Event,
    ) -> None:
        try:
            for raw in structures:
                future: Future[Parsed | Failure] = Future()
                if isinstance(raw.content, Unreadable):
                    future.set_result(Failure(raw.source, UNREADABLE, raw.content.reason))
                else:
                    self._tasks.put((raw, future))
                ordered.put(future)
                if stopped.is_set():
                    return
        except UnreadableInput as error:
            future = Future()
            future.set_result(Failure(whole, UNREADABLE, str(error)))
            ordered.put(future)
        except Exception as error:  # noqa: BLE001 (raised where the structures are wanted)
            future = Future()
            future.set_exception(error)
            ordered.put(future)
        finally:
            ordered.put(None)

    def _work(self) -> None:
        """Parse in one process after another, in a thread of its own."""
        child: Child | None = None
        while (task := self._tasks.get()) is not None:
            raw, future = task
            for attempt in range(_TRIES):
                try:
                    child = child or self._start()
                    child.send(request_of(raw))
                    future.set_result(parsed_of(raw.source, child.receive(self._limits.seconds)))
                    break
                except TimedOut:
                    self._end(child)
                    child = None
                    reason = f"parsing it takes longer than {self._limits.seconds:g} seconds"
                    future.set_result(Failure(raw.source, KILLED, reason))
                    break
                except ChildDied as died:
                    self._end(child)
                    child = None
                    if self._closed or attempt == _TRIES - 1:
                        future.set_result(Failure(raw.source, KILLED, f"its parser {died}, {_TRIES} times"))
                        break
                except Exception as error:  # noqa: BLE001 (raised where the structure is wanted)
                    future.set_exception(error)
                    break
        self._end(child)

    def _start(self) -> Child:
        with self._lock:
            if self._closed:
                raise WorkerFailed("the parsers were ended")
            child = Child("foldmint_bulk.parsing.child", {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
            self._children.add(child)
        child.send(
            {"memory": self._limits.memory, "seconds": self._limits.seconds, "reading": self._reading},
        )
        return child

    def _end(self, child: Child | None) -> None:
        if child is not None:
            with self._lock:
                self._children.discard(child)
            child.close()
