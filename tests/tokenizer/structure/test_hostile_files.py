"""Files that were made to do harm: read or refused in time and memory that grow no faster than they do."""

import contextlib
import gzip
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foldmint_tokenizer import Backbone, InvalidStructure, Limits, read_backbones
from foldmint_tokenizer.neighborhoods import build_geometry

LIMITS = Limits(residues=100_000)
# Of lines or rows; with gemmi alone some of these files took minutes, as time grew with the square.
MANY = 60_000
# Of one core. On a quiet machine each takes about one.
SECONDS = 15.0


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


@pytest.mark.parametrize("name", RULES)
def test_rules_are_applied_in_time(name: str) -> None:
    content, began = RULES[name](), time.process_time()
    with contextlib.suppress(InvalidStructure):  # more chains than are allowed
        read_backbones(content, limits=LIMITS)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", READ)
def test_read_in_time(name: str) -> None:
    content, began = READ[name](), time.process_time()
    assert read_backbones(content, limits=LIMITS)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_time(name: str) -> None:
    make, reason = REFUSED[name]
    content, began = make(), time.process_time()
    with pytest.raises(InvalidStructure, match=reason) as caught:
        read_backbones(content, limits=BOUNDS.get(name, LIMITS))
    assert time.process_time() - began < SECONDS
    assert caught.value.field == "content"


def test_memory_is_bounded_by_the_size() -> None:
    """32 times the file's, as docs/server.md says."""
    code = (
        "import resource, sys; from foldmint_tokenizer import *; content = sys.stdin.buffer.read();"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "read_backbones(content, limits=Limits(residues=100_000));"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(content))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=cif(50_000, one, same), capture_output=True, check=True)
    assert float(done.stdout) < 32


def test_atoms_of_a_residue_may_stand_apart(data: Path) -> None:
    head, _, rest = (data / "1a8o.cif").read_bytes().partition(b"\nATOM")
    rows, hash_, tail = rest.partition(b"\n#")
    lines = (b"ATOM" + rows).split(b"\n")
    np.random.default_rng(0).shuffle(lines)
    (shuffled,) = read_backbones(b"\n".join([head, *lines]) + hash_ + tail)
    (whole,) = read_backbones(data / "1a8o.cif")
    order = np.argsort(shuffled.residue_index)
    np.testing.assert_array_equal(shuffled.residue_index[order], whole.residue_index)
    np.testing.assert_array_equal(shuffled.coordinates[order], whole.coordinates)


def test_tables_that_are_not_plain_are_read_alike(data: Path) -> None:
    """gemmi reads what is not a row a line, such as quoted values with spaces, or rows over several lines."""
    content = (data / "1a8o.cif").read_bytes()
    for change in (
        content.replace(b"\nATOM ", b"\n'ATOM' "),
        content.replace(b"\nATOM ", b"\nATOM\n"),
        content.replace(b"_atom_site.group_PDB", b"_ATOM_SITE.group_PDB"),
        content.replace(b"HOH", b"'H H'"),
        content.replace(b"\nATOM ", b"\nATOM # one\n"),
    ):
        assert change != content
        assert_same(read_backbones(change), read_backbones(content))


def assert_same(some: list[Backbone], others: list[Backbone]) -> None:
    assert [chain.chain for chain in some] == [chain.chain for chain in others]
    for chain, other in zip(some, others, strict=True):
        assert (chain.sequence, chain.insertion_codes) == (other.sequence, other.insertion_codes)
        np.testing.assert_array_equal(chain.residue_index, other.residue_index)
        np.testing.assert_array_equal(chain.coordinates, other.coordinates)


FRAMES = [
    ("MODEL        3", "ENDMDL", "MODEL        7", "ENDMDL", (3, 7)),
    ("MODEL        7", "ENDMDL", "MODEL        3", "ENDMDL", (7, 3)),
    ("", "ENDMDL", "", "ENDMDL", (1, 2)),
    ("model        5", "endmdl", "", "", (5, 2)),
]


@pytest.mark.parametrize("marks", FRAMES, ids=lambda marks: "-".join(marks[:4]))
def test_models_of_pdb_files_are_found_as_they_are_numbered(marks: tuple[str, str, str, str, tuple[int, int]]) -> None:
    opens, closes, opens_next, closes_next, numbers = marks
    lines = [opens, pdb(3, one, same).decode(), closes, opens_next, pdb(4, one, same).decode(), closes_next]
    content = "\n".join(lines).encode()
    for number, residues in [(0, 3), (numbers[0], 3), (numbers[1], 4)]:
        (chain,) = read_backbones(content, model_number=number)
        assert len(chain) == residues
    with pytest.raises(InvalidStructure, match=f"its models are: {numbers[0]}"):
        read_backbones(content, model_number=99)


def test_a_line_at_fault_is_told_by_its_number_in_the_file() -> None:
    lines = ["REMARK   1"] * 7 + [pdb(1, one, same).decode(), "ATOM  short"]
    with pytest.raises(InvalidStructure, match="line 9 is too short for an atom"):
        read_backbones("\n".join(lines).encode())


@pytest.mark.parametrize("what", ["one place", "two places", "half in one place", "one plane"])
def test_neighbors_where_all_are_in_one_place(what: str) -> None:
    """A tree cannot part them, and compared all with all: hours for as many as these."""
    count = 100_000
    ca = np.random.default_rng(0).normal(size=(count, 3)) * 100
    match what:
        case "one place":
            ca[:] = 7
        case "two places":
            ca = np.where(np.arange(count)[:, None] % 3 == 0, 1.0, 2.0) * np.ones(3)
        case "half in one place":
            ca[::2] = 5
        case _:
            ca[:, 0] = 0
    began = time.process_time()
    nearest = build_geometry(
        np.stack([ca + np.array([0, 1, 0]), ca, ca + np.array([1, 0, 0])], 1), np.arange(count)
    ).nearest
    assert time.process_time() - began < SECONDS
    for row in np.random.default_rng(1).integers(0, count, 20):
        apart = np.sort(((ca - ca[row]) ** 2).sum(1))[:16]
        assert nearest[row, 0] == row
        assert len(set(nearest[row].tolist())) == 16
        np.testing.assert_allclose(((ca[nearest[row]] - ca[row]) ** 2).sum(1), apart)


def test_refusals_hold_no_control_characters() -> None:
    name = "\x1b[2Jevil\u202e"
    content = cif(3, lambda _: f"'{name}'", lambda row: row)
    hostile: list[tuple[bytes, list[str]]] = [
        (content, []),
        (b"ATOM  \x1b[2J\x07 short", []),
        (pdb(3, lambda _: "\x07B", same), ["Q"]),
        (b"data_x\n_a.b 'x\x1b[2J", []),
        (pdb(3, one, lambda row: 1 + row).replace(b"A   2 ", b"A   2\x1b"), []),
    ]
    for file, chains in hostile:
        with pytest.raises(InvalidStructure) as caught:
            read_backbones(file, chains=chains)
        assert str(caught.value).isprintable()
    assert InvalidStructure("f", f"no {name}", chain=name, residue=name).args[0].isprintable()
