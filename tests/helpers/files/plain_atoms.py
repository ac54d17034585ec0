"""Atoms of PDB and mmCIF files, by fixed columns and plain tables, without gemmi: for the independent reader."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
_NAMES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"
STANDARD = frozenset(_NAMES.split())
NO_NUMBER = -(10**9)


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


def read_atoms(content: bytes) -> tuple[list[Atom], set[str], set[str]]:
    """Atoms of the first model, the entities that are polypeptides, and those that the file says are something else."""
    text = content.decode("utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "latin-1")
    is_cif = re.search(r"^[ \t]*data_", text[:100_000], re.MULTILINE | re.IGNORECASE) is not None
    return _cif_atoms(text) if is_cif else (_pdb_atoms(text), set(), set())


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
        and line[17:20] in STANDARD
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
