"""The local engine: worker processes on this machine, each replaced if it dies."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from foldmint_bulk import storage
from foldmint_bulk.engines.base import TRIES
from foldmint_bulk.errors import WorkerFailed
from foldmint_bulk.job import Job
from foldmint_bulk.output.records import Record, create_record, read_record
from foldmint_bulk.processes import Child, ChildDied
from foldmint_bulk.unit import Unit
from foldmint_bulk.worker import Progress, WorkerSettings

_MODULE = "foldmint_bulk.engines.worker_process"


@dataclass(frozen=True)
class _Failed:
    """Why a thread stopped."""

    error: Exception


def run(
    job: Job,
    units: Sequence[Unit],
    workers: int,
    settings: WorkerSettings,
    report: Callable[[Progress], object] = lambda _: None,
) -> Generator[Record]:
    """The records of units, as they are done; see `engines.base.Engine`.

    A worker that dies is replaced, and its unit is done again, by `TRIES` workers at most; then the unit is recorded as
    failed. Raises WorkerFailed if workers cannot start, or report an error that another unit would have too.
    """
    pool = _Pool(job, units, min(workers, len(units)), settings, report)
    try:
        yield from pool.records()
    finally:
        pool.close()


class _Pool:
    """Threads, each with a worker process of its own."""

    def __init__(
        self,
        job: Job,
        units: Sequence[Unit],
        workers: int,
        settings: WorkerSettings,
        report: Callable[[Progress], object],
    ) -> None:
        self._job, self._settings, self._report = job, settings, report
        self._count = len(units)
        self._waiting = iter(units)
        self._results: queue.Queue[Record | _Failed] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._children: set[Child] = set()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def records(self) -> Generator[Record]:
        """The records, as they come."""
        for _ in range(self._count):
            result = self._results.get()
            if isinstance(result, _Failed):
                raise result.error
            yield result

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.close()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        """Do one unit after another."""
        child: Child | None = None
        try:
            while (unit := self._next()) is not None:
                for attempt in range(TRIES):
                    child = child or self._start(number)
                    try:
                        self._results.put(self._done(child, unit))
                        break
                    except ChildDied as died:
                        self._end(child)
                        child = None
                        if self._closed:
                            return
                        if attempt == TRIES - 1:
                            self._results.put(self._failed(unit, died))
        except Exception as error:  # noqa: BLE001 (raised where the records are wanted)
            self._results.put(_Failed(error))
        finally:
            self._end(child)

    def _next(self) -> Unit | None:
        with self._lock:
            return None if self._closed else next(islice(self._waiting, 1), None)

    def _done(self, child: Child, unit: Unit) -> Record:
        child.send(unit.row())
        while True:
            answer = child.receive()
            if "record" in answer:
                return Record.of(answer["record"])
            if "error" in answer:
                raise WorkerFailed(answer["error"])
            self._report(Progress(*answer["progress"]))

    def _failed(self, unit: Unit, died: ChildDied) -> Record:
        """Record that a unit failed; another process may have done it."""
        files = storage.open_output(self._job.out)
        record = Record(unit.id, error=f"{unit.name}: its worker {died}, {TRIES} times", failures={})
        try:
            create_record(files, record)
        except FileExistsError:
            return read_record(files, unit.id) or record
        return record

    def _start(self, number: int) -> Child:
        """A worker that has loaded the model. Raises WorkerFailed."""
        for attempt in range(TRIES):
            with self._lock:
                if self._closed:
                    raise WorkerFailed("the workers were ended")
                child = Child(_MODULE)
                self._children.add(child)
            try:
                child.send({"out": self._job.out, **asdict(self._settings), "number": number})
                answer = child.receive()
            except ChildDied as error:
                self._end(child)
                if attempt == TRIES - 1:
                    raise WorkerFailed(f"a worker process cannot start: it {error}, {TRIES} times") from error
            else:
                if "ready" in answer:
                    return child
                self._end(child)
                raise WorkerFailed(answer["error"])
        raise AssertionError("the last attempt returns or raises")

    def _end(self, child: Child | None) -> None:
        if child is not None:
            with self._lock:
                self._children.discard(child)
            child.close()
