"""The time of reading files, compared with gunzip and gemmi's parser alone.

    make real-files
    python -m benchmarks reading --json FILE

Uses real entries of the PDB, compressed with gzip, as PDB and mmCIF. Alternates between `read_structure` and `gunzip`
with gemmi's own parser, which neither distinguishes proteins from ligands nor extracts backbones.
"""

import gzip
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import gemmi
import typer

from benchmarks._common import ROOT, interleaved, ratio, write
from foldmint_tokenizer import Limits, ReadOptions, read_structure

FOLDER = ROOT / ".real-files"
_BAR = 1.5
_OPTIONS = ReadOptions(limits=Limits(residues=1_000_000))
FILES = {
    "mmCIF": [
        "1A8O.cif",
        "4ZHL.cif",
        "2OFG.cif",
        "7CFN.cif",
        "2XHE.cif",
        "mmcif_3o21.cif",
        "mmcif_7cth.cif",
        "2gtl.cif",
    ],
    "PDB": ["1A8O.pdb", "pdb1ubi.pdb", "1AFS.pdb", "pdb3enl.pdb", "7DDO.pdb", "pdb3hsy.pdb", "2XHE.pdb", "2gtl.pdb"],
}


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the files are, at any depth.")] = FOLDER,
    repeats: Annotated[int, typer.Option(help="Of each file, in turn; medians count.")] = 7,
) -> None:
    """Print a table."""
    known = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
    missing = sorted({name for names in FILES.values() for name in names} - known.keys())
    if missing:
        sys.exit(f"{folder} lacks {', '.join(missing)}: `make real-files` fetches them")
    figures = {form: measured(form, [known[name] for name in names], repeats) for form, names in FILES.items()}
    for form, found in figures.items():
        print(f"{form}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    write(file, {"tables": [table(figures)], "bars": bars(figures), "formats": figures})


def measured(form: str, paths: Sequence[Path], repeats: int) -> dict[str, float]:
    """Residues, microseconds a residue of each part, and the ratio: of all files of a format together."""
    packed = [gzip.compress(path.read_bytes(), mtime=0) for path in paths]
    residues = sum(len(chain) for content in packed for chain in read_structure(content, _OPTIONS).chains)
    parse = by_gemmi_from_cif if form == "mmCIF" else by_gemmi_from_pdb
    tasks = {
        "gunzip": partial(each, gzip.decompress, packed),
        "gunzip and gemmi": partial(each, parse, packed),
        "read_structure": partial(each, read, packed),
    }
    seconds = interleaved(tasks, repeats)
    micro = {f"{name}, µs a residue": 1e6 * median(found) / residues for name, found in seconds.items()}
    return {
        "files": len(paths),
        "residues": residues,
        **micro,
        "ratio": ratio(seconds["read_structure"], seconds["gunzip and gemmi"]),
    }


def each(task: object, contents: Sequence[bytes]) -> None:
    """Do it with all of them."""
    assert callable(task)
    for content in contents:
        task(content)


def by_gemmi_from_cif(content: bytes) -> gemmi.Structure:
    """Gemmi's structure of an mmCIF file."""
    return gemmi.make_structure_from_block(gemmi.cif.read_string(gzip.decompress(content))[0])


def by_gemmi_from_pdb(content: bytes) -> gemmi.Structure:
    """Gemmi's structure of a PDB file."""
    return gemmi.read_pdb_string(gzip.decompress(content))


def read(content: bytes) -> None:
    """All of it: chains, and what was left out."""
    read_structure(content, _OPTIONS)


def table(figures: dict[str, dict[str, float]]) -> dict[str, object]:
    """As docs/performance.md shows it."""
    columns = list(next(iter(figures.values())))
    rows = [[form, *(found[name] for name in columns)] for form, found in figures.items()]
    return {"title": "Reading of real files, gzip", "columns": ["format", *columns], "rows": rows}


def bars(figures: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """What was to be reached."""
    return [
        {
            "measure": f"times gunzip and gemmi alone, {form}",
            "bar": f"at most {_BAR}",
            "found": found["ratio"],
            "reached": found["ratio"] <= _BAR,
        }
        for form, found in figures.items()
    ]
