"""mmCIF text as columns.

The tables of atoms are by far the largest part of a file, and usually plain: one row a line, values separated by
spaces. This module splits those, all rows at once; gemmi parses everything else, and tables that are not plain.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.atom_table import MISSING
from foldmint_tokenizer.structure.formats.cif_block import CifBlock, InvalidCell, Rows
from foldmint_tokenizer.structure.formats.numerals import parse_floats, parse_integers

LONGEST_VALUE = 100
_ATOMS = b"_atom_site."
_CUT = (_ATOMS, b"_atom_site_anisotrop.")  # the second is also large, and not needed
_ENDS = (b"\n#", b"\n_", b"\nloop_", b"\ndata_")
_BLANK = (b" ", b"\t", b"\n")
_MOST_TABLES = 64  # above, gemmi parses everything
_MOST_COLUMNS = 200
_MOST_BLOCKS = 100_000  # gemmi compares each name with all others
_KEYWORDS = (b"loop_", b"data_", b"save_", b"stop_", b"global_")
_KEYWORD_LETTERS = np.frombuffer(b"ldsgLDSG", np.uint8)
_CLOSED = re.compile(rb"(?:[ \t\n]|#[^\n]*)*+(?:_|loop_|data_|save_|global_|\Z)", re.IGNORECASE)  # except comments
_HEADING = re.compile(rb"^[ \t]*data_", re.IGNORECASE | re.MULTILINE)
# First characters of anything but plain words: quotes, comments, item names, and reserved ones.
_SPECIAL = np.zeros(256, bool)
_SPECIAL[np.frombuffer(b"'\"#_$[];", np.uint8)] = True


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells of a table in a text. items: names of its columns. starts, ends: (rows, columns)."""

    data: NDArray[np.uint8]
    items: dict[str, int]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def characters(self, item: str, rows: Rows, what: str, *, right: bool) -> NDArray[np.uint8]:
        """A column's values (rows, width), unquoted, padded with NUL on one side; `?` and `.` are all NUL."""
        place = self.items[item]
        starts, ends = self.starts[:, place], self.ends[:, place]
        if rows is not None:
            starts, ends = starts[rows], ends[rows]
        first = self.data[starts]
        null = (ends - starts == 1) & ((first == ord("?")) | (first == ord(".")))
        quoted = (first == ord("'")) | (first == ord('"'))
        if quoted.any():
            starts, ends = starts + quoted, ends - quoted
        lengths = np.where(null, 0, ends - starts)
        width = _checked_width(int(lengths.max(initial=0)), what)
        if right:
            places = ends[:, None] + np.arange(-width, 0)
            outside = places < (ends - lengths)[:, None]
        else:
            places = starts[:, None] + np.arange(width)
            outside = places >= (starts + lengths)[:, None]
        found: NDArray[np.uint8] = self.data[np.clip(places, 0, len(self.data) - 1)]
        found[outside] = 0
        return found


class TextBlock:
    """A data block of an mmCIF file; a `CifBlock`."""

    def __init__(self, block: gemmi.cif.Block, atoms: _Cells | None) -> None:
        self._block, self._atoms = block, atoms

    @property
    def name(self) -> str:
        """The block's name, without `data_`."""
        return self._block.name

    def rows(self, category: str) -> int:
        """Number of rows of a category."""
        if category == "atom_site" and self._atoms is not None:
            return len(self._atoms.starts)
        try:
            return len(self._block.find_mmcif_category(f"_{category}."))
        except RuntimeError as error:  # a loop over several categories
            raise _invalid(error) from error

    def text(self, category: str, item: str, rows: Rows = None) -> NDArray[np.bytes_] | None:
        """A column as UTF-8."""
        what = f"_{category}.{item}"
        cells = self._cells(category, item)
        if cells is not None:
            found = cells.characters(item.lower(), rows, what, right=False)
            return found.view(f"S{found.shape[1]}")[:, 0]
        values = self._values(what, rows)
        if values is None:
            return None
        texts = [gemmi.cif.as_string(value).encode() for value in values]
        return np.array(texts, f"S{_checked_width(max(map(len, texts), default=0), what)}")

    def integers(self, category: str, item: str, rows: Rows = None) -> NDArray[np.int64] | None:
        """A column as integers."""
        found = self._numbers(category, item, rows)
        if found is None:
            return None
        characters, null = found
        values, valid = parse_integers(characters)
        self._check(valid | null, characters, rows, f"_{category}.{item}", "an integer")
        return np.where(null, MISSING, values)

    def floats(self, category: str, item: str, rows: Rows = None) -> NDArray[np.float64] | None:
        """A column as floats."""
        found = self._numbers(category, item, rows)
        if found is None:
            return None
        characters, null = found
        values, valid = parse_floats(characters)
        for row in np.flatnonzero(~valid & ~null):
            values[row] = gemmi.cif.as_number(characters[row].tobytes().strip().decode("latin-1"))
        self._check(valid | null | ~np.isnan(values), characters, rows, f"_{category}.{item}", "a number")
        return values

    def _cells(self, category: str, item: str) -> _Cells | None:
        cells = self._atoms if category == "atom_site" else None
        return cells if cells is not None and item.lower() in cells.items else None

    def _values(self, what: str, rows: Rows) -> list[str] | None:
        column = self._block.find_values(what)
        if not column:
            return None
        try:
            values = list(column)
        except UnicodeDecodeError as error:
            raise InvalidStructure("content", f"a value of {what} is not UTF-8 text") from error
        return values if rows is None else [values[row] for row in rows]

    def _numbers(self, category: str, item: str, rows: Rows) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """Characters (rows, width), right-aligned and padded with spaces, and where a value is missing (rows,)."""
        what = f"_{category}.{item}"
        cells = self._cells(category, item)
        if cells is not None:
            characters = cells.characters(item.lower(), rows, what, right=True)
        else:
            values = self.text(category, item, rows)
            if values is None:
                return None
            width = values.dtype.itemsize
            texts = [value.rjust(width, b"\0") for value in values.tolist()]
            characters = np.array(texts, f"S{width}").view(np.uint8).reshape(-1, width)
        null = characters[:, -1] == 0
        return np.where(characters == 0, np.uint8(ord(" ")), characters), null

    def _check(
        self, valid: NDArray[np.bool_], characters: NDArray[np.uint8], rows: Rows, what: str, wanted: str
    ) -> None:
        if not valid.all():
            place = int((~valid).argmax())
            row = place if rows is None else int(rows[place])
            value = characters[place].tobytes().decode("latin-1").strip()
            raise InvalidCell(f"row {row + 1} of {what} is not {wanted}: {value[:40]!r}", row)


def read_cif_text(text: bytes) -> list[CifBlock]:
    """The data blocks of an mmCIF file. Raises InvalidStructure if the text is not CIF."""
    rest, tables = _without_tables(text)
    try:
        document = _parse(rest)
        owners = _owners(rest, [place for place, _ in tables], len(document))
    except InvalidStructure:  # the message must name the line in the whole text
        owners = None
    if owners is None:
        document, owners, tables = _parse(text), [], []
    if len(document) == 0:
        raise InvalidStructure("content", "the mmCIF file has no data block")
    own = dict(zip(owners, (cells for _, cells in tables), strict=True))
    return [TextBlock(block, own.get(place)) for place, block in enumerate(document)]


def _parse(text: bytes) -> gemmi.cif.Document:
    try:
        document = gemmi.cif.read_string(text, 0)
        if len(document) > _MOST_BLOCKS:
            raise ValueError(f"{len(document)} data blocks; at most {_MOST_BLOCKS} are accepted")
        _rename_duplicates(document)
        document.check_for_missing_values()
        document.check_for_duplicates()
    except (RuntimeError, ValueError) as error:
        raise _invalid(error) from error
    return document


def _invalid(error: Exception) -> InvalidStructure:
    return InvalidStructure("content", f"invalid mmCIF: {' '.join(str(error).split())[:200]}")


def _rename_duplicates(document: gemmi.cif.Document) -> None:
    """Rename further blocks with the same name to X_2, X_3, ..., as in concatenated files."""
    counts: dict[str, int] = {}
    taken = {block.name.lower() for block in document}
    for block in document:
        wanted = name = block.name
        number = counts.get(wanted.lower(), 0) + 1
        while number > 1 and (name := f"{wanted}_{number}").lower() in taken:
            number += 1
        counts[wanted.lower()] = number
        taken.add(name.lower())
        block.name = name


def _without_tables(text: bytes) -> tuple[bytes, list[tuple[int, _Cells]]]:
    """The text without the plain tables of atoms, and these tables with their positions in that text."""
    pieces: list[bytes] = []
    tables: list[tuple[int, _Cells]] = []
    begin = length = delimiters = 0
    for _ in range(_MOST_TABLES):
        table = _next_table(text, begin)
        if table is None:
            return b"".join([*pieces, text[begin:]]), tables
        delimiters += text.count(b"\n;", begin, table.loop)
        body = text[table.start : table.stop]
        cells = _split(body, table.items) if table.category == _ATOMS else None
        plain = cells is not None or (table.category != _ATOMS and not _has_keyword(body))
        if delimiters % 2 or b"\n;" in body or not plain or not _CLOSED.match(text, table.stop):
            break  # it is in a text field, is not plain, or continues after a comment
        pieces.append(text[begin : table.loop])
        length += table.loop - begin
        if cells is not None:
            tables.append((length, cells))
        begin = table.stop
    return text, []


def _has_keyword(body: bytes) -> bool:
    """Whether something else may begin within a table that is not examined closely."""
    lowered = body.lower()
    return any(keyword in lowered for keyword in (*_KEYWORDS, b" _", b"\t_"))


class _Table(NamedTuple):
    """A loop's position in a text: its keyword, its first row, and the end of its last row."""

    category: bytes
    items: list[bytes]
    loop: int
    start: int
    stop: int


def _next_table(text: bytes, begin: int) -> _Table | None:
    """The next loop of atoms, or of their anisotropic displacements, that is on lines of its own."""
    while True:
        places = [(place, category) for category in _CUT if (place := text.find(category, begin)) >= 0]
        if not places:
            return None
        place, category = min(places)
        loop = text.rfind(b"loop_", begin, place)
        begin = place + 1
        if loop < 0 or text[loop + 5 : place].strip() or text[text.rfind(b"\n", 0, loop) + 1 : loop].strip():
            continue
        items: list[bytes] = []
        while text.startswith(category, place) and len(items) < _MOST_COLUMNS:
            end = text.find(b"\n", place)
            if end < 0:
                return None
            items += text[place:end].split()
            place = end + 1
            while text[place : place + 1] in _BLANK:
                place += 1
        if not all(item.startswith(category) for item in items):
            continue
        stop = len(text)
        for mark in _ENDS:
            end = text.find(mark, place - 1, stop)
            stop = stop if end < 0 else end + 1
        return _Table(category, items, loop, place, stop)


def _split(body: bytes, items: list[bytes]) -> _Cells | None:
    """The cells of a table whose rows are lines; None if they are not, or if a value is not a plain word."""
    names = [item[len(_ATOMS) :].decode("latin-1").lower() for item in items]
    data = np.frombuffer(body, np.uint8)
    blank = np.concatenate([[True], data <= ord(" "), [True]])
    edges = np.flatnonzero(blank[1:] != blank[:-1])
    if len(edges) == 0 or len(edges) % (2 * len(items)) or len(set(names)) < len(names):
        return None
    starts, ends = (edges[side::2].reshape(-1, len(items)) for side in (0, 1))
    lines = np.flatnonzero(data == ord("\n"))
    first, last = np.searchsorted(lines, starts[:, 0]), np.searchsorted(lines, starts[:, -1])
    if (first != last).any() or (first[1:] <= first[:-1]).any():
        return None
    opening = data[starts.reshape(-1)].reshape(starts.shape)
    if (_SPECIAL[opening]).any():
        quoted = (opening == ord("'")) | (opening == ord('"'))
        closing = data[ends[quoted] - 1]
        if (_SPECIAL[opening] & ~quoted).any() or (closing != opening[quoted]).any():
            return None
        if (ends[quoted] - starts[quoted] < 2).any():
            return None
    head = {body[start : start + 5].lower() for start in starts[np.isin(opening[:, 0], _KEYWORD_LETTERS), 0]}
    if any(keyword.startswith(word) for word in head for keyword in _KEYWORDS):
        return None
    return _Cells(data, {name: place for place, name in enumerate(names)}, starts, ends)


def _owners(text: bytes, places: list[int], blocks: int) -> list[int] | None:
    """The block that each position of a text belongs to; None if that is not clear."""
    if blocks == 1 or not places:
        return [0] * len(places)
    headings = [match.start() for match in _HEADING.finditer(text)]
    if len(headings) != blocks:
        return None
    return [sum(heading < place for heading in headings) - 1 for place in places]


def _checked_width(width: int, what: str) -> int:
    if width > LONGEST_VALUE:
        raise InvalidStructure(
            "content", f"a value of {what} has {width} characters; at most {LONGEST_VALUE} are accepted"
        )
    return max(width, 1)
