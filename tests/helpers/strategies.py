"""Structures for hypothesis: what files and programs send, and what no one would."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

# Å: between CA atoms, and of N and C from their own.
_STEP = 3.8
_N, _C = (-0.6, 1.3, 0.2), (1.2, -0.8, 0.3)
_INT32 = (-(2**31), 2**31 - 1)

# What coordinates become, of one atom or of all.
EXTREMES = (0.0, -0.0, 1e-45, -1e-40, 1e-3, 1e5, -999_999.94, 1e6, 1_000_001.0, 3.4e38, float("inf"), float("-inf"))
SCALES = (*(1.0,) * 10, 0.0, 1e-40, 1e-6, 1e-3, 10.0, 1e3, 1e4, 1e5, 1e7, 1e38)
_ODD = ("", "AAA", "a b", "é", "\U0001f9ec", "\u202eA", "\x1b[2J", "\x00", "\n", "x" * 101)


def names() -> st.SearchStrategy[str]:
    """Names of chains: a letter mostly."""
    letters = st.sampled_from("AAAAAABC")
    return st.one_of(letters, letters, letters, letters, letters, st.sampled_from(_ODD), st.text(max_size=8))


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain as it might be sent: name, coordinates (residues, 3, 3) float32 Å, numbers (residues,), a letter each.

    insertions: insertion codes, one a residue; empty: none.
    """

    name: str
    coordinates: NDArray[np.float32]
    index: NDArray[np.int64]
    sequence: str
    insertions: str = ""

    def __repr__(self) -> str:
        return f"Chain({self.name!r}, {len(self.index)} residues, {self.coordinates.tolist()[:3]}, {self.index[:5]}...)"


def lengths(most: int) -> st.SearchStrategy[int]:
    """Numbers of residues: few mostly, and those about 16, which is as many as have neighbors."""
    return st.one_of(st.integers(1, 40), st.sampled_from([1, 15, 16, 17, 33]), st.integers(0, most))


@st.composite
def chains(draw: st.DrawFn, most: int = 200) -> Chain:
    """One chain: a helix-like walk, bent, scaled and moved, with atoms missing, doubled and out of bounds."""
    residues = draw(lengths(most))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = chance.normal(size=(residues, 3))
    ca = np.cumsum(_STEP * steps / np.linalg.norm(steps, axis=1, keepdims=True), 0)
    atoms = np.stack([ca + _N, ca, ca + _C], 1) + chance.normal(scale=0.1, size=(residues, 3, 3))
    with np.errstate(over="ignore", under="ignore"):
        x = (atoms * draw(st.sampled_from(SCALES)) + draw(st.sampled_from((0.0, 0.0, 500.0, -9e5)))).astype(np.float32)
    if residues:
        _damage(draw, x, chance)
    return Chain(draw(names()), x, draw(_numbers(residues)), draw(_letters(residues)))


def _damage(draw: st.DrawFn, x: NDArray[np.float32], chance: np.random.Generator) -> None:
    """Some of the atoms missing, some residues in one place, some coordinates at limits; in place."""
    residues = len(x)
    missing = draw(st.sampled_from((0.0, 0.0, 0.02, 0.3, 1.0)))
    x[chance.random((residues, 3)) < missing] = np.nan
    for _ in range(draw(st.sampled_from((0, 0, 1, 3)))):
        one, other = draw(st.integers(0, residues - 1)), draw(st.integers(0, residues - 1))
        x[one] = x[other]
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 3)))):
        place = draw(st.integers(0, residues - 1)), draw(st.integers(0, 2)), draw(st.integers(0, 2))
        x[place] = draw(st.one_of(st.sampled_from(EXTREMES), st.floats(width=32)))


@st.composite
def _numbers(draw: st.DrawFn, residues: int) -> NDArray[np.int64]:
    """Numbers of residues: in order, with jumps, all the same, backwards, or at the limits of 32 bits."""
    first = draw(st.sampled_from((1, 0, -5, _INT32[0], _INT32[1] - residues, 9_990)))
    index = first + np.arange(residues, dtype=np.int64)
    match draw(st.sampled_from(("order", "order", "jumps", "same", "backwards", "limits"))):
        case "jumps":
            index[residues // 2 :] += draw(st.integers(2, 100))
        case "same":
            index[:] = first
        case "backwards":
            index = index[::-1].copy()
        case "limits":
            index[: residues // 2] = _INT32[0]
            index[residues // 2 :] = _INT32[1]
    return np.clip(index, *_INT32)


def _letters(residues: int) -> st.SearchStrategy[str]:
    return st.sampled_from(
        ("", "A" * residues, "X" * residues, "é" * residues, "\x00" * residues, "A" * (residues + 1))
    )


def structures(most: int = 200) -> st.SearchStrategy[list[Chain]]:
    """One chain, or a few."""
    return st.one_of(chains(most).map(lambda chain: [chain]), st.lists(chains(40), max_size=4))


@st.composite
def readable(draw: st.DrawFn, most: int = 60) -> list[Chain]:
    """Chains that files can hold: some residues, short names, and insertion codes."""
    found = []
    for name in draw(st.lists(st.sampled_from("ABCZ09"), min_size=1, max_size=3, unique=True)):
        chain = draw(chains(most))
        residues = len(chain.index)
        insertions = draw(st.sampled_from(("", " " * residues, "A" * residues)))
        # Residues of one number make most files unreadable.
        index = chain.index if draw(st.integers(0, 7)) == 0 else draw(st.integers(-500, 5000)) + np.arange(residues)
        found.append(replace(chain, name=name, index=index, sequence="", insertions=insertions))
    return found


def as_pdb(structure: list[Chain], alternatives: bool = False) -> bytes:
    """The PDB file, its columns kept, whatever the values; alternatives: each atom twice, the second moved by 9 Å."""
    lines: list[str] = []
    for chain in structure:
        for row, number in enumerate(chain.index.tolist()):
            code = chain.insertions[row] if chain.insertions else " "
            for name, position in zip(("N", "CA", "C"), chain.coordinates[row], strict=True):
                if np.isnan(position).all():
                    continue
                for letter, occupancy, by in (("A", 0.6, 0.0), ("B", 0.4, 9.0)) if alternatives else ((" ", 1.0, 0.0),):
                    numbers = "".join(f"{float(value) + by:8.3f}"[:8] for value in position)
                    place = f"{chain.name[:1]}{str(number)[:4]:>4}{code}"
                    lines.append(
                        f"ATOM  {len(lines) % 100_000:5d}  {name:<3}{letter}ALA {place}"
                        f"   {numbers}{occupancy:6.2f}  0.00          {name[0]:>2}"
                    )
        lines.append("TER")
    return ("\n".join([*lines, "END"]) + "\n").encode()


_COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
    "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id auth_asym_id pdbx_PDB_model_num"
)


def as_mmcif(structure: list[Chain], alternatives: bool = False) -> bytes:
    """The mmCIF file: coordinates with all their digits, and atoms that are NaN left out."""
    lines = ["data_x", "loop_", *(f"_atom_site.{name}" for name in _COLUMNS.split())]
    serial = 0
    for chain in structure:
        for row, number in enumerate(chain.index.tolist()):
            code = chain.insertions[row].strip() or "?" if chain.insertions else "?"
            for name, position in zip(("N", "CA", "C"), chain.coordinates[row], strict=True):
                if np.isnan(position).all():
                    continue
                for letter, occupancy, by in (("A", 0.6, 0.0), ("B", 0.4, 9.0)) if alternatives else ((".", 1.0, 0.0),):
                    serial += 1
                    numbers = " ".join(repr(float(value) + by) for value in position)
                    lines.append(
                        f"ATOM {serial} {name[0]} {name} {letter} ALA {chain.name} 1 {row + 1} {code} {numbers} "
                        f"{occupancy} 0 {number} {chain.name} 1"
                    )
    return ("\n".join(lines) + "\n").encode()
