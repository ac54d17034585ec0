"""Structures that other programs have read and written again give the tokens of the original, chain by chain."""

import gzip
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import gemmi
import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_tokenizer import InvalidStructure, StructureTokenizer, read_backbones
from helpers.support import ROOT, missing

Tokens = dict[str, NDArray[np.integer]]
SOURCES = ["1a8o.pdb", "1a8o.cif", "1gbt.cif.gz", "1lcd.cif.gz", "2beg.cif.gz", "4cup.cif.gz"]
# Of the packages' files: wwPDB entries, predicted models, and what other programs wrote.
PACKAGED = [
    "1BX8.pdb", "1AJJ.pdb", "1QBS.pdb", "1AFS.pdb", "1US0.pdb", "3U7T.cif", "1FAS.cif", "1FKI.cif", "pdb1ubi.pdb",
    "pdb3mht.pdb", "pdb1ejg.pdb", "pdb3enl.pdb", "1A7G.cif", "2OFG.cif", "4ZHL.cif", "6WQA.cif", "7CFN.cif",
    "2XHE.pdb", "2XHE.cif", "3JQH.cif", "1hvr.pdb", "5a7u.pdb", "il2.pdb", "1YJP.cif", "5PTI.cif.gz", "1BD2.cif.gz",
    "mmcif_3o21.cif", "boltz2_olanzapine_P28335.cif", "2gtl.cif",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


@pytest.fixture(scope="module", autouse=True)
def reference_packages() -> Iterator[None]:
    """Biopython and biotite, as installed for the parity tests."""
    folder = ROOT / ".reference"
    if not (folder / "biotite").is_dir():
        missing("Biopython and biotite, in .reference,", "`make reference` installs them")
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


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
    backbones = read_backbones(path)
    return {one.chain: one.tokens for one in tokenizer.tokenize(backbones)}


def difference(tokenizer: StructureTokenizer, original: Tokens, path: Path) -> str:
    """How the tokens of the file differ from the original's, or nothing."""
    try:
        again = tokens_of(tokenizer, path)
    except InvalidStructure as error:
        return f"not read: {error}"
    if original.keys() != again.keys():
        return f"chains {list(original)} became {list(again)}"
    for name, tokens in original.items():
        if len(tokens) != len(again[name]):
            return f"chain {name}: {len(tokens)} residues became {len(again[name])}"
        changed = int((tokens != again[name]).sum())
        if changed:
            return f"chain {name}: {changed} of {len(tokens)} tokens changed"
    return ""


def unexplained(found: dict[tuple[str, str], str], reasons: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """The differences, by file and writer, for which there is no reason; a reason that explains nothing is one, too."""
    wrong = {key: said for key, said in found.items() if said and not any(_covers(one, key) for one in reasons)}
    idle = {
        one: "no difference" for one in reasons if not any(_covers(one, key) for key, said in found.items() if said)
    }
    return wrong | idle


def _covers(pattern: tuple[str, str], key: tuple[str, str]) -> bool:
    return pattern[0] == key[0] and key[1].startswith(pattern[1])


def found_differences(
    tokenizer: StructureTokenizer, sources: list[Path], folder: Path
) -> Iterator[tuple[tuple[str, str], str]]:
    """By file and writer: how tokens differ."""
    paths = [plain(path, folder) for path in sources]
    by_pymol(paths, folder)
    for source, path in zip(sources, paths, strict=True):
        original = tokens_of(tokenizer, path)
        for writer, (write, suffix) in WRITERS.items():
            to = folder / f"{path.name}.{writer}{suffix}"
            try:
                write(path, to)
            except Exception as error:  # noqa: BLE001 (whatever keeps that program from writing it)
                yield (source.name, writer), f"not written: {error}"
                continue
            yield (source.name, writer), difference(tokenizer, original, to)
        for suffix in (".pdb", ".cif"):
            to = folder / f"{path.name}{suffix}"
            yield (source.name, f"pymol-{suffix[1:]}"), difference(tokenizer, original, to)
