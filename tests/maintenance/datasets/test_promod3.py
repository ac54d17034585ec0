"""ProMod3's structure database: one written here after its description, and an excerpt of the real one."""

import io
import struct
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from foldmint_maintenance.datasets.loading import Digest
from foldmint_maintenance.datasets.promod3 import Chain, read_structure_db
from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.errors import InvalidSet
from helpers.support import DATA

# Bytes a residue, in the file's order; those of the profiles at the end are never read.
WIDTHS = {"sequence": 1, "positions": 24, "dihedrals": 4, "surface": 2, "depths": 2, "dssp": 1, "a": 40, "b": 40}


@dataclass(frozen=True)
class Written:
    """A chain to write. positions: N, CA, C and O of each residue in turn, hundredths of an Å."""

    id: str
    chain: str
    first: int
    sequence: str
    dssp: str
    positions: list[tuple[int, int, int]]
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


O = (65535, 0, 9999)  # noqa: E741 (the atom, which nothing may depend on)

CHAINS = [
    # Means over N, CA and C: 3.5, 7 and 0.1 Å.
    Written(
        *("1ABC", "A", 7, "MK", "CH"),
        positions=[
            *((100, 700, 0), (200, 700, 0), (300, 700, 0), O),
            *((400, 700, 0), (500, 700, 0), (600, 700, 60), O),
        ],
    ),
    # A mean of 6 2/3 Å in x: the atoms are -3.6667, -0.6667 and 4.3333 from it.
    Written(
        *("2XYZ", "b", 1, "W", "E"),
        positions=[(300, 65535, 5), (600, 65535, 5), (1100, 65535, 5), O],
        shift=(-2.5, 100.25, 7.0),
    ),
    Written("3DEF", "9", 65535, "GG", "TS", positions=[(1, 2, 3), (4, 5, 6), (7, 8, 9), O] * 2),
]

CENTERED = {
    "1ABC_A": [
        [[-2.5, 0, -0.1], [-1.5, 0, -0.1], [-0.5, 0, -0.1]],
        [[0.5, 0, -0.1], [1.5, 0, -0.1], [2.5, 0, 0.5]],
    ],
    "2XYZ_b": [[[-3.67, 0, 0], [-0.67, 0, 0], [4.33, 0, 0]]],
    "3DEF_9": [[[-0.03, -0.03, -0.03], [0, 0, 0], [0.03, 0.03, 0.03]]] * 2,
}


@dataclass(frozen=True)
class Database:
    """What is written; each field may be told wrong."""

    magic: int = 1234
    version: int = 2
    sizes: tuple[int, ...] = (4, 4, 2, 8, 2, 6, 88, 40, 24, 6, 4, 1)
    ones: tuple[float, int, int, int, int] = (1.0, 1, 1, 1, 1)
    arrays: int = -1
    count: int | None = None
    chains: tuple[Written, ...] = tuple(CHAINS)
    starts: tuple[int, ...] | None = None
    lengths: tuple[int, ...] | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def bytes(self) -> bytes:
        lengths = self.lengths or tuple(len(chain.sequence) for chain in self.chains)
        starts = self.starts or tuple(accumulate(lengths, initial=0))
        parts = [struct.pack("<2I", self.magic, self.version), struct.pack("<12I", *self.sizes)]
        parts += [struct.pack("<fBHQH", *self.ones), struct.pack("<i", self.arrays)]
        parts.append(struct.pack("<Q", len(self.chains) if self.count is None else self.count))
        for chain, start, length in zip(self.chains, starts, lengths, strict=False):
            for text in (chain.id, chain.chain):
                parts.append(struct.pack("<I", len(text)) + text.encode("latin-1"))
            parts.append(struct.pack("<IHH3f", start, length, chain.first, *chain.shift))
        content = {
            "sequence": "".join(chain.sequence for chain in self.chains).encode("latin-1"),
            "positions": b"".join(struct.pack("<3H", *atom) for chain in self.chains for atom in chain.positions),
            "dssp": "".join(chain.dssp for chain in self.chains).encode("latin-1"),
        }
        residues = sum(len(chain.sequence) for chain in self.chains)
        for name, width in WIDTHS.items():
            parts.append(struct.pack("<Q", self.counts.get(name, residues)))
            parts.append(content.get(name, b"\xff" * width * residues))
        return b"".join(parts)


class Forward(io.BytesIO):
    """A stream that goes one way, as that of a package does."""

    def seek(self, *_: Any) -> int:
        raise AssertionError("nothing may be sought")


def _read(content: bytes, wanted: set[str] | None = None) -> list[Chain]:
    return list(read_structure_db(Forward(content), wanted))


def test_every_chain_is_read_as_it_was_written() -> None:
    chains = _read(Database().bytes())
    assert [chain.id for chain in chains] == ["1ABC_A", "2XYZ_b", "3DEF_9"]
    for chain, written in zip(chains, CHAINS, strict=True):
        assert (chain.sequence, chain.dssp, chain.first_residue) == (written.sequence, written.dssp, written.first)
        assert tuple(chain.shift) == written.shift
        assert chain.positions.reshape(-1, 3).tolist() == [list(atom) for atom in written.positions if atom is not O]


def test_records_are_centered_and_numbered_without_gaps() -> None:
    for record, written in zip((chain.record() for chain in _read(Database().bytes())), CHAINS, strict=True):
        assert (record.sequence, record.dssp) == (written.sequence, written.dssp)
        assert record.residue_index.tolist() == [written.first + i for i in range(len(written.sequence))]
        # Exactly the float32 nearest to each hundredth.
        assert record.coordinates.dtype == np.float32
        np.testing.assert_array_equal(record.coordinates, np.array(CENTERED[record.id], np.float32))


def test_only_wanted_chains_are_kept() -> None:
    content = Database().bytes()
    assert [chain.id for chain in _read(content, {"3DEF_9", "1ABC_A", "9ZZZ_Z"})] == ["1ABC_A", "3DEF_9"]
    assert _read(content, {"3DEF_9"})[0].positions[0, 1].tolist() == [4, 5, 6]
    assert _read(content, set()) == []


def test_the_excerpt_gives_the_records_of_the_sets(chains: list[Record]) -> None:
    with (DATA / "structure_db.dat").open("rb") as file:
        records = [chain.record() for chain in read_structure_db(file)]
    assert [record.id for record in records] == ["1SC6_B", "2QTV_C", "3B0F_B", "4YNX_A"]
    (known,) = (record for record in chains if record.id == "3B0F_B")
    assert (records[2].sequence, records[2].dssp) == (known.sequence, known.dssp)
    np.testing.assert_array_equal(records[2].residue_index, known.residue_index)
    np.testing.assert_array_equal(records[2].coordinates, known.coordinates)
    # Of the sets' own records. Centers of the other three lie so near half a hundredth that any other order of
    # arithmetic, or more digits, rounds some atom otherwise.
    digest = Digest()
    list(digest.through(records))
    assert digest.sha256() == "21dbceedaecfb6fccf6f09aa4c95e15a889f8fcdc55cca258ef4c1b11e86cda8"


def _changed(**changes: Any) -> Database:
    """A database whose second chain is changed."""
    return Database(chains=(CHAINS[0], replace(CHAINS[1], **changes), CHAINS[2]))


@pytest.mark.parametrize(
    ("database", "message"),
    [
        (Database(magic=1235), "it begins with 1235, not 1234"),
        (Database(version=1), "of version 1; 2 can be read"),
        (Database(version=3), "of version 3; 2 can be read"),
        (Database(sizes=(4, 8, 2, 8, 2, 6, 88, 40, 24, 6, 4, 1)), "other sizes"),
        (Database(ones=(1.0, 1, 256, 1, 1)), "other sizes"),
        (Database(arrays=0b110111), r"without all of its arrays \(bits 110111\)"),
        (Database(arrays=0), "without all of its arrays"),
        (Database(count=0), "it claims 0 chains"),
        (Database(count=2**63), "it claims 9223372036854775808 chains"),
        (_changed(id=""), "chain 2 has no proper name"),
        (_changed(id="2" * 65), "chain 2 has no proper name"),
        (_changed(id="2X/Z"), "chain 2 has no proper name"),
        (_changed(chain="é"), "chain 2 has no proper name"),
        (_changed(shift=(0.0, float("nan"), 0.0)), "chain 2, 2XYZ_b, cannot be"),
        (_changed(shift=(0.0, 0.0, float("-inf"))), "chain 2, 2XYZ_b, cannot be"),
        (_changed(shift=(1e30, 0.0, 0.0)), "chain 2, 2XYZ_b, cannot be"),
        (Database(starts=(0, 3, 3)), "chain 2, 2XYZ_b, cannot be"),
        (Database(starts=(0, 2, 2)), "chain 3, 3DEF_9, cannot be"),
        (Database(lengths=(2, 0, 2)), "chain 2, 2XYZ_b, cannot be"),
        (Database(lengths=(2, 1, 65535)), "sequence of 5 residues, where its chains have 65538"),
        (Database(counts={"sequence": 4}), "sequence of 4 residues, where its chains have 5"),
        (Database(counts={"positions": 2**64 - 1}), "positions of 18446744073709551615 residues"),
        (Database(counts={"dihedrals": 6}), "dihedral angles of 6 residues"),
        (Database(counts={"surface": 0}), "accessible surface of 0 residues"),
        (Database(counts={"depths": 4}), "depths of 4 residues"),
        (Database(counts={"dssp": 6}), "DSSP of 6 residues"),
        (_changed(sequence="-"), "sequence has more than letters"),
        (_changed(dssp="é"), "DSSP has more than letters"),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_refused(database: Database, message: str) -> None:
    with pytest.raises(InvalidSet, match=message):
        _read(database.bytes())


READ = len(Database().bytes()) - 2 * (8 + 5 * WIDTHS["a"])  # where the profiles begin


def test_a_database_may_be_cut_nowhere_before_the_profiles() -> None:
    content = Database().bytes()
    for length in range(READ):
        with pytest.raises(InvalidSet, match="ends within its"):
            _read(content[:length])
    assert len(_read(content[:READ])) == 3


def test_no_flipped_bit_crashes_the_reader() -> None:
    content = Database().bytes()
    passed = set()
    for bit in range(8 * READ):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            for chain in _read(bytes(damaged)):
                assert np.isfinite(chain.record().coordinates).all()
            passed.add(bit // 8)
        except InvalidSet:
            pass
    # Magic number, version, sizes and ones take up 73 bytes, and all of them count.
    assert min(passed) >= 73
