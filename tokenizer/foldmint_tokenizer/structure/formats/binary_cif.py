"""BinaryCIF, by its specification 0.3: data blocks whose columns are decoded when they are accessed.

The container is MessagePack. Only an index of the file is built at first, which skips the columns. A column's size is
checked before it is decoded, so that a small file cannot take more memory than a large one may.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.atom_table import MISSING
from foldmint_tokenizer.structure.formats import messagepack
from foldmint_tokenizer.structure.formats.binary_cif_encodings import LONGEST, Bounds, Damaged, Text, Values, decoded
from foldmint_tokenizer.structure.formats.cif_block import CifBlock, Rows
from foldmint_tokenizer.structure.options import Limits

Number = TypeVar("Number", np.int64, np.float64)

# A row takes more as text: 80 in the PDB's files.
_ROW_BYTES = 32
_FEWEST_ROWS = 10_000
_BLOCKS = 1_000
_CATEGORIES = 10_000  # in all blocks
_COLUMNS = 1_000  # of a category
_KEYS = 16  # of a map, and of successive encodings
_CONTAINERS = 1_000  # maps and lists that describe a column
_FEWEST_BYTES = 2**20  # that a column of strings may take, whatever the limits


def read_binary_cif(content: bytes, limits: Limits) -> list[CifBlock]:
    """The data blocks of a BinaryCIF file, in the file's order.

    content: the file, decompressed. limits: `unpacked_bytes` limits the rows of a category, at 32 bytes a row, and a
    column's memory.

    Raises InvalidStructure, now or when a column is accessed, if the file is not BinaryCIF, is damaged, or exceeds the
    limits; the reason names category and column.
    """
    reader = _Reader(content, "the file")
    blocks: list[CifBlock] = []
    left = _CATEGORIES
    for key in reader.entries():
        if key != b"dataBlocks":
            reader.skip()
            continue
        for _ in range(reader.items(_BLOCKS, "data blocks")):
            block = _block(reader, left, content, limits)
            left -= block.categories
            blocks.append(block)
    reader.end()
    if not blocks:
        raise InvalidStructure("content", "the BinaryCIF file has no data block")
    return blocks


class _Reader:
    """Incremental reader of MessagePack. place: the part of the file, for messages."""

    def __init__(self, content: bytes | memoryview, place: str) -> None:
        self._unpacker = messagepack.Unpacker(
            raw=True,
            max_buffer_size=max(len(content), 1),
            max_array_len=_KEYS,
            max_map_len=_KEYS,
            max_ext_len=0,
            object_hook=self._count,
            list_hook=self._count,
        )
        self._unpacker.feed(content)
        self._size, self._place, self._containers = len(content), place, 0

    def entries(self) -> Iterator[bytes]:
        """The keys of a map. The caller must read each key's value before the next key."""
        number = self._call(self._unpacker.read_map_header)
        for _ in range(self._bounded(number, _KEYS, "keys in a map")):
            key = self.value()
            if not isinstance(key, bytes):
                raise self.damaged("a key is not text")
            yield key

    def items(self, most: int, what: str) -> int:
        """The number of items of a list, which the caller must read next."""
        return self._bounded(self._call(self._unpacker.read_array_header), most, what)

    def skip(self) -> slice:
        """Skip a value. Returns its position among the bytes."""
        start = self._unpacker.tell()
        self._call(self._unpacker.skip)
        return slice(start, self._unpacker.tell())

    def value(self) -> Any:  # noqa: ANN401 (a file may contain any type)
        """A value; lists and maps only with few items."""
        return self._call(self._unpacker.unpack)

    def text(self) -> str:
        """A text value."""
        value = self.value()
        if not isinstance(value, bytes):
            raise self.damaged("a name is not text")
        return value.decode("utf-8", "backslashreplace")

    def number(self) -> int:
        """A value that is a count."""
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.damaged("rowCount is not a number of rows")
        return value

    def end(self) -> None:
        """Raise InvalidStructure if there is more data."""
        if self._unpacker.tell() != self._size:
            raise InvalidStructure("content", "the BinaryCIF data is followed by other data")

    def damaged(self, reason: str) -> InvalidStructure:
        """The error for damaged data at the reader's place."""
        return InvalidStructure("content", f"the BinaryCIF data is damaged: {self._place}: {reason}")

    def _call(self, method: Any) -> Any:  # noqa: ANN401
        try:
            return method()
        except messagepack.OutOfData as error:
            raise InvalidStructure("content", "the BinaryCIF data is truncated") from error
        except (ValueError, TypeError, RecursionError) as error:  # msgpack's own are ValueError
            if isinstance(error, InvalidStructure):
                raise
            raise self.damaged(" ".join(str(error).split())[:100] or type(error).__name__) from error

    def _bounded(self, number: int, most: int, what: str) -> int:
        if number > most:
            raise InvalidStructure("content", f"{self._place}: {number} {what}; at most {most} are accepted")
        return number

    def _count(self, container: Any) -> Any:  # noqa: ANN401
        self._containers += 1
        if self._containers > _CONTAINERS:
            raise self.damaged(f"more than {_CONTAINERS} lists and maps")
        return container


@dataclass
class _Category:
    """A category. rows: of each column. packed: its columns as MessagePack, indexed on first access."""

    name: str
    rows: int
    packed: memoryview
    _columns: dict[str, dict[bytes, memoryview]] | None = None

    def column(self, item: str) -> dict[bytes, memoryview] | None:
        """Data and mask of a column, as MessagePack."""
        if self._columns is None:
            self._columns = dict(self._indexed())
        return self._columns.get(item.lower())

    def _indexed(self) -> Iterator[tuple[str, dict[bytes, memoryview]]]:
        reader = _Reader(self.packed, f"category {self.name}")
        for _ in range(reader.items(_COLUMNS, "columns")):
            name, parts = "", {}
            for key in reader.entries():
                if key == b"name":
                    name = reader.text()
                else:
                    parts[key] = self.packed[reader.skip()]
            yield name.lower(), parts


def _block(reader: _Reader, most: int, content: bytes, limits: Limits) -> "_Block":
    name = ""
    categories: dict[str, _Category] = {}
    for key in reader.entries():
        if key == b"header":
            name = reader.text()
        elif key == b"categories":
            for _ in range(reader.items(most, "categories")):
                category = _category(reader, content)
                if category.name.lower() in categories:
                    raise InvalidStructure("content", f"category {category.name} occurs twice")
                categories[category.name.lower()] = category
        else:
            reader.skip()
    return _Block(name, categories, limits)


def _category(reader: _Reader, content: bytes) -> _Category:
    name, rows, columns = "", 0, slice(0)
    for key in reader.entries():
        if key == b"name":
            name = reader.text().removeprefix("_")
        elif key == b"rowCount":
            rows = reader.number()
        elif key == b"columns":
            columns = reader.skip()
        else:
            reader.skip()
    return _Category(name, rows, memoryview(content)[columns])


@dataclass(frozen=True)
class _Block:
    """A CifBlock of BinaryCIF."""

    name: str
    _categories: Mapping[str, _Category] = field(repr=False)
    _limits: Limits

    @property
    def categories(self) -> int:
        """Number of categories."""
        return len(self._categories)

    def rows(self, category: str) -> int:
        found = self._categories.get(category.lower())
        return 0 if found is None else self._bounded(found)

    def text(self, category: str, item: str, rows: Rows = None) -> NDArray[np.bytes_] | None:
        column = self._column(category, item, rows)
        if column is None:
            return None
        values, masked, place = column
        if isinstance(values, Text):
            width = values.strings.dtype.itemsize
            if len(values.places) * width > (most := self._bounds.size):
                _refuse(place, f"{len(values.places)} rows of up to {width} bytes; at most {most} bytes are accepted")
            texts = values.strings[values.places]
        else:
            texts = values.astype(np.bytes_)
        if masked is not None:
            texts[masked] = b""
        if texts.dtype.itemsize > LONGEST and (np.strings.str_len(texts) > LONGEST).any():
            _refuse(place, f"a value has more than {LONGEST} bytes")
        return texts

    def integers(self, category: str, item: str, rows: Rows = None) -> NDArray[np.int64] | None:
        column = self._column(category, item, rows)
        if column is None:
            return None
        values, masked, place = column
        if isinstance(values, Text):
            return _parsed(values, masked, place, np.dtype(np.int64), MISSING)
        if np.issubdtype(values.dtype, np.floating):
            whole = values == np.rint(values)
            if not (whole if masked is None else whole | masked).all():
                _refuse(place, "a value is not an integer")
            values = np.where(whole, values, 0)
        numbers = values.astype(np.int64)
        if masked is not None:
            numbers[masked] = MISSING
        return numbers

    def floats(self, category: str, item: str, rows: Rows = None) -> NDArray[np.float64] | None:
        column = self._column(category, item, rows)
        if column is None:
            return None
        values, masked, place = column
        if isinstance(values, Text):
            return _parsed(values, masked, place, np.dtype(np.float64), np.nan)
        numbers = values.astype(np.float64)
        if masked is not None:
            numbers[masked] = np.nan
        return numbers

    @property
    def _bounds(self) -> Bounds:
        most = max(_FEWEST_ROWS, self._limits.unpacked_bytes // _ROW_BYTES)
        return Bounds(values=2 * most, size=max(_FEWEST_BYTES, self._limits.unpacked_bytes))  # two for RunLength

    def _bounded(self, category: _Category) -> int:
        most = self._bounds.values // 2
        if category.rows > most:
            reason = f"category {category.name}: {category.rows} rows; at most {most} are accepted"
            raise InvalidStructure("content", reason)
        return category.rows

    def _column(
        self, category: str, item: str, chosen: Rows
    ) -> tuple[Values | Text, NDArray[np.bool_] | None, str] | None:
        """A column's values, where they are masked, and its place for messages."""
        found = self._categories.get(category.lower())
        column = None if found is None else found.column(item)
        if found is None or column is None:
            return None
        rows, place = self._bounded(found), f"category {found.name}, column {item}"
        values = self._decoded(column.get(b"data", memoryview(b"\xc0")), rows, place)
        if values is None:
            _refuse(place, "it has no data")
        mask = self._decoded(column.get(b"mask", memoryview(b"\xc0")), rows, f"{place}, mask")
        if isinstance(mask, Text):
            _refuse(place, "the mask is text")
        if chosen is not None:
            values = values._replace(places=values.places[chosen]) if isinstance(values, Text) else values[chosen]
            mask = None if mask is None else mask[chosen]
        return values, None if mask is None else mask != 0, place

    def _decoded(self, packed: memoryview, rows: int, place: str) -> Values | Text | None:
        """The values of data with its encodings; None for nil."""
        reader = _Reader(packed, place)
        data = reader.value()
        if data is None:
            return None
        if not isinstance(data, dict):
            _refuse(place, "it is not data with encodings")
        try:
            values = decoded(data, self._bounds)
        except Damaged as error:
            _refuse(place, str(error))
        count = len(values.places if isinstance(values, Text) else values)
        if count != rows:
            _refuse(place, f"{count} values in {rows} rows")
        return values


def _parsed(
    text: Text, masked: NDArray[np.bool_] | None, place: str, dtype: np.dtype[Number], missing: Number | float
) -> NDArray[Number]:
    """Texts as numbers; each distinct string is parsed once. A float's standard uncertainty is ignored."""
    strings = np.strings.strip(text.strings)
    if dtype.kind == "f" and (np.strings.find(strings, b"(") >= 0).any():
        strings = np.strings.partition(strings, b"(")[0]
    unknown = (strings == b"") | (strings == b".") | (strings == b"?")
    used = np.zeros(len(strings), np.bool_)
    used[text.places if masked is None else text.places[~masked]] = True
    wanted = used & ~unknown
    numbers = np.full(len(strings), missing, dtype)
    try:
        if (np.strings.find(strings[wanted], b"_") >= 0).any():  # which Python accepts between digits
            raise ValueError("an underscore is not a digit")
        numbers[wanted] = strings[wanted].astype(dtype)
    except (ValueError, OverflowError) as error:
        what = "a number" if dtype.kind == "f" else "an integer"
        _refuse(place, f"a value is not {what}: {error}")
    if not np.isfinite(numbers[wanted]).all():
        _refuse(place, "a value is not a number")
    found = numbers[text.places]
    if masked is not None:
        found[masked] = missing
    return found


def _refuse(place: str, reason: str) -> NoReturn:
    raise InvalidStructure("content", f"{place}: {reason[:200]}")
