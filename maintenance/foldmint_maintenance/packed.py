"""Reader of the packed backbone corpus: `NAME.tsv.xz`, a table of chains, and `NAME.xyz.xz`, their coordinates.

The coordinates are int16 hundredths of an Å, each residue less the one before it in its chain, as byte planes
[low/high byte, atom (N, CA, C), axis, residue].
"""

import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foldmint_maintenance.corpus import Record

SUFFIX = ".tsv.xz"


def read_packed(table: Path) -> Iterator[Record]:
    """The records of a packed corpus, from the path of its table. Raises ValueError if the two files do not fit."""
    with lzma.open(table, "rt", encoding="ascii") as file:
        header, *lines = file.read().splitlines()
    names = header.split("\t")
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    with lzma.open(table.with_name(table.name.removesuffix(SUFFIX) + ".xyz.xz")) as file:
        planes = np.frombuffer(file.read(), np.uint8)
    residues = sum(int(row["length"]) for row in rows)
    if planes.size != 18 * residues:
        raise ValueError(f"{table} lists {residues} residues, its coordinates hold {planes.size / 18:g}")
    low, high = planes.reshape(2, 3, 3, residues).astype(np.uint16)
    steps = (low | high << 8).view(np.int16).transpose(2, 0, 1)
    start = 0
    for row in rows:
        length, first = int(row["length"]), int(row["first_residue"])
        hundredths = np.cumsum(steps[start : start + length], axis=0, dtype=np.int32)
        start += length
        yield Record(
            id=row["id"],
            sequence=row["sequence"],
            residue_index=np.arange(first, first + length, dtype=np.int64),
            coordinates=(hundredths / 100).astype(np.float32),
            dssp=row.get("dssp") or None,
        )
