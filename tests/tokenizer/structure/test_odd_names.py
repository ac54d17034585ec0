"""Names of residues and chains as programs write them, and what is told of chains that are not in the answer."""

from pathlib import Path

import numpy as np
import pytest

from foldmint_tokenizer.structure.left_out import LeftOutKind
from foldmint_tokenizer.structure.options import ReadOptions
from foldmint_tokenizer.structure.reader import read_backbones, read_structure
from helpers.files.pdb_text import PdbText, alternative, moved


@pytest.fixture
def capsid(data: Path) -> PdbText:
    return PdbText(data / "1a8o.pdb")


def _with_letter(line: str, letter: str) -> str:
    """A letter in column 21."""
    return f"{line[:20]}{letter}{line[21:]}"


def test_one_name_of_four_letters_splits_no_chain(capsid: PdbText) -> None:
    """CHARMM-GUI calls lipid-tailed residues CYSF, GLYM, CYSP: two of them may follow one another."""
    whole = read_backbones(capsid.bytes())[0]
    content = capsid.each(lambda line, n: _with_letter(line, "P") if n in (155, 165, 166, 190) else line).bytes()
    (chain,) = read_backbones(content)
    assert chain.chain == "A"
    assert len(chain) == 70
    np.testing.assert_array_equal(chain.coordinates, whole.coordinates)


def test_chains_of_two_letters(capsid: PdbText) -> None:
    """Alone in a file, or beside a chain of one letter."""
    single = list(capsid.lines)
    doubles = [_with_letter(moved(line, 100), "Z") for line in single]
    for lines, names in ((doubles, ["ZA"]), (single + doubles, ["A", "ZA"])):
        capsid.lines = lines
        chains = read_backbones(capsid.bytes())
        assert [chain.chain for chain in chains] == names
        assert {chain.sequence for chain in chains} == {chains[0].sequence}
        assert "X" not in chains[0].sequence


def test_a_chain_that_is_not_in_the_assembly_is_told(capsid: PdbText) -> None:
    remark = (
        "REMARK 350 BIOMOLECULE: 1\n"
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"
        "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000\n"
        "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000\n"
        "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000\n"
    )
    capsid.lines += [f"{line[:21]}B{line[22:]}" for line in (moved(line, 100) for line in capsid.lines)]
    found = read_structure(remark.encode() + capsid.bytes(), ReadOptions(assembly="1"))
    assert [chain.chain for chain in found.chains] == ["A"]
    told = [one for one in found.left_out if one.kind is LeftOutKind.OTHER_CHAIN]
    assert [(one.chain, one.residues) for one in told] == [("B", 70)]


def test_alternates_are_told_with_the_name_that_their_chain_got(capsid: PdbText) -> None:
    """Two blank chains, which TER alone tells apart: the second has two kinds of residue in one place."""

    def change(line: str, number: int) -> str | list[str]:
        if number != 165:
            return line
        return [alternative(line, "A", 0.6), alternative(f"{line[:17]}TRP{line[20:]}", "B", 0.4)]

    blank = [f"{line[:21]} {line[22:]}" for line in capsid.lines]
    capsid.lines = [moved(line, 100) for line in blank]
    second = capsid.each(change).lines
    capsid.lines = [*blank, "TER", *second]
    found = read_structure(capsid.bytes())
    assert [(chain.chain, len(chain)) for chain in found.chains] == [("A", 70), ("B", 70)]
    told = [one for one in found.left_out if one.kind is LeftOutKind.ALTERNATE]
    assert [(one.chain, one.residues, one.names) for one in told] == [("B", 1, ("TRP",))]


def test_what_esm_does_not_read_is_told_once(capsid: PdbText) -> None:
    """Two kinds of residue in one place whose atoms take turns, a name of CHARMM's, and the file's four MSE."""

    def change(line: str, number: int) -> str | list[str]:
        if number == 165:
            return [alternative(line, "A", 0.6), alternative(f"{line[:17]}TRP{line[20:]}", "B", 0.4)]
        return f"{line[:17]}HSD{line[20:]}" if number == 170 else line

    found = read_structure(capsid.each(change).bytes(), ReadOptions(reading="esm"))
    told = {one.kind: (one.residues, set(one.names)) for one in found.left_out if one.of_protein}
    assert told == {LeftOutKind.ALTERNATE: (1, {"TRP"}), LeftOutKind.HETATM: (5, {"MSE", "HSD"})}
    assert len(found.chains[0]) == 65


def test_a_residue_without_a_known_name_and_without_ca_is_told(capsid: PdbText) -> None:
    def change(line: str, number: int) -> str | None:
        if number != 165:
            return line
        return None if line[12:16].strip() == "CA" else f"{line[:17]}XYZ{line[20:]}"

    found = read_structure(capsid.each(change).bytes())
    (told,) = [one for one in found.left_out if one.of_protein]
    assert (told.kind, told.chain, told.residues, told.names) == (LeftOutKind.WITHOUT_CA, "A", 1, ("XYZ",))
