"""Runs a planned job's units on an engine, and finishes the job once every unit has a record."""

from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from foldmint_bulk import storage
from foldmint_bulk.engines.base import Engine
from foldmint_bulk.finishing import finish, reopen
from foldmint_bulk.job import Job, slice_of
from foldmint_bulk.output.completion import Tracker, left, recorded
from foldmint_bulk.output.records import Record
from foldmint_bulk.output.summaries import Summary
from foldmint_bulk.unit import Units
from foldmint_bulk.worker import Progress, WorkerSettings


class Observer(Protocol):
    """Is told how a run goes on; from several threads."""

    def started(self, total: int, done: int) -> None:
        """The run begins. total, done: units of its slice, and those that have records already."""
        ...

    def progressed(self, progress: Progress) -> None:
        """A worker has done a part of a unit."""
        ...

    def recorded(self, record: Record) -> None:
        """A unit has a record."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a run. left: units of the job without a record. summary: of the whole job, if none is left."""

    left: int
    summary: Summary | None


def run(
    job: Job,
    units: Units,
    engine: Engine,
    *,
    workers: int,
    settings: WorkerSettings,
    observer: Observer,
    slice: tuple[int, int] = (0, 1),  # noqa: A002 (the option's name)
    retry_failed: bool = False,
) -> Outcome:
    """Do the units of a slice that have no record, and finish the job if no unit of any slice is left.

    slice: (I, N), of N slices that with number I, from 0 on. retry_failed: do units again that failed, or have failures
    that another try may not. Raises BulkError.
    """
    files = storage.open_output(job.out)
    index, count = slice
    with storage.in_parallel() as executor:
        if retry_failed:
            reopen(files, len(units), executor)
        done = recorded(files, len(units), executor)
        own = slice_of(range(len(units)), index, count)
        numbers = left(done, own)
        observer.started(len(own), len(own) - len(numbers))
        if numbers:
            tracker = Tracker(files, done, executor)
            selected = units.select(numbers)
            with closing(engine(job, selected, workers, settings, observer.progressed)) as records:
                for record in records:
                    tracker.add(record)
                    observer.recorded(record)
            done = recorded(files, len(units), executor)
    missing = len(units) - int(done.sum())
    return Outcome(missing, None if missing else finish(job, len(units)))
