"""Files that were made to do harm: read or refused in time and memory that grow no faster than they do."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foldmint_tokenizer import Backbone, InvalidStructure, Limits, read_backbones
from foldmint_tokenizer.neighborhoods import build_geometry
from helpers.files.hostile_files import BOUNDS, READ, REFUSED, RULES, cif, one, pdb, same

LIMITS = Limits(residues=100_000)
# Of one core. On a quiet machine each takes about one.
SECONDS = 15.0


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
