"""Which units of a job have records, and the summaries of shards as they are completed."""

from collections.abc import Iterable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from foldmint_bulk import storage
from foldmint_bulk.errors import OutputError
from foldmint_bulk.output import records
from foldmint_bulk.output.records import Record
from foldmint_bulk.output.summaries import shard_name, shard_units, summarize, summarized
from foldmint_bulk.unit import SHARD, unit_number
from foldmint_tokenizer.store.storage import Files

_KEPT = 4 * SHARD
"""Records that are kept until their shard is complete; others are read again."""


def recorded(files: Files, total: int, executor: Executor) -> NDArray[np.bool_]:
    """Which units have records, (units,). Folders of records are listed, one request for each without a summary.

    Raises OutputError if there are records of other units.
    """
    done = np.zeros(total, np.bool_)
    for shard in (complete := summarized(files)):
        numbers = shard_units(shard, total)
        done[numbers.start : numbers.stop] = True
    known = {shard_name(shard) for shard in complete}
    folders = [name for name in storage.names(files, records.FOLDER) if name not in known]
    for folder, names in zip(
        folders, executor.map(lambda one: storage.names(files, f"{records.FOLDER}/{one}"), folders), strict=True
    ):
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                number = _number(files, f"{folder}/{name.removesuffix('.json')}")
                if number >= total:
                    raise OutputError(f"{files.path(records.name_of(f'{folder}/{name}'))} is of no unit of this job")
                done[number] = True
    return done


def _number(files: Files, unit: str) -> int:
    try:
        return unit_number(unit)
    except ValueError as error:
        raise OutputError(f"{files.path(records.name_of(unit))} is of no unit of this job") from error


class Tracker:
    """Takes records as they come, and writes the summary of each shard whose last record it is.

    done: (units,), which have records already.
    """

    def __init__(self, files: Files, done: NDArray[np.bool_], executor: Executor) -> None:
        self._files, self._done, self._executor = files, done.copy(), executor
        self._kept: dict[int, Record] = {}

    def add(self, record: Record) -> None:
        """Take a record."""
        number = unit_number(record.unit)
        self._done[number] = True
        if len(self._kept) < _KEPT:
            self._kept[number] = record
        numbers = shard_units(number // SHARD, len(self._done))
        if self._done[numbers.start : numbers.stop].all():
            own = {one: self._kept.pop(one) for one in numbers if one in self._kept}
            summarize(self._files, number // SHARD, len(self._done), own, self._executor)


def left(done: NDArray[np.bool_], numbers: Iterable[int]) -> list[int]:
    """Those of the numbers whose units have no record."""
    return [number for number in numbers if not done[number]]
