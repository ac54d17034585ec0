"""The local engine: worker processes on this machine, each replaced if it dies."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from foldmint_bulk.engines.supervised_worker import SupervisedWorker
from foldmint_bulk.job import Job
from foldmint_bulk.output.records import Record
from foldmint_bulk.unit import Unit
from foldmint_bulk.worker import Progress, WorkerSettings


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
        self._count = len(units)
        self._waiting = iter(units)
        self._results: queue.Queue[Record | _Failed] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._workers = [SupervisedWorker(job, replace(settings, number=number), report) for number in range(workers)]
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"worker-{number}", daemon=True)
            for number, worker in enumerate(self._workers)
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
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: SupervisedWorker) -> None:
        """Do one unit after another."""
        try:
            while (unit := self._next()) is not None:
                self._results.put(worker(unit))
        except Exception as error:  # noqa: BLE001 (raised where the records are wanted)
            self._results.put(_Failed(error))
        finally:
            worker.close()

    def _next(self) -> Unit | None:
        with self._lock:
            return None if self._closed else next(islice(self._waiting, 1), None)
