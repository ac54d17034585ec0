"""Reader of the packed backbone corpus: `NAME.tsv.xz`, a table of chains, and `NAME.xyz.xz`, their coordinates.

The coordinates are int16 hundredths of an Å, each residue less the one before it in its chain, as byte planes
[low/high byte, atom (N, CA, C), axis, residue].
"""

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.errors import InvalidSet

SUFFIX = ".tsv.xz"


def read_packed(table: Path) -> Iterator[Record]:
    """The records of a packed corpus, from the path of its table. Raises InvalidSet if it cannot be read.

    `table` is `NAME.tsv.xz`; the coordinates lie beside it, in `NAME.xyz.xz`.
    """
    rows = _table(table)
    planes = np.frombuffer(_unpacked(table.with_name(table.name.removesuffix(SUFFIX) + ".xyz.xz")), np.uint8)
    residues = sum(row.length for row in rows)
    if planes.size != 18 * residues:
        raise InvalidSet(f"{table} lists {residues} residues, its coordinates hold {planes.size / 18:g}")
    low, high = planes.reshape(2, 3, 3, residues).astype(np.uint16)
    steps = (low | high << 8).view(np.int16).transpose(2, 0, 1)
    start = 0
    for row in rows:
        hundredths = np.cumsum(steps[start : start + row.length], axis=0, dtype=np.int32)
        start += row.length
        yield Record(
            id=row.id,
            sequence=row.sequence,
            residue_index=np.arange(row.first, row.first + row.length, dtype=np.int64),
            coordinates=(hundredths / 100).astype(np.float32),
            dssp=row.dssp,
        )


class _Row(NamedTuple):
    id: str
    length: int
    first: int
    sequence: str
    dssp: str | None


def _table(path: Path) -> list[_Row]:
    lines = _unpacked(path).decode("ascii", "replace").splitlines()
    names = lines[0].split("\t") if lines else []
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            row = dict(zip(names, line.split("\t"), strict=True))
            length, first = int(row["length"]), int(row["first_residue"])
            rows.append(_Row(row["id"], length, first, row["sequence"], row.get("dssp") or None))
        except (KeyError, ValueError) as error:
            raise InvalidSet(f"{path}, line {number}, is not a row of a packed corpus: {error}") from error
    return rows


def _unpacked(path: Path) -> bytes:
    try:
        with lzma.open(path) as file:
            return file.read()
    except (lzma.LZMAError, EOFError) as error:
        raise InvalidSet(f"{path} is damaged: {error}") from error
