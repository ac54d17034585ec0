"""What docs/reading.md says of structure files, once more: fixed columns and mmCIF tables read in plain Python.

Nothing here is Foldmint's or gemmi's. Which names are amino acids, and their letters, is told by the wwPDB's Chemical
Component Dictionary as biotite has it; the force-field names are those of the documentation.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

CAPS = frozenset(["ACE", "NME", "NMA", "NH2", "FOR", "NHE", "MYR", "BOC", "CBX", "CBZ", "TFA", "AMN", "CBM", "NPH"])
FORCE_FIELD = {
    **dict.fromkeys(["HSD", "HSE", "HSP", "HID", "HIE", "HIP", "HISA", "HISB", "HISD", "HISE", "HISH", "HISP"], "H"),
    **dict.fromkeys(["CYX", "CYM", "CYS2", "CYSH", "CYX2", "CYSD"], "C"),
    **dict.fromkeys(["ASH", "ASPH", "ASPP"], "D"),
    **dict.fromkeys(["GLH", "GLUH", "GLUP"], "E"),
    **dict.fromkeys(["LYN", "LSN", "LYSH"], "K"),
    "ARN": "R",
    "ARGN": "R",
    "TYM": "Y",
}
_STANDARD = frozenset(
    [
        "ALA",
        "ARG",
        "ASN",
        "ASP",
        "CYS",
        "GLN",
        "GLU",
        "GLY",
        "HIS",
        "ILE",
        "LEU",
        "LYS",
        "MET",
        "PHE",
        "PRO",
        "SER",
        "THR",
        "TRP",
        "TYR",
        "VAL",
    ]
)
SECOND_OXYGENS = frozenset(["OXT", "OT2", "O2", "OC2"])
BOND = 2.0
"""Å; the longest C-N that is a peptide bond."""
REACH = 4.0
"""Å a residue number: what a chain can bridge."""
FARTHEST_NUMBER = 30
NO_NUMBER = -(10**9)


_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Component:
    """A name in the dictionary: whether it is an amino acid that links to others, and its letter."""

    amino_acid: bool
    letter: str


@dataclass(frozen=True, slots=True)
class Atom:
    """A row. part: how many TER records stand before it. entity: mmCIF's, empty otherwise."""

    het: bool
    name: str
    alternate: str
    residue: str
    chain: str
    number: int
    insertion: str
    position: tuple[float, float, float]
    occupancy: float
    segment: str
    element: str
    part: int
    entity: str = ""


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
    text = content.decode("utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "latin-1")
    is_cif = re.search(r"^[ \t]*data_", text[:100_000], re.MULTILINE | re.IGNORECASE) is not None
    atoms, polypeptides, others = _cif_atoms(text) if is_cif else (_pdb_atoms(text), set(), set())
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


def _pdb_atoms(text: str) -> list[Atom]:
    """Those of the first model."""
    atoms: list[Atom] = []
    part = 0
    lines = re.split(r"\r\n|\r|\n", text)
    wide = any(_has_wide_chain(line) for line in lines)
    for line in lines:
        record = line[:6].upper()
        if (record.startswith("MODEL") and not line[5:6].strip()) or record.startswith("ENDMDL"):
            if atoms:
                break
        elif record.startswith("TER") and not record[3:].strip():
            part += 1
        elif record in ("ATOM  ", "HETATM"):
            atoms.append(_pdb_atom(line, part, wide=wide and line[21:22] != " "))
    return atoms


def _has_wide_chain(line: str) -> bool:
    """Whether columns 21 and 22 can only be a chain's name: a standard residue's, not part of a four-letter one."""
    named = line[20:22].strip()
    return (
        line.startswith(("ATOM", "HETATM"))
        and len(named) == 2
        and line[17:20] in _STANDARD
        and line[17:21] not in FORCE_FIELD
    )


def _pdb_atom(line: str, part: int, *, wide: bool) -> Atom:
    """wide: the chain's name is two characters long, columns 21 and 22."""
    line = line.ljust(80)
    number, insertion = _number(line[22:27])
    return Atom(
        het=line.startswith("HETATM"),
        name=line[12:16].strip(),
        alternate=line[16].strip(),
        residue=line[17 : 20 if wide else 21].strip(),
        chain=line[20 if wide else 21 : 22].strip(),
        number=number,
        insertion=insertion,
        position=(float(line[30:38]), float(line[38:46]), float(line[46:54])),
        occupancy=_or_one(line[54:60]),
        segment=_segment(line),
        element=_element(line),
        part=part,
    )


def _segment(line: str) -> str:
    """Columns 73 to 76; old entries have their own id there, and a line's number after it."""
    told = line[72:76].strip()
    return "" if re.fullmatch(r"[0-9][A-Z0-9]{3}", told) and line[76:80].strip().isdigit() else told


def _element(line: str) -> str:
    """Calcium where columns 77 and 78 say so, or where the residue is called CA, too; else the name's first letter."""
    if line[12:16].strip() == "CA" and (line[76:78].upper() == "CA" or line[17:20].strip() == "CA"):
        return "CA"
    return line[12:16].strip()[:1].upper()


def _number(columns: str) -> tuple[int, str]:
    """Of columns 23 to 27: four digits and an insertion code, five digits, or hybrid-36."""
    four, last = columns[:4], columns[4]
    if last.isdigit():
        return int(columns), ""
    if four.strip().lstrip("-").isdigit():
        return int(four), last.strip()
    if not four.strip():
        return NO_NUMBER, last.strip()
    value = int(four, 36)
    return (
        value - 10 * 36**3 + 10**4 if four.isupper() or four[0].isupper() else value + 16 * 36**3 + 10**4
    ), last.strip()


def _or_one(column: str) -> float:
    try:
        return float(column)
    except ValueError:
        return 1.0


_TOKEN = re.compile(
    r"^;(?P<text>.*?)^;(?=\s|$)|(?P<comment>(?<!\S)#[^\n]*)|(?<!\S)'(?P<single>.*?)'(?=\s|$)"
    r'|(?<!\S)"(?P<double>.*?)"(?=\s|$)|(?P<bare>\S+)',
    re.MULTILINE | re.DOTALL,
)


def _tables(text: str) -> Iterator[dict[str, dict[str, list[str]]]]:
    """Of each data block, the tables that matter: category -> column -> values."""
    wanted = ("_atom_site.", "_entity_poly.", "_entity.")
    block: dict[str, dict[str, list[str]]] = defaultdict(dict)
    columns: list[str] = []
    values: list[str] = []
    looping = False
    pending = ""

    def close() -> None:
        width = len(columns)
        if width and columns[0].startswith(wanted):
            for place, column in enumerate(columns):
                category, name = column.split(".", 1)
                block[category][name] = values[place::width]
        columns.clear()
        values.clear()

    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind == "comment":
            continue
        value = found[kind] if kind else ""
        low = value.lower()
        if kind == "bare" and low.startswith("data_"):
            close()
            looping = False
            if block:
                yield block
            block = defaultdict(dict)
        elif kind == "bare" and low == "loop_":
            close()
            looping, pending = True, ""
        elif kind == "bare" and value.startswith("_"):
            if looping and values:
                close()
                looping = False
            if looping:
                columns.append(low)
            else:
                pending = low
        elif looping:
            values.append("" if kind == "bare" and value in (".", "?") else value)
        elif pending:
            if pending.startswith(wanted):
                category, name = pending.split(".", 1)
                block[category][name] = ["" if kind == "bare" and value in (".", "?") else value]
            pending = ""
    close()
    yield block


def _cif_atoms(text: str) -> tuple[list[Atom], set[str], set[str]]:
    """Atoms of the first model, and the entities that are polypeptides, and those that are known not to be."""
    atoms: list[Atom] = []
    polypeptides: set[str] = set()
    others: set[str] = set()
    for tables in _tables(text):
        site = tables.get("_atom_site")
        if not site:
            continue
        poly = tables.get("_entity_poly", {})
        kinds = dict(zip(poly.get("entity_id", []), poly.get("type", []), strict=False))
        polypeptides |= {one for one, kind in kinds.items() if kind.lower().startswith("polypeptide")}
        types = tables.get("_entity", {})
        for one, kind in zip(types.get("id", []), types.get("type", []), strict=False):
            if (kinds and kind.lower() in ("non-polymer", "water", "branched")) or (
                one in kinds and one not in polypeptides
            ):
                others.add(one)
        atoms += _rows(site)
    return atoms, polypeptides, others


def _rows(site: Mapping[str, Sequence[str]]) -> Iterator[Atom]:
    rows = len(next(iter(site.values())))

    def column(*names: str, default: str = "") -> Sequence[str]:
        """The first of these columns that has a value, row by row."""
        present = [site[name] for name in names if name in site]
        return [next((c[row] for c in present if c[row]), default) for row in range(rows)]

    model = column("pdbx_pdb_model_num", default="1")
    chain, number = column("auth_asym_id", "label_asym_id"), column("auth_seq_id", "label_seq_id")
    name, residue = column("auth_atom_id", "label_atom_id"), column("auth_comp_id", "label_comp_id")
    if "label_atom_id" in site:
        name = column("label_atom_id", "auth_atom_id")
    if "label_comp_id" in site:
        residue = column("label_comp_id", "auth_comp_id")
    het, insertion = column("group_pdb", default="ATOM"), column("pdbx_pdb_ins_code")
    alternate, occupancy = column("label_alt_id"), column("occupancy", default="1")
    element, entity = column("type_symbol"), column("label_entity_id")
    x, y, z = column("cartn_x"), column("cartn_y"), column("cartn_z")
    for row in range(rows):
        if model[row] == model[0]:
            position = (_decimal(x[row]), _decimal(y[row]), _decimal(z[row]))
            yield Atom(
                het[row] == "HETATM", name[row], alternate[row], residue[row], chain[row], int(number[row]),
                insertion[row], position, _or_one(occupancy[row]), "", element[row].upper(), 0, entity[row],
            )  # fmt: skip


def _decimal(value: str) -> float:
    """Without a standard uncertainty in parentheses."""
    return float(value.split("(")[0]) if value else float("nan")


def _carbon(atom: Atom) -> bool:
    return atom.element != "CA"


def _chains(atoms: Sequence[Atom]) -> Iterator[tuple[str, str, list[Residue]]]:
    """Names, segments, residues. A name that is blank or comes back by segment, then TER, then where the numbers fall back."""
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
    """A new part where the numbers fall back, or a residue begins again."""
    parts: list[list[Atom]] = [[]]
    seen: set[tuple[object, ...]] = set()
    for atom in atoms:
        key = (atom.number, atom.insertion, atom.residue)
        before = parts[-1][-1] if parts[-1] else None
        if before and key != (before.number, before.insertion, before.residue):
            if atom.number < before.number or key in seen:
                parts.append([])
                seen = set()
        if (
            key in seen
            and atom.name == "N"
            and any(
                one.name == "N"
                for one in parts[-1][-40:]
                if (one.number, one.insertion, one.residue) == key and one.alternate == atom.alternate
            )
        ):
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
            found.update(residues[other] for other in np.flatnonzero(near))
    return found


def _free(residue: Residue, chain: Sequence[Residue]) -> bool:
    """Whether an amino acid without a peptide bond is one of its own."""
    rare = residue.name not in _STANDARD and residue.name not in FORCE_FIELD and not residue.has("CA")
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
