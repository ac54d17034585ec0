"""Parquet files with a structure a row: units are ranges of rows, along the row groups."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import parquet

from foldmint_bulk.errors import InvalidInput, UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.files import open_input, printable, reason_of
from foldmint_bulk.inputs.parquet_columns import Columns, InvalidColumns, InvalidRow, find_columns
from foldmint_bulk.unit import Unit

_SUFFIXES = (".parquet", ".pq")
_BATCH = 64  # rows in memory
_BUFFER = 2**22  # bytes a request


class ParquetFiles:
    """A unit is a range of rows: whole row groups, or part of one that has too many rows."""

    name: ClassVar[str] = "parquet"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is one of Parquet."""
        return path.lower().endswith(_SUFFIXES)

    def check(self, path: str, options: InputOptions) -> None:
        """Check that the file has the columns wanted."""
        try:
            with open_input(path, cached=False) as stream, _opened(stream) as file:
                find_columns(file.schema_arrow, options)
        except InvalidColumns as error:
            raise InvalidInput(f"{path}: {error}") from error
        except (UnreadableInput, pa.ArrowException, OSError):
            return

    def plan(
        self,
        paths: Sequence[str],
        unit_structures: int,
        options: InputOptions,
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[Unit]:
        """Ranges of rows; of a file, its footer is read."""
        for path in paths:
            try:
                with open_input(path, cached=False) as stream, _opened(stream) as file:
                    find_columns(file.schema_arrow, options)
                    sizes = _group_sizes(file)
            except (UnreadableInput, InvalidColumns, pa.ArrowException, OSError):
                yield Unit(self.name, (path,))
                continue
            for start, stop in _ranges(sizes, unit_structures):
                yield Unit(self.name, (path,), start, stop, stop - start)

    def read(
        self,
        unit: Unit,
        options: InputOptions,
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[RawStructure]:
        """The rows of the range; of a file, the columns that are needed and the row groups with these rows are read."""
        (path,) = unit.paths
        with open_input(path, cached=False) as stream:
            try:
                with _opened(stream) as file:
                    columns = find_columns(file.schema_arrow, options)
                    for number, row in _rows(file, columns, unit):
                        yield _structure(path, columns, number, row, options.format)
            except (InvalidColumns, pa.ArrowException, OSError) as error:
                raise UnreadableInput(f"{path}: {reason_of(error)}") from error


def _opened(stream: Any) -> parquet.ParquetFile:  # noqa: ANN401 (any file)
    return parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)


def _group_sizes(file: parquet.ParquetFile) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]


def _ranges(sizes: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows, of at most so many each, from the sizes of row groups; only groups of more are divided."""
    start = stop = 0
    for size in sizes:
        if start < stop and stop + size - start > most:
            yield start, stop
            start = stop
        stop += size
        if stop - start > most:
            for part in range(start, stop, most):
                yield part, min(part + most, stop)
            start = stop
    if start < stop:
        yield start, stop


def _rows(file: parquet.ParquetFile, columns: Columns, unit: Unit) -> Iterator[tuple[int, dict[str, Any]]]:
    """The unit's rows, with their numbers in the file, as Arrow's scalars by column."""
    stop = unit.stop or file.metadata.num_rows
    if stop > file.metadata.num_rows:
        raise InvalidColumns(f"it has {file.metadata.num_rows} rows, {stop} when the job was planned")
    first, groups, begin = None, list[int](), 0
    for group, size in enumerate(_group_sizes(file)):
        if size and begin < stop and begin + size > unit.start:
            first = begin if first is None else first
            groups.append(group)
        begin += size
    number = first or 0
    for batch in file.iter_batches(_BATCH, row_groups=groups, columns=list(columns.names), use_threads=False):
        for at in range(max(0, unit.start - number), min(batch.num_rows, stop - number)):
            yield number + at, {name: batch.column(name)[at] for name in batch.schema.names}
        number += batch.num_rows
        if number >= stop:
            return


def _structure(path: str, columns: Columns, number: int, row: dict[str, Any], form: str) -> RawStructure:
    """A row; named by its id, or by its number in the file, from 0 on."""
    name = columns.id_of(row)
    source = printable(f"{path}!{number if name is None else name}")
    try:
        return RawStructure(source, columns.content_of(row), format=form)
    except InvalidRow as error:
        return RawStructure(source, Unreadable(f"row {number}: {error}"))
