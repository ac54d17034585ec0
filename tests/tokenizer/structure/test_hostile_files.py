"""Files that were made to do harm: read or refused in time and memory that grow no faster than they do."""

import gzip
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foldmint_tokenizer import Backbone, InvalidStructure, Limits, read_backbones
from foldmint_tokenizer.neighborhoods import geometry
from foldmint_tokenizer.structure import prefilter

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
    "ligands without end": lambda: pdb(MANY, one, same, "HETATM"),
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
    "blank lines": lambda: b"\n" * 10 * MANY + pdb(5, one, same),
    "records that nobody needs": lambda: (
        b"".join(
            b"LINK         C4  ALA A%4d                ZN   ALA A%4d\n" % (i % 10_000, i % 10_000) for i in range(MANY)
        )
        + pdb(10_000, one, same)
    ),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "chains that take turns": (lambda: pdb(MANY, turns, same), "60000 parts of chains; at most 10000 are taken"),
    "chains of as many names": (lambda: pdb(MANY, names, same), "60000 parts of chains; at most 10000"),
    "chains that take turns in mmCIF": (lambda: cif(MANY, turns, same), "60000 parts of chains; at most 10000"),
    "one residue without end": (lambda: pdb(MANY, one, lambda _: 1), "an atom is there twice"),
    "one residue without end in mmCIF": (lambda: cif(MANY, one, lambda _: 1), "an atom is there twice"),
    "chains of no atoms": (
        lambda: cif(10, one, same, table("struct_asym", "id entity_id", lambda row: f"c{row} 1")),
        "60000 rows of _struct_asym; at most 10000",
    ),
    "entities without end": (
        lambda: cif(10, one, same, table("entity", "id type", lambda row: f"{row} polymer")),
        "60000 rows of _entity; at most 10000",
    ),
    "models without end": (lambda: b"MODEL 1\nENDMDL\n" * MANY, "more than 10000 models"),
    "models without end in mmCIF": (
        lambda: cif(MANY, lambda row: f"A {row}", same).replace(
            b"_atom_site.label_entity_id", b"_atom_site.pdbx_PDB_model_num\n_atom_site.label_entity_id"
        ),
        "more than 10000 models",
    ),
    "lines without end": (lambda: b"\n" * 2_000_000 + pdb(5, one, same), "2000005 lines; at most 1000000"),
    "residues without end": (lambda: cif(100_001, one, same), "100001 residues; at most 100000"),
    "residues far beyond the limit": (lambda: cif(5_000, one, same), "5000 residues, with those that are no protein's"),
    "gzip in countless members": (lambda: gzip.compress(b"") * MANY, "more than 10000 members"),
    "gzip that ends in zeros": (lambda: gzip.compress(b"x\n") + b"\0" * 10_000_000, "no atoms"),
}
BOUNDS = {
    "lines without end": Limits(unpacked_bytes=20_000_000),
    "residues far beyond the limit": Limits(residues=100),
}


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


def test_portions_change_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a residue's atoms are apart in the file."""
    head, _, rest = (data / "1a8o.cif").read_bytes().partition(b"\nATOM")
    rows, hash_, tail = rest.partition(b"\n#")
    lines = (b"ATOM" + rows).split(b"\n")
    np.random.default_rng(0).shuffle(lines)
    shuffled = b"\n".join([head, *lines]) + hash_ + tail
    for content in [(data / "1a8o.cif").read_bytes(), (data / "1gbt.cif.gz").read_bytes(), shuffled]:
        whole = read_backbones(content)
        with monkeypatch.context() as changed:
            changed.setattr(prefilter, "_PORTION", 3)
            parted = read_backbones(content)
        assert_same(whole, parted)


def test_portions_of_a_file_without_the_authors_names(monkeypatch: pytest.MonkeyPatch) -> None:
    content = cif(60, lambda row: "A" if row < 30 else "'B C'", lambda row: row // 2 + 1, kind=lambda _: "GLY")
    lines = content.split(b"\n")
    start = next(place for place, line in enumerate(lines) if line.startswith(b"ATOM"))
    for place in range(start, len(lines) - 1, 2):
        lines[place] = lines[place].replace(b" CA ", b" N ")
    monkeypatch.setattr(prefilter, "_PORTION", 4)
    chains = read_backbones(b"\n".join(lines))
    assert [(chain.chain, len(chain)) for chain in chains] == [("A", 15), ("B C", 15)]
    assert np.isfinite(np.concatenate([chain.coordinates for chain in chains])[:, :2]).all()


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


def test_what_comes_after_the_end_is_not_read() -> None:
    content = pdb(3, one, same) + b"\nEND\n" + pdb(10, one, lambda row: 100 + row)
    assert len(read_backbones(content)[0]) == 3


def test_a_line_at_fault_is_told_by_its_number_in_the_file() -> None:
    lines = ["REMARK   1"] * 7 + [pdb(1, one, same).decode(), "ATOM  short"]
    with pytest.raises(InvalidStructure, match="Problem in line 9: The line is too short"):
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
    nearest = geometry(np.stack([ca + np.array([0, 1, 0]), ca, ca + np.array([1, 0, 0])], 1), np.arange(count)).nearest
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
