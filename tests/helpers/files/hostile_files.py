"""Structure files that are made to take the reader's time or memory."""

import gzip
from collections.abc import Callable

from foldmint_tokenizer import Limits

# Of lines or rows; with gemmi alone some of these files took minutes, as time grew with the square.
MANY = 60_000


def pdb(rows: int, chain: Callable[[int], str], number: Callable[[int], int], record: str = "ATOM") -> bytes:
    """A PDB file of one CA a line; beyond 9999 numbers go on with insertion codes."""
    kind = "ALA" if record == "ATOM" else "LIG"
    lines = []
    for row in range(rows):
        code, of = divmod(number(row), 10_000)
        name = f"{chain(row):>2}{of:4d}{' ' if code == 0 else chr(64 + code)}"
        lines.append(f"{record:6}{row % 100_000:5d}  CA  {kind}{name}   {row / 10:8.3f}   0.000   0.000  1.00  0.00")
    return "\n".join(lines).encode()


def pdb_backbones(residues: int, x: Callable[[int], float], number: Callable[[int], int] = lambda row: row) -> bytes:
    """A PDB file of whole backbones that are bonded to no other; each fourth residue has the same name."""
    lines = []
    for row in range(residues):
        code, of = divmod(number(row), 10_000)
        place = f"{('ALA', 'GLY', 'SER', 'VAL')[row % 4]} A{of:4d}{' ' if code == 0 else chr(64 + code)}"
        for atom, y in ((" N  ", 0.0), (" CA ", 1.46), (" C  ", 2.98), (" OXT", 4.2)):
            lines.append(f"HETATM{row % 100_000:5d} {atom} {place}   {x(row) % 9000:8.3f}{y:8.3f}   0.000  1.00  0.00")
    lines += [
        f"ATOM  {1:5d}  {atom:3} ALA Z   {residue}    {x:8.3f}   0.000   0.000  1.00  0.00"
        for residue in (1, 2)
        for atom, x in (("N", 3.8 * residue), ("CA", 3.8 * residue + 1.46), ("C", 3.8 * residue + 2.47))
    ]
    return "\n".join(lines).encode()


COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
    "Cartn_x Cartn_y Cartn_z"
)


def cif(
    rows: int,
    chain: Callable[[int], str],
    number: Callable[[int], int],
    more: str = "",
    kind: Callable[[int], str] = lambda _: "ALA",
) -> bytes:
    head = ["data_x", more, "loop_", *(f"_atom_site.{column}" for column in COLUMNS.split())]
    body = (f"ATOM {row} C CA . {kind(row)} {chain(row)} 1 {number(row)} {row / 10} 0 0" for row in range(rows))
    return "\n".join([*head, *body, ""]).encode()


def table(name: str, columns: str, row: Callable[[int], str], rows: int = MANY) -> str:
    return "\n".join(["loop_", *(f"_{name}.{column}" for column in columns.split()), *map(row, range(rows)), ""])


ASSEMBLY = """\
_pdbx_struct_assembly.id 1
_pdbx_struct_assembly.details author_defined_assembly
_pdbx_struct_assembly.method_details ?
_pdbx_struct_assembly.oligomeric_details ?
_pdbx_struct_assembly.oligomeric_count ?
_pdbx_struct_assembly_gen.assembly_id 1
_pdbx_struct_assembly_gen.oper_expression 1-2000000000
_pdbx_struct_assembly_gen.asym_id_list A
"""


def one(_: int) -> str:
    return "A"


def same(row: int) -> int:
    return row


def turns(row: int) -> str:
    return "AB"[row % 2]


def names(row: int) -> str:
    return chr(48 + row // 70 % 70) + chr(48 + row % 70)


READ: dict[str, Callable[[], bytes]] = {
    "a chain of a residue a line": lambda: pdb(MANY, one, same),
    "ligands without end": lambda: pdb(MANY, one, same, "HETATM") + b"\n" + pdb(1, lambda _: "B", same),
    "a chain of a residue a row": lambda: cif(MANY, one, same),
    "ligands of as many names": lambda: cif(MANY, one, same, kind=lambda row: f"L{row}" if row else "ALA"),
    "an assembly of two billion operators": lambda: cif(10, one, same, ASSEMBLY),
    "connections without end": lambda: cif(
        MANY // 4,
        one,
        same,
        table(
            "struct_conn",
            "id conn_type_id ptnr1_label_asym_id ptnr2_label_asym_id ptnr1_label_comp_id ptnr2_label_comp_id "
            "ptnr1_label_atom_id ptnr2_label_atom_id ptnr1_label_seq_id ptnr2_label_seq_id",
            lambda row: f"{row} covale A A ALA ALA CA CA {MANY} {MANY}",
            MANY // 2,
        ),
    ),
    "chains that take turns": lambda: pdb(MANY, turns, same),
    "chains that take turns in mmCIF": lambda: cif(MANY, turns, same),
    "chains of no atoms": lambda: cif(10, one, same, table("struct_asym", "id entity_id", lambda row: f"c{row} 1")),
    "entities without end": lambda: cif(10, one, same, table("entity", "id type", lambda row: f"{row} polymer")),
    "blocks without end": lambda: b"".join(b"data_%d\n#\n" % block for block in range(MANY)) + cif(10, one, same),
    "blocks of one name": lambda: b"data_X\n#\n" * MANY + cif(10, one, same),
    "comments without end": lambda: cif(MANY // 10, one, same).replace(b"\nATOM", b"\n# one\nATOM") + b"\n#" * MANY,
    "tables without end": lambda: (
        b"data_y\n"
        + b"".join(b"loop_\n_atom_site_anisotrop.id%d\n1\n" % column for column in range(MANY // 10))
        + cif(10, one, same)
    ),
    "residues bonded to none": lambda: pdb_backbones(MANY // 3, lambda row: 10.0 * row),
    "residues bonded to none, all in one place": lambda: pdb_backbones(MANY // 3, lambda _: 0.0),
    "residues bonded to none, with a sequence": lambda: (
        b"SEQRES   1 A   13  ALA ALA ALA ALA ALA ALA ALA ALA ALA ALA ALA ALA ALA\n" * 1000
        + pdb_backbones(MANY // 3, lambda row: 10.0 * row)
    ),
    "residues of one number": lambda: pdb_backbones(MANY // 3, lambda row: 10.0 * row, number=lambda row: row // 4),
    "blank lines": lambda: b"\n" * 10 * MANY + pdb(5, one, same),
    "records that nobody needs": lambda: (
        b"".join(
            b"LINK         C4  ALA A%4d                ZN   ALA A%4d\n" % (i % 10_000, i % 10_000) for i in range(MANY)
        )
        + pdb(10_000, one, same)
    ),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "chains of as many names": (lambda: pdb(MANY, names, same), "4900 chains; at most 1000"),
    "chains of as many names in mmCIF": (lambda: cif(MANY, lambda row: f"A{row}", same), "60000 chains; at most 1000"),
    "END after each residue": (
        lambda: pdb(MANY, one, lambda row: row % 9999).replace(b"\n", b"\nEND\n"),
        "chains; at most 1000",
    ),
    "numbers that fall again and again": (lambda: pdb(MANY, one, lambda row: 9 - row % 9), "chains; at most 1000"),
    "one residue without end": (lambda: pdb(MANY, one, lambda _: 1), "CA occurs twice"),
    "one residue without end in mmCIF": (lambda: cif(MANY, one, lambda _: 1), "CA occurs twice"),
    "models without end": (lambda: (b"MODEL 1\n" + pdb(1, one, same) + b"\nENDMDL\n") * MANY, "more than 10000 models"),
    "models without end in mmCIF": (
        lambda: cif(MANY, lambda row: f"A {row}", same).replace(
            b"_atom_site.label_entity_id", b"_atom_site.pdbx_PDB_model_num\n_atom_site.label_entity_id"
        ),
        "more than 10000 models",
    ),
    "lines without end": (lambda: pdb(5, one, same) + b"\n" * 2_000_000, "2000005 lines; at most 1000000"),
    "blocks far beyond reason": (lambda: b"data_X\n" * 1_000_000, "1000000 data blocks; at most 100000"),
    "residues without end": (lambda: cif(100_001, one, same), "100001 residues; at most 100000"),
    "residues far beyond the limit": (
        lambda: cif(5_000, one, same),
        "5000 residues, including those of other molecules",
    ),
    "gzip in countless members": (lambda: gzip.compress(b"") * MANY, "more than 10000 members"),
    "gzip that ends in zeros": (
        lambda: gzip.compress(b"x\n") + b"\0" * 10_000_000,
        "unknown format",
    ),
}
BOUNDS = {
    "lines without end": Limits(unpacked_bytes=20_000_000),
    "residues far beyond the limit": Limits(residues=100),
}


def doubtful(rows: int) -> bytes:
    """Amino acids that may be free, each with both oxygens, between two that a chain has; SEQRES tells of none."""
    lines = [f"SEQRES {row:3d} A {rows:4d}  " + "ALA " * 13 for row in range(999)]
    for row in range(rows):
        for name in ("N", "CA", "C", "OXT"):
            lines.append(
                f"HETATM{len(lines) % 100_000:5d}  {name:3} ALA A{row % 10_000:4d}{chr(65 + row // 10_000)}"
                f"   {(row * 37) % 999:8.3f}{row % 777:8.3f}   0.000  1.00  0.00"
            )
    return "\n".join(lines).encode()


def alternatives(rows: int) -> bytes:
    """Residues of two names in each place, all with alternate locations."""
    lines = []
    for row in range(rows):
        for letter, name in (("A", "SER"), ("B", "THR")):
            lines.append(
                f"ATOM  {row % 100_000:5d}  CA {letter}{name} A{row % 10_000:4d}{chr(65 + row // 10_000)}"
                f"   {row / 10:8.3f}   0.000   0.000  0.50  0.00"
            )
    return "\n".join(lines).encode()


RULES: dict[str, Callable[[], bytes]] = {
    "a segment for each residue": lambda: b"\n".join(
        line.ljust(72) + f"{row % 900:4d}".encode()
        for row, line in enumerate(pdb(MANY, lambda _: " ", same).splitlines())
    ),
    "TER after each residue": lambda: pdb(MANY, lambda _: " ", same).replace(b"\n", b"\nTER\n"),
    "amino acids that may be free": lambda: doubtful(MANY // 4),
    "two residues in each place": lambda: alternatives(MANY // 2),
}
