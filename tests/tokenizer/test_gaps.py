"""Residues without a frame become gaps: no coordinates, no confidence, no part of pTM, no atoms in files."""

import math
from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldmint_tokenizer import (
    InvalidStructure,
    InvalidTokens,
    StructureDetokenizer,
    StructureTokenizer,
    read_backbones,
    structure_text,
)
from foldmint_tokenizer.structure.options import WrittenFormat
from foldmint_tokenizer.vocabulary import CHAINBREAK
from helpers.files.pdb_text import PdbText, atom

FORMATS: list[WrittenFormat] = ["pdb", "mmcif"]
TOKENS = [7, 4095, 0, CHAINBREAK, 12, 13, 14]
FRAMES = np.array([True, False, True, False, True, True])


@pytest.fixture(scope="module")
def detokenizer(decoding_store: Path) -> StructureDetokenizer:
    return StructureDetokenizer.load(decoding_store)


def without(data: Path, *dropped: int) -> bytes:
    """1A8O, some residues of which have lost their N."""
    text = PdbText(data / "1a8o.pdb")
    return text.each(lambda line, number: None if number in dropped and atom(line) == "N" else line).bytes()


def test_the_others_stay_as_they_are(detokenizer: StructureDetokenizer) -> None:
    whole = detokenizer.detokenize(TOKENS, pae=True)
    gaps = detokenizer.detokenize(TOKENS, has_frame=FRAMES, pae=True)
    assert whole.pae is not None
    assert gaps.pae is not None
    for frames, own, other in zip((FRAMES[:3], FRAMES[3:]), gaps.chains, whole.chains, strict=True):
        np.testing.assert_array_equal(own.coordinates[frames], other.coordinates[frames])
        np.testing.assert_array_equal(own.plddt[frames], other.plddt[frames])
        assert np.isnan(own.coordinates[~frames]).all()
        assert np.isnan(own.plddt[~frames]).all()
    pairs = FRAMES[:, None] & FRAMES
    np.testing.assert_allclose(gaps.pae[pairs], whole.pae[pairs], atol=1e-4)
    assert np.isnan(gaps.pae[~pairs]).all()
    assert 0 < gaps.ptm <= 1
    assert gaps.ptm != whole.ptm  # other residues' scores are no part of it


def test_all_frames_are_no_gaps(detokenizer: StructureDetokenizer) -> None:
    whole, same = detokenizer.detokenize(TOKENS), detokenizer.detokenize(TOKENS, has_frame=[True] * 6)
    assert same.ptm == whole.ptm
    np.testing.assert_array_equal(same.chains[1].coordinates, whole.chains[1].coordinates)


def test_nothing_but_gaps(detokenizer: StructureDetokenizer) -> None:
    decoded = detokenizer.detokenize(TOKENS, has_frame=[False] * 6, pae=True)
    assert math.isnan(decoded.ptm)
    assert decoded.pae is not None
    assert np.isnan(decoded.pae).all()
    assert all(np.isnan(chain.coordinates).all() for chain in decoded.chains)


@pytest.mark.parametrize("has_frame", [[True] * 5, [[True] * 6], [1.0] * 6, [1] * 6])
def test_frames_that_do_not_fit(detokenizer: StructureDetokenizer, has_frame: list[bool]) -> None:
    with pytest.raises(InvalidTokens, match="has_frame"):
        detokenizer.detokenize(TOKENS, has_frame=has_frame)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_has_no_atoms_there(decoding_store: Path, data: Path, form: WrittenFormat) -> None:
    tokenizer, detokenizer = StructureTokenizer.load(decoding_store), StructureDetokenizer.load(decoding_store)
    (chain,) = tokenizer.tokenize(without(data, 160, 161, 220))
    assert int((~chain.has_frame).sum()) == 3
    decoded = detokenizer.detokenize(chain.tokens, has_frame=chain.has_frame)
    text = structure_text(decoded, form, [chain])
    (written,) = read_backbones(text.encode())
    assert written.residue_index.tolist() == chain.residue_index[chain.has_frame].tolist()
    np.testing.assert_allclose(written.coordinates, decoded.chains[0].coordinates[chain.has_frame], atol=1e-3)
    # The sequence is whole: the gaps are residues that were not seen.
    read = gemmi.read_structure_string(text) if form == "mmcif" else gemmi.read_pdb_string(text)
    assert len(read.entities[0].full_sequence) == len(chain.sequence)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_gaps_alone(decoding_store: Path, data: Path, form: WrittenFormat) -> None:
    trace = PdbText(data / "1a8o.pdb").each(lambda line, _: line if atom(line) == "CA" else None).bytes()
    tokenized = StructureTokenizer.load(decoding_store).tokenize(trace)
    assert len(tokenized.warnings) == 1
    assert "only CA is present" in tokenized.warnings[0]
    (chain,) = tokenized
    decoded = StructureDetokenizer.load(decoding_store).detokenize(chain.tokens, has_frame=chain.has_frame)
    text = structure_text(decoded, form, [chain])
    assert "pTM" not in text  # there is none
    with pytest.raises(InvalidStructure, match="no atoms"):
        read_backbones(text.encode(), format=form)


def test_binarycif_is_not_written(detokenizer: StructureDetokenizer) -> None:
    with pytest.raises(InvalidStructure, match="pdb, mmcif"):
        structure_text(detokenizer.detokenize(TOKENS), "bcif")  # type: ignore[arg-type]
