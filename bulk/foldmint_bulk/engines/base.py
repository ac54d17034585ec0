"""What an engine does: it runs units on workers, and yields their records."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from foldmint_bulk.job import Job
from foldmint_bulk.output.records import Record
from foldmint_bulk.unit import Unit
from foldmint_bulk.worker import Progress, WorkerSettings

TRIES = 3
"""Workers that may die of a unit, before it is recorded as failed."""


class Engine(Protocol):
    """Runs units. Closing the generator ends the workers."""

    def __call__(
        self,
        job: Job,
        units: Sequence[Unit],
        workers: int,
        settings: WorkerSettings,
        report: Callable[[Progress], object],
    ) -> Generator[Record]:
        """The records of units, as they are done, each written by a worker or, of failed units, by the engine.

        report: called from any thread with what was done since its last call, where the engine knows. Raises BulkError
        if the job cannot go on.
        """
        ...
