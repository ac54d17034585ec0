"""The columns of Parquet files with structures: which there are, and what is in their cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foldmint_bulk.inputs.base import InputOptions
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.backbone import Backbone, as_float32, whole_numbers

IDS = ("id", "name", "entry_id", "structure_id", "pdb_id", "uniprot_id", "uniprot_accession", "accession", "entry")
"""Names of columns with ids, in order of precedence."""
FILES = (
    *("structure", "pdb", "cif", "mmcif", "bcif", "file"),
    *(
        f"{form}_{what}"
        for form in ("structure", "pdb", "cif", "mmcif")
        for what in ("file", "string", "text", "content")
    ),
    *("file_content", "content", "text", "bytes"),
)
"""Names of columns with structure files."""
COORDINATES = ("coordinates", "coords", "backbone", "backbone_coordinates")
"""Names of columns with the coordinates of N, CA and C."""
ATOMS = ("N", "CA", "C")

_SEQUENCES = ("sequence", "seq")
_NUMBERS = ("residue_index",)
_CHAINS = ("chain", "chain_id")

Kind = Literal["files", "coordinates", "atoms"]
Row = Mapping[str, Any]


class InvalidColumns(ValueError):
    """A file has no column with structures, or not those that the options name."""


class InvalidRow(ValueError):
    """A row that holds no structure."""


@dataclass(frozen=True)
class Columns:
    """The columns to read of a file. An empty name: there is none.

    kind: `files`, as text or bytes; `coordinates`, in one column; `atoms`, in three. structure: the column or columns
    with them. within: the field of this column that has the file, or the fields that have atoms.
    """

    kind: Kind
    structure: tuple[str, ...]
    id: str = ""
    within: str = ""
    sequence: str = ""
    residue_index: str = ""
    chain: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns to read."""
        own = (self.id, *self.structure, self.sequence, self.residue_index, self.chain)
        return tuple(dict.fromkeys(filter(None, own)))

    def id_of(self, row: Row) -> str | None:
        """A row's id, None if it has none."""
        value = row[self.id].as_py() if self.id else None
        if isinstance(value, bytes):
            value = value.decode("utf-8", "backslashreplace")
        return None if value is None or value == "" else str(value)

    def content_of(self, row: Row) -> bytes | tuple[Backbone, ...]:
        """A row's file, or its chain. Raises InvalidRow."""
        if self.kind != "files":
            return (self._backbone(row),)
        value = row[self.structure[0]].as_py()
        if self.within and value is not None:
            value = value[self.within]
        if value is None:
            raise InvalidRow(f"the column {self.structure[0]!r} is null")
        return value.encode() if isinstance(value, str) else bytes(value)

    def _backbone(self, row: Row) -> Backbone:
        try:
            coordinates = as_float32(self._coordinates(row))
            sequence = row[self.sequence].as_py() if self.sequence else None
            chain = row[self.chain].as_py() if self.chain else None
            index: Any = np.arange(1, len(coordinates) + 1)
            if self.residue_index and row[self.residue_index].is_valid:
                values = row[self.residue_index].values
                if values.null_count:
                    raise InvalidRow(f"the column {self.residue_index!r} has nulls")
                index = values.to_numpy(zero_copy_only=False)
            name = "A" if chain is None else str(chain)
            return Backbone(name, sequence or "X" * len(coordinates), whole_numbers(index, name), coordinates)
        except InvalidStructure as error:
            raise InvalidRow(str(error)) from error

    def _coordinates(self, row: Row) -> NDArray[np.float64]:
        """(residues, 3, 3): residue, atom, axis; Å, NaN for missing atoms."""
        if self.kind == "atoms":
            cells = {name: row[name] for name in self.structure}
        elif isinstance(row[self.structure[0]], pa.StructScalar) and row[self.structure[0]].is_valid:
            cells = {name: row[self.structure[0]][name] for name in self.within.split()}
        else:
            values = _numbers(row[self.structure[0]], self.structure[0], (3, 3))
            if len(values) % 9:
                raise InvalidRow(f"the column {self.structure[0]!r} has {len(values)} numbers, not 9 a residue")
            return values.reshape(-1, 3, 3)
        atoms = []
        for name, cell in cells.items():
            values = _numbers(cell, name, (3,))
            if len(values) % 3:
                raise InvalidRow(f"the column {name!r} has {len(values)} numbers, not 3 a residue")
            atoms.append(values.reshape(-1, 3))
        if len({len(positions) for positions in atoms}) > 1:
            counts = ", ".join(f"{len(positions)} of {name}" for name, positions in zip(cells, atoms, strict=True))
            raise InvalidRow(f"the atoms differ in number: {counts}")
        return np.stack(atoms, 1)


def find_columns(schema: pa.Schema, options: InputOptions) -> Columns:
    """The columns of a file, as the options name them, or by their names.

    Raises InvalidColumns, which names the columns there are.
    """
    known = ", ".join(f"{field.name} ({_type_name(field.type)})" for field in schema)
    for option, name in (("--id-column", options.id_column), ("--structure-column", options.structure_column)):
        if name and name not in schema.names:
            raise InvalidColumns(f"no column {name!r} ({option}); the columns are: {known}")
    by_name = {name.lower(): name for name in reversed(schema.names)}

    def first(names: tuple[str, ...], fits: Any) -> str:  # noqa: ANN401 (a function of types)
        found = (by_name[name] for name in names if name in by_name)
        return next((name for name in found if fits(schema.field(name).type)), "")

    id_column = options.id_column or first(IDS, _is_id)
    others = {
        "id": id_column,
        "sequence": first(_SEQUENCES, _is_text),
        "residue_index": first(_NUMBERS, _is_list),
        "chain": first(_CHAINS, _is_text),
    }
    if options.structure_column:
        found = _of_column(schema.field(options.structure_column))
        if found is None:
            raise InvalidColumns(
                f"the column {options.structure_column!r}, as --structure-column wants it, has neither text, bytes nor "
                f"coordinates; there are: {known}"
            )
    else:
        found = _detected(schema, by_name, id_column, known)
    kind, structure, within = found
    if kind == "files":
        return Columns(kind, structure, id_column, within)
    return Columns(kind, structure, within=within, **others)


_Found = tuple[Kind, tuple[str, ...], str]


def _detected(schema: pa.Schema, by_name: dict[str, str], id_column: str, known: str) -> _Found:
    """What has structures, by the names of columns. Raises InvalidColumns if nothing has, or several columns."""
    files = [by_name[name] for name in FILES if name in by_name and by_name[name] != id_column]
    found = [of for name in files if (of := _of_column(schema.field(name))) is not None and of[0] == "files"]
    if len(found) > 1:
        raise InvalidColumns(
            f"several columns may have structures: {', '.join(of[1][0] for of in found)}; name one by "
            "--structure-column"
        )
    if found:
        return found[0]
    for name in COORDINATES:
        if name in by_name and (of := _of_column(schema.field(by_name[name]))) is not None and of[0] == "coordinates":
            return of
    atoms = tuple(by_name.get(name.lower(), "") for name in ATOMS)
    if all(atoms) and all(_is_list(schema.field(name).type) for name in atoms):
        return "atoms", atoms, ""
    raise InvalidColumns(
        f"no column has a known name for structures or coordinates; name it by --structure-column; there are: {known}"
    )


def _of_column(field: "pa.Field[Any]") -> _Found | None:
    """What a column has, by its type; None if it is neither files nor coordinates."""
    kind = field.type
    if _is_text(kind) or _is_binary(kind):
        return "files", (field.name,), ""
    if _is_list(kind):
        return "coordinates", (field.name,), ""
    if pa.types.is_struct(kind):
        inner = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        if "bytes" in inner and _is_binary(inner["bytes"]):
            return "files", (field.name,), "bytes"
        if all(name in inner and _is_list(inner[name]) for name in ATOMS):
            return "coordinates", (field.name,), " ".join(ATOMS)
    return None


def _numbers(cell: Any, column: str, inner: tuple[int, ...]) -> NDArray[np.float64]:  # noqa: ANN401 (a scalar)
    """A cell's numbers in order, nulls as NaN; inner lists, if any, have these lengths. Raises InvalidRow."""
    if not cell.is_valid:
        raise InvalidRow(f"the column {column!r} is null")
    values, depth = cell.values, 0
    lengths = list[int]()
    while _is_list(values.type):
        if values.null_count:
            raise InvalidRow(f"the column {column!r} has null lists")
        found = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(found) > 1:
            raise InvalidRow(f"the column {column!r} has lists of different lengths")
        lengths += found
        values, depth = values.flatten(), depth + 1
    if depth and len(cell.values) and tuple(lengths) != inner[-depth:]:
        shape = ", ".join(map(str, lengths))
        wanted = ", ".join(map(str, inner))
        raise InvalidRow(f"the column {column!r} has the shape (residues, {shape}), not (residues, {wanted})")
    try:
        return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidRow(f"the column {column!r} has other values than numbers") from error


def _is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of lists, in the end of numbers."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    value = kind.value_type
    return bool(pa.types.is_floating(value) or pa.types.is_integer(value) or _is_list(value))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def _type_name(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:39]}…"
