"""What docs/reading.md says of structure files, once more: fixed columns and mmCIF tables read in plain Python.

Nothing here is Foldmint's or gemmi's. Which names are amino acids, and their letters, is told by the wwPDB's Chemical
Component Dictionary as biotite has it; the force-field names are those of the documentation.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from helpers.files.plain_atoms import FORCE_FIELD, STANDARD, Atom, read_atoms

CAPS = frozenset(["ACE", "NME", "NMA", "NH2", "FOR", "NHE", "MYR", "BOC", "CBX", "CBZ", "TFA", "AMN", "CBM", "NPH"])
SECOND_OXYGENS = frozenset(["OXT", "OT2", "O2", "OC2"])
BOND = 2.0
"""Å; the longest C-N that is a peptide bond."""
REACH = 4.0
"""Å a residue number: what a chain can bridge."""
FARTHEST_NUMBER = 30


_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Component:
    """A name in the dictionary: whether it is an amino acid that links to others, and its letter."""

    amino_acid: bool
    letter: str


@dataclass(eq=False)
class Residue:
    """Atoms of one residue, in the file's order."""

    name: str
    number: int
    insertion: str
    atoms: list[Atom] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, str]:
        return self.number, self.insertion

    @property
    def label(self) -> str:
        return f"{self.name} {self.number}{self.insertion}"

    def has(self, name: str) -> bool:
        return any(atom.name == name for atom in self.atoms)

    @cached_property
    def backbone(self) -> NDArray[np.float64]:
        """N, CA, C: (3, 3), NaN where missing; of alternates those with the highest occupancy in all."""
        atoms = [atom for atom in self.atoms if atom.name in ("N", "C") or (atom.name == "CA" and _carbon(atom))]
        total: dict[str, float] = {}
        for atom in atoms:
            if atom.alternate:
                total[atom.alternate] = total.get(atom.alternate, 0.0) + atom.occupancy
        best = max(total, key=lambda one: total[one]) if total else ""
        found = np.full((3, 3), np.nan)
        for place, name in enumerate(("N", "CA", "C")):
            named = [atom for atom in atoms if atom.name == name]
            if named:
                chosen = min(named, key=lambda a: (a.alternate != best, bool(a.alternate), -a.occupancy))
                found[place] = chosen.position
        return found


@dataclass(frozen=True)
class Chain:
    """What is compared: a protein chain's residues, in the file's order."""

    name: str
    residues: list[Residue]
    letters: str
    coordinates: NDArray[np.float64]


def read(content: bytes, components: Mapping[str, Component]) -> list[Chain]:
    """The protein chains of a PDB or mmCIF file, unpacked. Raises ValueError if there is no atom."""
    atoms, polypeptides, others = read_atoms(content)
    if not atoms:
        raise ValueError("there are no atoms")
    chains: list[Chain] = []
    taken = {atom.chain for atom in atoms}
    parts: dict[str, int] = defaultdict(int)
    for name, segment, residues in _chains(atoms):
        kept = _protein(residues, components, polypeptides, others)
        if kept:
            parts[name] += 1
            shown = name if parts[name] == 1 else f"{name}_{parts[name]}"
            if not name and segment:
                parts[segment] += 1
                shown = segment if parts[segment] == 1 else f"{segment}_{parts[segment]}"
            elif not name:
                shown = next(one for one in _NAMES if one not in taken)
            taken.add(shown)
            letters = "".join(letter(residue.name, components) for residue in kept)
            chains.append(Chain(shown, kept, letters, np.stack([residue.backbone for residue in kept])))
    return chains


def letter(name: str, components: Mapping[str, Component]) -> str:
    """X where neither the table of force-field names nor the dictionary has a letter."""
    return FORCE_FIELD.get(name) or (components[name].letter if name in components else "X")


def _carbon(atom: Atom) -> bool:
    return atom.element != "CA"


def _chains(atoms: Sequence[Atom]) -> Iterator[tuple[str, str, list[Residue]]]:
    """Names, segments, residues. What has no name, or comes twice, by segment, TER, and where the numbers fall back."""
    named: dict[str, list[Atom]] = defaultdict(list)
    for atom in atoms:
        named[atom.chain].append(atom)
    place = {id(atom): position for position, atom in enumerate(atoms)}
    parts = [
        part
        for name, members in named.items()
        for part in (_split(members) if not name or _repeats(members) else [members])
    ]
    for part in sorted(parts, key=lambda part: place[id(part[0])]):
        segment = {atom.segment for atom in part}
        yield part[0].chain, next(iter(segment)) if len(segment) == 1 else "", _residues(part)


def _split(atoms: list[Atom]) -> list[list[Atom]]:
    """Into parts in none of which a residue comes twice, as far as segments, TER and numbers tell."""
    segments: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for atom in atoms:
        segments[atom.part, atom.residue, atom.number, atom.insertion].add(atom.segment)
    agreed = all(len(names) == 1 for names in segments.values())
    keys: list[Callable[[Atom], object]] = [lambda atom: atom.segment] if agreed else []
    parts = [atoms]
    for key in [*keys, lambda atom: atom.part]:
        parts = [
            new for part in parts for new in (_grouped(part, key) if _repeats(part) or not part[0].chain else [part])
        ]
    return [new for part in parts for new in (_by_numbers(part) if _repeats(part) else [part])]


def _grouped(atoms: Iterable[Atom], key: Callable[[Atom], object]) -> list[list[Atom]]:
    groups: dict[object, list[Atom]] = defaultdict(list)
    for atom in atoms:
        groups[key(atom)].append(atom)
    return list(groups.values())


def _by_numbers(atoms: Sequence[Atom]) -> list[list[Atom]]:
    """A new part where the numbers fall back, or an N comes again."""
    parts: list[list[Atom]] = [[]]
    seen: set[tuple[object, ...]] = set()
    for atom in atoms:
        key = (atom.number, atom.insertion, atom.residue, atom.name, atom.alternate)
        again = atom.name == "N" and key in seen
        if parts[-1] and (again or atom.number < parts[-1][-1].number):
            parts.append([])
            seen = set()
        seen.add(key)
        parts[-1].append(atom)
    return parts


def _repeats(atoms: Iterable[Atom]) -> bool:
    """Whether an atom of a backbone is there twice."""
    seen: set[tuple[object, ...]] = set()
    for atom in atoms:
        if atom.name not in ("N", "CA", "C"):
            continue
        key = (atom.residue, atom.number, atom.insertion, atom.name, atom.alternate)
        if key in seen:
            return True
        seen.add(key)
    return False


def _residues(atoms: Iterable[Atom]) -> list[Residue]:
    """In the order of their first atoms."""
    found: dict[tuple[int, str, str], Residue] = {}
    for atom in atoms:
        key = (atom.number, atom.insertion, atom.residue)
        found.setdefault(key, Residue(atom.residue, atom.number, atom.insertion)).atoms.append(atom)
    return list(found.values())


def _protein(
    residues: Sequence[Residue], components: Mapping[str, Component], polypeptides: set[str], others: set[str]
) -> list[Residue]:
    """Those that are a protein's."""
    bonded = _bonded(residues)
    kept: list[Residue] = []
    for residue in residues:
        entity = residue.atoms[0].entity
        if residue.name in CAPS or (entity and entity in others):
            continue
        linking = residue.name in components and components[residue.name].amino_acid
        known = linking or (residue.name in FORCE_FIELD and residue.has("CA"))
        if (
            entity in polypeptides
            or ((known or not np.isnan(residue.backbone).any()) and residue in bonded)
            or (known and not _free(residue, [one for one in residues if one is not residue and one in bonded]))
        ):
            kept.append(residue)
    return _one_a_place(kept)


def _bonded(residues: Sequence[Residue]) -> set[Residue]:
    """Those with a peptide bond to another."""
    first = np.array([residue.backbone[0] for residue in residues])
    last = np.array([residue.backbone[2] for residue in residues])
    found: set[Residue] = set()
    for place, residue in enumerate(residues):
        near = np.linalg.norm(first - last[place], axis=1) <= BOND
        near[place] = False
        if near.any():
            found.add(residue)
            found.update(residues[other] for other in np.flatnonzero(near).tolist())
    return found


def _free(residue: Residue, chain: Sequence[Residue]) -> bool:
    """Whether an amino acid without a peptide bond is one of its own."""
    rare = residue.name not in STANDARD and residue.name not in FORCE_FIELD and not residue.has("CA")
    if np.isnan(residue.backbone[[0, 2]]).any() and not rare:
        return False
    het = residue.atoms[0].het
    carboxylate = any(atom.name in SECOND_OXYGENS for atom in residue.atoms)
    if het and carboxylate:
        return True
    return (het or carboxylate or rare) and not _within_reach(residue, chain, 3 if rare else FARTHEST_NUMBER)


def _within_reach(residue: Residue, chain: Sequence[Residue], farthest: int) -> bool:
    """Whether the residues before or after it by number are as near as a chain would have them."""
    below = [one for one in chain if one.number <= residue.number]
    above = [one for one in chain if one.number >= residue.number]
    near = [max(below, key=lambda one: one.number, default=None), min(above, key=lambda one: one.number, default=None)]
    for one in near:
        if one is not None:
            apart = max(1, abs(one.number - residue.number))
            distance = float(np.linalg.norm(one.backbone[1] - residue.backbone[1]))
            if apart <= farthest and not distance > REACH * apart:
                return True
    return False


def _one_a_place(residues: Sequence[Residue]) -> list[Residue]:
    """Of residues that are alternatives in one place, that of the highest occupancy, with the atoms that all share."""
    places: dict[tuple[int, str], list[Residue]] = defaultdict(list)
    for residue in residues:
        places[residue.key].append(residue)
    dropped: set[Residue] = set()
    for several in places.values():
        if len(several) > 1 and all(_has_alternates(residue) for residue in several[1:]):
            best = max(several, key=_occupancy_of_alternates)
            shared = [
                atom for residue in several if residue is not best for atom in residue.atoms if not atom.alternate
            ]
            best.atoms.extend(atom for atom in shared if not best.has(atom.name))
            best.__dict__.pop("backbone", None)
            dropped.update(residue for residue in several if residue is not best)
    return [residue for residue in residues if residue not in dropped]


def _has_alternates(residue: Residue) -> bool:
    return any(atom.alternate for atom in residue.atoms)


def _occupancy_of_alternates(residue: Residue) -> float:
    return max((atom.occupancy for atom in residue.atoms if atom.alternate), default=0.0)
