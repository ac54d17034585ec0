"""The units of a job, and their table."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 1_000
"""Units whose records share a folder, and a summary once all are there."""


@dataclass(frozen=True)
class Unit:
    """A piece of a job that becomes one part.

    kind: of its input, a name in `inputs.KINDS`. paths: its files, in order, as paths or URLs. start, stop: a range
    within the file, in the kind's own measure, such as bytes of a tar or row groups; both 0: all of it. structures: how
    many it has, None if not known. detail: whatever else its kind needs to read it. id: `SHARD/NUMBER`, given when the
    job is planned.
    """

    kind: str
    paths: tuple[str, ...]
    start: int = 0
    stop: int = 0
    structures: int | None = None
    detail: str = ""
    id: str = ""

    @property
    def name(self) -> str:
        """What messages and failures of the whole unit call it."""
        first = self.paths[0] if self.paths else self.id
        if len(self.paths) > 1:
            return f"{first} and {len(self.paths) - 1} more"
        return f"{first}[{self.start}:{self.stop}]" if self.stop else first

    def row(self) -> dict[str, Any]:
        """As plain values, for tables and engines; `Unit.of` is the inverse."""
        return asdict(self) | {"paths": list(self.paths)}

    @classmethod
    def of(cls, row: "Unit | Mapping[str, Any]") -> "Unit":
        """A unit, from itself or from its row."""
        if isinstance(row, Unit):
            return row
        structures = row.get("structures")
        return cls(
            kind=str(row["kind"]),
            paths=tuple(str(path) for path in row["paths"]),
            start=int(row["start"]),
            stop=int(row["stop"]),
            structures=None if structures is None else int(structures),
            detail=str(row["detail"]),
            id=str(row["id"]),
        )


def unit_id(number: int) -> str:
    """The id of the unit of a number, from 0 on: `0012/345`."""
    return f"{number // SHARD:04d}/{number % SHARD:03d}"


def unit_number(id: str) -> int:  # noqa: A002
    """The number of a unit, from its id. Raises ValueError if it is not one."""
    shard, _, place = id.partition("/")
    number = int(shard) * SHARD + int(place)
    if unit_id(number) != id:
        raise ValueError(f"{id!r} is not the id of a unit")
    return number


class Units(Sequence[Unit]):
    """Units of a job, in order; kept as an Arrow table, since there may be millions."""

    def __init__(self, table: "pa.Table", numbers: Sequence[int] | None = None) -> None:
        """numbers: of the units, by which they have their ids; by default from 0 on."""
        self._table = table.combine_chunks()
        self._numbers = range(len(self)) if numbers is None else numbers

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> "list[Unit]": ...
    def __getitem__(self, index: int | slice) -> "Unit | list[Unit]":
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        row: dict[str, Any] = self._table.slice(index, 1).to_pylist()[0]
        return Unit.of(row | {"id": unit_id(self._numbers[index])})

    def select(self, numbers: Sequence[int]) -> "Units":
        """Those of some numbers, in that order."""
        return Units(self._table.take(np.array(numbers, np.int64)), numbers)

    def __iter__(self) -> Iterator[Unit]:
        for number in range(len(self)):
            yield self[number]

    def to_parquet(self) -> bytes:
        """The table as the bytes of a Parquet file."""
        from pyarrow import parquet

        stream = io.BytesIO()
        parquet.write_table(self._table, stream, compression="zstd")
        return stream.getvalue()

    @classmethod
    def from_parquet(cls, content: bytes) -> "Units":
        """The table that `to_parquet` wrote."""
        from pyarrow import parquet

        return cls(parquet.read_table(io.BytesIO(content)))

    @classmethod
    def of(cls, units: Iterable[Unit]) -> "Units":
        """A table of units, which get their ids."""
        import pyarrow as pa

        schema = pa.schema(
            [
                ("kind", pa.dictionary(pa.int32(), pa.string())),
                ("paths", pa.list_(pa.string())),
                ("start", pa.int64()),
                ("stop", pa.int64()),
                ("structures", pa.int64()),
                ("detail", pa.string()),
            ]
        )
        batches, rows = [], list[dict[str, Any]]()
        for unit in units:
            row = unit.row()
            del row["id"]
            rows.append(row)
            if len(rows) == 10_000:
                batches.append(pa.RecordBatch.from_pylist(rows, schema))
                rows = []
        batches.append(pa.RecordBatch.from_pylist(rows, schema))
        return cls(pa.Table.from_batches(batches, schema).unify_dictionaries())


def with_detail(unit: Unit, **detail: object) -> Unit:
    """The unit with its detail, as JSON."""
    return replace(unit, detail=json.dumps(detail, sort_keys=True))


def detail_of(unit: Unit) -> dict[str, Any]:
    """What `with_detail` gave the unit; empty if nothing was."""
    found: dict[str, Any] = json.loads(unit.detail) if unit.detail else {}
    return found
