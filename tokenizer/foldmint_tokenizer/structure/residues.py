"""Finds the protein residues of a file: by the file's own tables if it has them, otherwise by chemistry."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.structure.atom_table import MISSING, AtomRole, AtomTable, EntityClass
from foldmint_tokenizer.structure.backbone import FARTHEST
from foldmint_tokenizer.structure.left_out import LeftOutKind
from foldmint_tokenizer.structure.residue_names import (
    FORCE_FIELD,
    LEFT_OUT_KINDS,
    STANDARD,
    NameKind,
    is_linking,
    name_kind,
)

_BOND = 2.0
"""Å, maximum from C to the next N; a peptide bond is 1.33 long, and C and N of one residue are 2.46 apart."""

_NUMBERS_APART, _NUMBERS_APART_WEAK = 30, 3
_A_NUMBER = 4.0
"""Å, maximum from CA to CA for each step in residue number; a stretched chain has 3.8."""

_BACKBONE = 3
_FEW_PAIRS = 1_000_000  # are compared all with all


@dataclass(frozen=True, eq=False)
class BackboneAtoms:
    """Backbone atoms of the runs of a table that may be a protein's.

    atoms: (n,) indices of atoms in the table. run: (n,) their runs. role: (n,) 0 N, 1 CA, 2 C. positions: (n, 3), Å.
    """

    atoms: NDArray[np.int64]
    run: NDArray[np.int64]
    role: NDArray[np.int8]
    positions: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ProteinRuns:
    """Classified runs of a table.

    protein: (runs,) bool. kind: (runs,) int64, indices into kinds: what the other runs are.
    """

    protein: NDArray[np.bool_]
    backbone: BackboneAtoms
    kinds: list[LeftOutKind]
    kind: NDArray[np.int64]


def find_protein(table: AtomTable) -> ProteinRuns:
    """Which runs are a protein's, and what the others are.

    In order of precedence: caps (ACE, NH2, ...) never count. If the file's tables classify a residue, they decide.
    Otherwise, peptide-linking components of the CCD and amino acids of force fields count unless they are free, that
    is: not bonded to another residue, HETATM or with both oxygens of a carboxylate, and not within reach of the chain
    by number and distance. Residues in no table count if they have N, CA and C, and a peptide bond to a residue of
    their chain. If the file has a SEQRES that agrees with the chain, SEQRES decides these two cases.

    Raises InvalidStructure for positions that are not numbers.
    """
    kinds = _by_name(table, name_kind, np.int64)
    kinds[(kinds == NameKind.ION) & (np.diff(table.starts) > 1)] = NameKind.UNKNOWN  # an ion is one atom
    present = _present(table)
    undecided = table.entity_class == EntityClass.UNKNOWN

    by_table = (table.entity_class == EntityClass.PROTEIN) & (kinds != NameKind.CAP) & (kinds != NameKind.WATER)
    amino_acid = (kinds == NameKind.AMINO_ACID) & (_by_name(table, is_linking, bool) | present[:, AtomRole.CA])
    unknown = ((kinds == NameKind.AMINO_ACID) | (kinds == NameKind.UNKNOWN)) & ~amino_acid & undecided
    unknown &= present[:, AtomRole.N] | present[:, AtomRole.C]
    amino_acid &= undecided

    candidates = by_table | amino_acid | unknown
    backbone = _backbone(table, candidates)
    bonded = _bonded(table, backbone, candidates)
    # A rare name alone is weak evidence: programs name ligands arbitrarily.
    weak = amino_acid & ~_by_name(table, _is_common, bool) & ~present[:, AtomRole.CA]
    lone = amino_acid & ~bonded & (weak | (present[:, AtomRole.N] & present[:, AtomRole.C]))
    joined = unknown & bonded
    whole = present[:, :_BACKBONE].all(1)

    protein = by_table | (amino_acid & ~lone) | (joined & whole)
    if lone.any():
        protein[lone] = ~_free(table, backbone, present, protein, np.flatnonzero(lone), weak[lone])
    doubtful = lone | (unknown & ~protein)
    if doubtful.any():
        _apply_seqres(table, protein, doubtful)

    listing = list(LeftOutKind)
    kind = np.array([listing.index(LEFT_OUT_KINDS[NameKind(value)]) for value in range(len(NameKind))])[kinds]
    kind[table.entity_class == EntityClass.NUCLEIC_ACID] = listing.index(LeftOutKind.NUCLEIC_ACID)
    kind[joined & ~whole] = listing.index(LeftOutKind.WITHOUT_CA)
    return ProteinRuns(protein, backbone, listing, kind)


def _by_name(table: AtomTable, of: Callable[[str], object], dtype: type) -> NDArray[Any]:
    """A property of the names, for each run, (runs,)."""
    return np.array([of(name) for name in table.names], dtype)[table.name]


def _is_common(name: str) -> bool:
    return name.upper() in STANDARD or name.upper() in FORCE_FIELD


def _present(table: AtomTable) -> NDArray[np.bool_]:
    """Whether each run has an atom of each role, (runs, roles)."""
    found = np.zeros((len(table), len(AtomRole) - 1), bool)
    atoms = np.flatnonzero(table.role >= 0)
    found[np.searchsorted(table.starts, atoms, "right") - 1, table.role[atoms]] = True
    return found


def _backbone(table: AtomTable, runs: NDArray[np.bool_]) -> BackboneAtoms:
    atoms = np.flatnonzero((table.role >= 0) & (table.role < _BACKBONE))
    run = np.searchsorted(table.starts, atoms, "right") - 1
    own = runs[run]
    atoms, run = atoms[own], run[own]
    return BackboneAtoms(atoms, run, table.role[atoms], table.positions(atoms))


def _places(backbone: BackboneAtoms, runs: int) -> NDArray[np.float64]:
    """N, CA and C of each run, (runs, 3, 3); the first of alternatives."""
    places = np.full((runs, _BACKBONE, 3), np.nan)
    places[backbone.run[::-1], backbone.role[::-1]] = backbone.positions[::-1]
    places[np.abs(places) > FARTHEST] = np.nan  # rejected later if they are a protein's
    return places


def _bonded(table: AtomTable, backbone: BackboneAtoms, runs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each run has a peptide bond to another one of its chain, (runs,)."""
    places = _places(backbone, len(table))
    bonded = np.zeros(len(table), bool)
    order = np.flatnonzero(runs)
    first, second = order[:-1], order[1:]
    same = (table.chain[first] == table.chain[second]) & (table.part[first] == table.part[second])
    near = ((places[first, AtomRole.C] - places[second, AtomRole.N]) ** 2).sum(1) <= _BOND**2
    bonded[first[same & near]] = bonded[second[same & near]] = True
    left = np.flatnonzero(runs & ~bonded & ~np.isnan(places[:, (AtomRole.N, AtomRole.C)]).any((1, 2)))
    if len(left):  # parts of a chain may be separate in a file
        for own, other in ((AtomRole.N, AtomRole.C), (AtomRole.C, AtomRole.N)):
            bonded[left] |= _near_another(table, places[:, own], places[:, other], left, order)
    return bonded


def _near_another(
    table: AtomTable,
    own: NDArray[np.float64],
    others: NDArray[np.float64],
    left: NDArray[np.int64],
    order: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether each run in `left` has its `own` atom within bonding distance of an `others` atom in another run of its
    chain.
    """
    there = order[~np.isnan(others[order]).any(1)]
    if len(left) * len(there) <= _FEW_PAIRS:
        apart = ((own[left][:, None] - others[there][None]) ** 2).sum(2)
        same = (table.chain[left][:, None] == table.chain[there]) & (table.part[left][:, None] == table.part[there])
        close: NDArray[np.bool_] = (same & (left[:, None] != there) & (apart <= _BOND**2)).any(1)
        return close
    # Imported here: few files need it, and scipy would make each start slower.
    from scipy.spatial import cKDTree

    # The chain is a fourth axis that separates different chains.
    chain = (table.chain + len(table.chain_names) * table.part) * 10 * _BOND
    points = np.concatenate([others[there], chain[there, None]], 1)
    points, owner = np.unique(points, axis=0, return_index=True)  # a tree cannot split equal points
    distance, found = cKDTree(points).query(np.concatenate([own[left], chain[left, None]], 1), 2)
    another = there[owner[np.minimum(found, len(points) - 1)]] != left[:, None]
    near: NDArray[np.bool_] = (another & (distance <= _BOND)).any(1)
    return near


def _free(
    table: AtomTable,
    backbone: BackboneAtoms,
    present: NDArray[np.bool_],
    protein: NDArray[np.bool_],
    lone: NDArray[np.int64],
    weak: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which amino acids without a peptide bond are free, (lone,). weak: (lone,), identified by a rare name only."""
    alpha = _places(backbone, len(table))[:, AtomRole.CA]
    hetatm = table.hetatm[table.starts[lone]]
    carboxylate = present[lone, AtomRole.SECOND_O]
    chain = table.chain + len(table.chain_names) * table.part
    known = np.flatnonzero(protein & (table.number != MISSING))
    known = known[np.lexsort((table.number[known], chain[known]))]
    owners = chain[known]
    reached = np.zeros(len(lone), bool)
    for place, run in enumerate(lone.tolist()):
        first, last = np.searchsorted(owners, [chain[run], chain[run] + 1])
        numbers = table.number[known[first:last]]
        at = np.searchsorted(numbers, table.number[run])
        for near in known[first:last][max(0, at - 1) : at + 1].tolist():
            apart = max(1, abs(int(table.number[near]) - int(table.number[run])))
            distance = float(np.linalg.norm(alpha[near] - alpha[run]))
            most = _NUMBERS_APART_WEAK if weak[place] else _NUMBERS_APART
            reached[place] |= apart <= most and not distance > _A_NUMBER * apart
    free: NDArray[np.bool_] = (hetatm & carboxylate) | ((hetatm | carboxylate | weak) & ~reached)
    return free


def _apply_seqres(table: AtomTable, protein: NDArray[np.bool_], doubtful: NDArray[np.bool_]) -> None:
    """Decide uncertain residues by SEQRES, chain by chain, where it agrees with the certain ones."""
    sequences = table.sequences({table.names[code] for code in np.unique(table.name[doubtful]).tolist()})
    for chain, name in enumerate(table.chain_names):
        own = table.chain == chain
        if name not in sequences or not (own & doubtful).any():
            continue
        runs = np.flatnonzero(own & (protein | doubtful))
        names = [table.names[code] for code in table.name[runs].tolist()]
        taken = _fit(names, doubtful[runs].tolist(), sequences[name])
        if taken is not None:
            protein[runs] = taken


def _fit(names: list[str], doubtful: list[bool], sequence: list[str]) -> list[bool] | None:
    """Which of the names fit into a sequence, in order; None if the certain ones do not all fit.

    A doubtful name fits if all certain names after it still fit.
    """
    latest: list[int] = []  # the last possible position of each certain name, from the last name to the first
    end = len(sequence)
    for name, doubt in zip(reversed(names), reversed(doubtful), strict=True):
        if not doubt:
            end -= 1
            while end >= 0 and sequence[end] != name:
                end -= 1
            if end < 0:
                return None
            latest.append(end)
    if not latest:
        return None
    places: dict[str, list[int]] = {}
    for place, name in enumerate(sequence):
        places.setdefault(name, []).append(place)
    taken, begin = [], 0
    for name, doubt in zip(names, doubtful, strict=True):
        own = places.get(name, [])
        at = bisect_left(own, begin)
        bound = len(sequence) if not latest else latest[-1] + (not doubt)
        fits = at < len(own) and own[at] < bound
        taken.append(fits)
        begin = own[at] + 1 if fits else begin
        if not doubt:
            latest.pop()
    return taken
