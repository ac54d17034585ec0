"""Summaries: what the records of a shard say, in one file, written once all of them are there.

A shard is the `SHARD` units whose records share a folder. With summaries, going on with a job and finishing it read one
file instead of a thousand. They hold nothing that the records do not, and the failures of the shard's units.

summaries/0012.json
summaries/0012.failures.parquet     if there are any
"""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foldmint_bulk import storage
from foldmint_bulk.errors import OutputError
from foldmint_bulk.output import parts, records
from foldmint_bulk.output.records import Record, pack_hits, read_record, unpack_hits
from foldmint_bulk.unit import SHARD, unit_id
from foldmint_tokenizer.store.storage import PART, Files

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "summaries"
_SUFFIX = ".json"
_FAILURES = ".failures.parquet"
_SUMS = ("structures", "chains", "residues", "framed", "seconds", "device_seconds")


@dataclass
class Summary:
    """What records say in sum.

    units: number of them. attempts: by the number of the unit, that which counts; empty: the unit failed. failures: of
    structures, by kind. errors: of units that failed, by id, what they are called, and why. failing: units with
    failures of structures, by id, and their kinds. hits: (codes,), (0,) of no records. skipped: what is no structure,
    or has a twin, as far as workers counted it, by kind.
    """

    units: int = 0
    structures: int = 0
    chains: int = 0
    residues: int = 0
    framed: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    attempts: dict[int, str] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    errors: dict[str, list[str]] = field(default_factory=dict)
    failing: dict[str, list[str]] = field(default_factory=dict)
    hits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, record: Record) -> None:
        """Count the record of a unit in."""
        self.units += 1
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(record, name))
        self.attempts[number] = record.attempt
        self.failures.update(record.failures)
        self.skipped.update(record.skipped)
        if record.error:
            self.errors[record.unit] = [record.source, record.error]
        if record.failures:
            self.failing[record.unit] = list(record.failures)
        self._add_hits(unpack_hits(record.hits))

    def merge(self, other: "Summary") -> None:
        """Count the units of another summary in, all but their attempts."""
        self.units += other.units
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures.update(other.failures)
        self.skipped.update(other.skipped)
        self.errors.update(other.errors)
        self.failing.update(other.failing)
        self._add_hits(other.hits)

    def _add_hits(self, hits: NDArray[np.int64]) -> None:
        if not len(self.hits):
            self.hits = hits.copy()
        elif len(hits):
            self.hits = self.hits + hits

    def to_json(self) -> bytes:
        """As a file."""
        fields = {**vars(self), "hits": pack_hits(self.hits)}
        return (json.dumps(fields) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Summary":
        """The summary that `to_json` wrote. Raises ValueError."""
        fields: dict[str, Any] = json.loads(content)
        try:
            fields["attempts"] = {int(number): str(attempt) for number, attempt in fields["attempts"].items()}
            fields["failures"] = Counter(fields["failures"])
            fields["skipped"] = Counter(fields.get("skipped", {}))
            fields["hits"] = unpack_hits(fields["hits"])
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a summary: {error}") from error


def shard_name(shard: int) -> str:
    """The folder of a shard's records and parts, `0012`."""
    return unit_id(shard * SHARD).partition("/")[0]


def shard_units(shard: int, total: int) -> range:
    """The numbers of a shard's units, of so many in all."""
    return range(shard * SHARD, min((shard + 1) * SHARD, total))


def summarized(files: Files) -> list[int]:
    """The shards that have a summary."""
    return [
        int(stem)
        for name in storage.names(files, FOLDER)
        if name.endswith(_SUFFIX) and (stem := name.removesuffix(_SUFFIX)).isdigit()
    ]


def read_summary(files: Files, shard: int) -> Summary:
    """A shard's summary. Raises OutputError if it is missing or damaged."""
    name = f"{FOLDER}/{shard_name(shard)}{_SUFFIX}"
    try:
        return Summary.from_json(storage.read(files, name))
    except (FileNotFoundError, ValueError) as error:
        raise OutputError(f"{files.path(name)} is missing or damaged: {error}") from error


def read_failures(files: Files, shard: int) -> "pa.Table":
    """The failures of a shard that has some."""
    from pyarrow import parquet

    content = storage.read(files, f"{FOLDER}/{shard_name(shard)}{_FAILURES}")
    return parquet.read_table(io.BytesIO(content))


def summarize(files: Files, shard: int, total: int, known: Mapping[int, Record], executor: Executor) -> Summary:
    """Write the summary of a shard, all of whose units have records, and remove what none of them names.

    total: units of the job. known: records that need not be read, by the number of their unit. Raises OutputError if a
    record, or a part that one names, is missing.
    """
    numbers = shard_units(shard, total)
    missing = [number for number in numbers if number not in known]
    read = executor.map(lambda number: read_record(files, unit_id(number)), missing)
    found = {**known, **dict(zip(missing, read, strict=True))}
    summary, failing = Summary(), list[str]()
    for number in numbers:
        record = found[number]
        if record is None:
            raise OutputError(f"{files}: the unit {unit_id(number)} has no record any more")
        summary.add(number, record)
        if record.failures_file:
            failing.append(record.failures_file)
    _clean(files, shard, summary)
    if failing:
        content = _joined(list(executor.map(lambda name: storage.read(files, name), failing)))
        storage.write(files, f"{FOLDER}/{shard_name(shard)}{_FAILURES}", content)
    storage.write(files, f"{FOLDER}/{shard_name(shard)}{_SUFFIX}", summary.to_json())
    return summary


def _clean(files: Files, shard: int, summary: Summary) -> None:
    """Remove what no record of a shard names. Raises OutputError if a part that one names is missing."""
    folder = shard_name(shard)
    named = {parts.part_name(unit_id(number), attempt) for number, attempt in summary.attempts.items() if attempt}
    missing = named - _keep_only(files, f"{parts.FOLDER}/{folder}", named)
    if missing:
        raise OutputError(f"{files.path(min(missing))} is missing, and its unit's record names it")
    failing = {number: attempt for number, attempt in summary.attempts.items() if unit_id(number) in summary.failing}
    _keep_only(
        files,
        f"{parts.FAILURES}/{folder}",
        {parts.failures_name(unit_id(number), attempt) for number, attempt in failing.items()},
    )
    if files.local:
        sweep(files, f"{records.FOLDER}/{folder}")


def _keep_only(files: Files, folder: str, named: set[str]) -> set[str]:
    """Remove all files of a folder that are not named; returns the others."""
    found = {f"{folder}/{name}" for name in storage.names(files, folder)}
    for name in found - named:
        storage.remove(files, name)
    return found & named


def sweep(files: Files, folder: str) -> None:
    """Remove temporary files that killed processes left in a local folder."""
    for name in storage.names(files, folder):
        if name.startswith(".") and name.endswith(PART):
            storage.remove(files, f"{folder}/{name}" if folder else name)


def remove_summary(files: Files, shard: int) -> None:
    """Remove a shard's summary, if it has one."""
    storage.remove(files, f"{FOLDER}/{shard_name(shard)}{_SUFFIX}")
    storage.remove(files, f"{FOLDER}/{shard_name(shard)}{_FAILURES}")


def _joined(tables: Sequence[bytes]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(
        pa.concat_tables([parquet.read_table(io.BytesIO(table)) for table in tables]), stream, compression="zstd"
    )
    return stream.getvalue()
