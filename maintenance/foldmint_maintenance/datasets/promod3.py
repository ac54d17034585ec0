"""Reader of ProMod3's structure database, `structure_db.dat`: gapless backbones of PDB entries, at 0.01 Å.

The file is little-endian: a header; the table of chains; then, over the residues of all chains in the table's order,
arrays that each begin with their number of residues. They hold the sequence, positions, dihedral angles, accessible
surface, depth, DSSP and two profiles; those before DSSP and DSSP itself are read, the profiles are not.
"""

import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.errors import InvalidSet

MAGIC = 1234
VERSION = 2

_START = struct.Struct("<2I")  # magic number, version
_LAYOUT = struct.Struct("<12I f B H Q H")  # sizes of twelve types where it was written; the number one in five
_COUNTS = struct.Struct("<i Q")  # bits of the arrays that are there, chains
_LENGTH = struct.Struct("<I")  # of a text, in bytes
_ENTRY = struct.Struct("<I 2H 3f")  # first residue in the arrays, residues, number of the first, shift
_RESIDUES = struct.Struct("<Q")  # of an array

# Another layout means another kind of machine, whose bytes would be read as nonsense.
_KNOWN_LAYOUT = (4, 4, 2, 8, 2, 6, 88, 40, 24, 6, 4, 1, 1.0, 1, 1, 1, 1)
_ALL_ARRAYS = 0b111111

_POSITIONS = 24  # bytes a residue: N, CA, C and O, three axes each, uint16
_BEFORE_DSSP = {"dihedral angles": 4, "accessible surface": 2, "depths": 2}

# Limits above what the PDB has, to detect damaged counts and texts.
_MOST_CHAINS = 10_000_000
_LONGEST_TEXT = 64
_FARTHEST = 10_000.0  # Å


@dataclass(frozen=True)
class Chain:
    """The longest gapless stretch of a chain, as the database holds it.

    id: PDB id, `_`, chain. first_residue: the number of its first residue; each next one has the next number.
    positions: (residues, atom, axis), that is (residues, 3, 3), of N, CA and C, uint16, 0.01 Å.
    shift: (3,) float32, Å: what had been added to the entry's positions so that none was negative.
    dssp: a letter a residue; C where DSSP names nothing.
    """

    id: str
    first_residue: int
    shift: NDArray[np.float32]
    sequence: str
    positions: NDArray[np.uint16]
    dssp: str

    def record(self) -> Record:
        """The chain centered on the mean of its atoms, and rounded to 0.01 Å."""
        # In float32, shift and all, and summed one by one: the sets that the default model was trained on were made
        # so, and only so does each position round to the same hundredth.
        entry = self.positions * np.float32(0.01) - self.shift
        center = np.cumsum(entry.reshape(-1, 3), axis=0, dtype=np.float32)[-1] / np.float32(3 * len(entry))
        hundredths = np.rint((entry - center) * np.float32(100)).astype(np.int32)
        return Record(
            id=self.id,
            sequence=self.sequence,
            residue_index=self.first_residue + np.arange(len(entry), dtype=np.int64),
            coordinates=(hundredths / 100).astype(np.float32),
            dssp=self.dssp,
        )


def read_structure_db(file: IO[bytes], wanted: Container[str] | None = None) -> Iterator[Chain]:
    """The chains of a database, or those whose ids are `wanted`, in its order.

    file: read once from where it stands, never backward. Only wanted chains are held, about 20 bytes a residue.
    Raises InvalidSet, when the first chain is asked for, if the database is damaged or of another kind.
    """
    entries = _table(file)
    kept = [wanted is None or entry.id in wanted for entry in entries]

    def letters(what: str) -> list[str]:
        return [_letters(block, what) for block in compress(_blocks(file, entries, 1, what), kept)]

    sequences = letters("sequence")
    positions = [_backbone(block) for block in compress(_blocks(file, entries, _POSITIONS, "positions"), kept)]
    for what, width in _BEFORE_DSSP.items():
        for _ in _blocks(file, entries, width, what):
            pass
    states = letters("DSSP")
    for entry, sequence, backbone, dssp in zip(compress(entries, kept), sequences, positions, states, strict=True):
        yield Chain(entry.id, entry.first_residue, np.array(entry.shift, np.float32), sequence, backbone, dssp)


class _Entry(NamedTuple):
    """A row of the table of chains."""

    id: str
    residues: int
    first_residue: int
    shift: tuple[float, float, float]


def _table(file: IO[bytes]) -> list[_Entry]:
    magic, version = _values(file, _START, "header")
    if magic != MAGIC:
        raise InvalidSet(f"no structure database of ProMod3: it begins with {magic}, not {MAGIC}")
    if version != VERSION:
        raise InvalidSet(f"a structure database of version {version}; {VERSION} can be read")
    if _values(file, _LAYOUT, "header") != _KNOWN_LAYOUT:
        raise InvalidSet("a structure database whose types have other sizes than those of x86-64")
    arrays, chains = _values(file, _COUNTS, "header")
    if arrays & _ALL_ARRAYS != _ALL_ARRAYS:
        raise InvalidSet(f"a structure database without all of its arrays (bits {arrays & _ALL_ARRAYS:06b})")
    if not 0 < chains <= _MOST_CHAINS:
        raise InvalidSet(f"a damaged structure database: it claims {chains} chains")
    entries: list[_Entry] = []
    residues = 0
    for number in range(1, chains + 1):
        name = f"{_text(file, number)}_{_text(file, number)}"
        start, length, first_residue, *shift = _values(file, _ENTRY, "table of chains")
        x, y, z = shift
        if start != residues or not length or not all(abs(axis) <= _FARTHEST for axis in shift):
            raise InvalidSet(f"a damaged structure database: chain {number}, {name}, cannot be as its table says")
        entries.append(_Entry(name, length, first_residue, (x, y, z)))
        residues += length
    return entries


def _text(file: IO[bytes], number: int) -> str:
    (length,) = _values(file, _LENGTH, "table of chains")
    text = _exactly(file, length, "table of chains") if 0 < length <= _LONGEST_TEXT else b""
    if not text.isalnum():  # of bytes: ASCII alone
        raise InvalidSet(f"a damaged structure database: chain {number} has no proper name")
    return text.decode("ascii")


def _blocks(file: IO[bytes], entries: list[_Entry], width: int, what: str) -> Iterator[bytes]:
    """An array, chain by chain, so that no more is held than is there; width: bytes a residue."""
    (count,) = _values(file, _RESIDUES, what)
    residues = sum(entry.residues for entry in entries)
    if count != residues:
        raise InvalidSet(f"a damaged structure database: {what} of {count} residues, where its chains have {residues}")
    for entry in entries:
        yield _exactly(file, entry.residues * width, what)


def _letters(block: bytes, what: str) -> str:
    if not block.isalpha():  # of bytes: ASCII alone
        raise InvalidSet(f"a damaged structure database: {what} has more than letters")
    return block.decode("ascii")


def _backbone(block: bytes) -> NDArray[np.uint16]:
    """Positions without those of O."""
    return np.frombuffer(block, "<u2").reshape(-1, 4, 3)[:, :3].astype(np.uint16)


def _values(file: IO[bytes], form: struct.Struct, what: str) -> tuple[int, ...]:
    return form.unpack(_exactly(file, form.size, what))


def _exactly(file: IO[bytes], size: int, what: str) -> bytes:
    block = file.read(size)
    if len(block) != size:
        raise InvalidSet(f"a structure database that ends within its {what}")
    return block
