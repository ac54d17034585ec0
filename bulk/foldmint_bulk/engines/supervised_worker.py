"""A worker in a process of its own, which is replaced if it dies."""

import threading
from collections.abc import Callable
from dataclasses import asdict

from foldmint_bulk import storage
from foldmint_bulk.engines.base import TRIES
from foldmint_bulk.errors import WorkerFailed
from foldmint_bulk.job import Job
from foldmint_bulk.output.records import Record, create_record, read_record
from foldmint_bulk.processes import Child, ChildDied
from foldmint_bulk.unit import Unit
from foldmint_bulk.worker import Progress, WorkerSettings

_MODULE = "foldmint_bulk.engines.worker_process"


class SupervisedWorker:
    """Does units in a process, one after another; to be closed. The process starts with the first unit.

    report: called with what was done since its last call. `close` may be called from another thread.
    """

    def __init__(
        self, job: Job, settings: WorkerSettings, report: Callable[[Progress], object] = lambda _: None
    ) -> None:
        self._job, self._settings, self._report = job, settings, report
        self._lock = threading.Lock()
        self._closed = False
        self._child: Child | None = None

    def __call__(self, unit: Unit) -> Record:
        """Do a unit, and return its record.

        If the process dies, another one does the unit again, `TRIES` processes at most; then the unit is recorded as
        failed. Raises WorkerFailed if a process cannot start, or reports an error that another unit would have too, or
        if the worker was closed.
        """
        for attempt in range(TRIES):
            child = self._child or self._start()
            try:
                return self._done(child, unit)
            except ChildDied as died:
                self._end(child)
                if self._closed:
                    raise WorkerFailed("the worker was closed") from died
                last = died
                if attempt == TRIES - 1:
                    break
        return self._failed(unit, last)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            child = self._child
        if child is not None:
            child.close()

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
        record = Record(unit.id, error=f"its worker {died}, {TRIES} times", source=unit.name)
        try:
            create_record(files, record)
        except FileExistsError:
            return read_record(files, unit.id) or record
        return record

    def _start(self) -> Child:
        """A process that has loaded the model. Raises WorkerFailed."""
        for attempt in range(TRIES):
            with self._lock:
                if self._closed:
                    raise WorkerFailed("the worker was closed")
                child = self._child = Child(_MODULE)
            try:
                child.send({"out": self._job.out, **asdict(self._settings)})
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

    def _end(self, child: Child) -> None:
        with self._lock:
            self._child = None
        child.close()
