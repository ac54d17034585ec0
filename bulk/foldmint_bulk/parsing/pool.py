"""Parsers: processes of a worker's own, each of which may die of a structure."""

import queue
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self, cast

from foldmint_bulk.errors import UnreadableInput, WorkerFailed
from foldmint_bulk.inputs.base import RawStructure, Unreadable
from foldmint_bulk.parsing.results import FAILED, INVALID, KILLED, UNREADABLE, Failure, Parsed
from foldmint_tokenizer.errors import InvalidStructure, ParserKilled
from foldmint_tokenizer.parsing.process import ParserProcess
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.options import Format, Reading, ReadOptions

_TRIES = 3
"""Parsers that may die of a structure: a process may also be killed from outside."""
_AHEAD = 16
"""Structures a parser, read ahead of the encoder."""


@dataclass(frozen=True)
class ParserLimits:
    """Of one parser. memory: bytes that a structure may need. seconds: that it may take."""

    memory: int = 4 * 2**30
    seconds: float = 120.0


_Task = tuple[RawStructure, "Future[Parsed | Failure]"]


class ParserPool:
    """Parses structures in processes; to be closed.

    A structure whose parser dies is tried again in new ones, alone, and then it is a failure of the kind `Killed`; the
    other structures are parsed all the same.
    """

    def __init__(self, count: int, limits: ParserLimits, reading: Reading) -> None:
        self._count, self._reading = count, reading
        self._tasks: queue.Queue[_Task | None] = queue.Queue()
        self._processes = [
            ParserProcess(seconds=limits.seconds, memory_bytes=limits.memory, module="foldmint_bulk.parsing.child")
            for _ in range(count)
        ]
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(process,), name=f"parser-{number}", daemon=True)
            for number, process in enumerate(self._processes)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._closed = True
        for process in self._processes:
            process.close()
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

    def _work(self, process: ParserProcess) -> None:
        """Parse in one process after another, in a thread of its own."""
        while (task := self._tasks.get()) is not None:
            raw, future = task
            try:
                future.set_result(self._parsed(process, raw))
            except Exception as error:  # noqa: BLE001 (raised where the structure is wanted)
                future.set_exception(error)

    def _parsed(self, process: ParserProcess, raw: RawStructure) -> Parsed | Failure:
        if isinstance(raw.content, Unreadable):
            return Failure(raw.source, UNREADABLE, raw.content.reason)
        for attempt in range(_TRIES):
            try:
                _start(process)
                return self._read_by(process, raw, raw.content)
            except ParserKilled as error:
                if error.limit:
                    return Failure(raw.source, KILLED, str(error))
                if self._closed or attempt == _TRIES - 1:
                    return Failure(raw.source, KILLED, f"{error}, {_TRIES} times")
        raise AssertionError("the last try returns")

    def _read_by(
        self, process: ParserProcess, raw: RawStructure, content: bytes | tuple[Backbone, ...]
    ) -> Parsed | Failure:
        options = ReadOptions(
            format=cast("Format | None", raw.format or None),  # checked as `InputOptions`
            reading=self._reading,
            chains=raw.chains,
        )
        try:
            return Parsed(raw.source, *process.parse(content, options, name=raw.file_name))
        except InvalidStructure as error:
            return Failure(raw.source, INVALID, str(error))
        except RuntimeError as error:
            return Failure(raw.source, FAILED, str(error))


def _start(process: ParserProcess) -> None:
    """Start a process. Raises WorkerFailed if it cannot: no structure is to blame."""
    try:
        process.start()
    except RuntimeError as error:
        raise WorkerFailed(str(error)) from error
