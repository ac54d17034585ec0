"""Decoded structures as PDB and mmCIF files: what is written is read again, and what a format cannot hold is told."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldmint_tokenizer import (
    ChainLabels,
    DecodedChain,
    DecodedStructure,
    InvalidStructure,
    StructureDetokenizer,
    StructureTokenizer,
    read_backbones,
    structure_text,
)
from foldmint_tokenizer.structure.chain_labels import completed
from foldmint_tokenizer.structure.options import WrittenFormat
from foldmint_tokenizer.vocabulary import CHAINBREAK

FORMATS: list[WrittenFormat] = ["pdb", "mmcif"]


def structure(*sizes: int, scale: float = 20.0) -> DecodedStructure:
    """Chains of these sizes, their atoms anywhere."""
    random = np.random.default_rng(0)
    return DecodedStructure(
        tuple(
            DecodedChain(
                random.normal(size=(size, 3, 3), scale=scale).astype(np.float32),
                random.random(size).astype(np.float32),
            )
            for size in sizes
        ),
        0.5,
    )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["1a8o.cif", "1gbt.cif.gz", "2beg.cif.gz"])
def test_a_structure_is_read_as_it_was_written(
    decoding_store: Path, data: Path, name: str, form: WrittenFormat
) -> None:
    """With modified residues, with insertion codes and jumps in the numbers, and with several chains."""
    chains = StructureTokenizer.load(decoding_store).tokenize(data / name)
    tokens = np.concatenate([[*chain.tokens, CHAINBREAK] for chain in chains])[:-1]
    decoded = StructureDetokenizer.load(decoding_store).detokenize(tokens)
    text = structure_text(decoded, form, chains, origin="decoding, codebook 000001")
    assert "decoding, codebook 000001; ptm" in " ".join(text.lower().replace("title    2", "").split())
    for backbone, chain, was in zip(read_backbones(text.encode()), decoded.chains, chains, strict=True):
        assert (backbone.chain, backbone.sequence) == (was.chain, was.sequence)
        assert backbone.insertion_codes == was.insertion_codes
        np.testing.assert_array_equal(backbone.residue_index, was.residue_index)
        np.testing.assert_allclose(backbone.coordinates, chain.coordinates, atol=1e-3)


@pytest.mark.parametrize("form", FORMATS)
def test_labels_are_not_needed(form: WrittenFormat) -> None:
    decoded = structure(1, 30, 2)
    text = structure_text(decoded, form)
    backbones = read_backbones(text.encode())
    assert [backbone.chain for backbone in backbones] == ["A", "B", "C"]
    for backbone, chain in zip(backbones, decoded.chains, strict=True):
        assert backbone.sequence == "X" * len(chain)
        assert backbone.residue_index.tolist() == list(range(1, len(chain) + 1))
        np.testing.assert_allclose(backbone.coordinates, chain.coordinates, atol=1e-3)
    read = gemmi.read_pdb_string(text) if form == "pdb" else gemmi.make_structure_from_block(_block(text))
    assert {residue.name for chain in read[0] for residue in chain} == {"UNK"}


@pytest.mark.parametrize("form", FORMATS)
def test_b_factors_are_plddt(form: WrittenFormat) -> None:
    decoded = structure(30)
    text = structure_text(decoded, form)
    read = gemmi.read_pdb_string(text) if form == "pdb" else gemmi.make_structure_from_block(_block(text))
    for residue, plddt in zip(read[0][0], decoded.chains[0].plddt, strict=True):
        assert [atom.name for atom in residue] == ["N", "CA", "C"]
        for atom in residue:
            assert atom.b_iso == pytest.approx(100 * plddt, abs=0.0051)
            assert atom.occ == 1


def _block(text: str) -> gemmi.cif.Block:
    return gemmi.cif.read_string(text)[0]


@pytest.mark.parametrize("form", FORMATS)
def test_residues_that_share_a_number_are_told_apart(form: WrittenFormat) -> None:
    labels = [ChainLabels(residue_index=[7, 7, 7, 8, 7])]
    (backbone,) = read_backbones(structure_text(structure(5), form, labels).encode())
    assert backbone.residue_index.tolist() == [7, 7, 7, 8, 7]
    assert backbone.insertion_codes == " AB C"


@pytest.mark.parametrize("form", FORMATS)
def test_letters_become_residues(form: WrittenFormat) -> None:
    letters = "ACDEFGHIKLMNPQRSTVWYUOBZXJa*é"
    (backbone,) = read_backbones(structure_text(structure(29), form, [ChainLabels(sequence=letters)]).encode())
    assert backbone.sequence == "ACDEFGHIKLMNPQRSTVWYUOBZXXAXX"


@pytest.mark.parametrize("name", ["long name", "AAA", "q'\"", ".", "?", "_x", "data_", "#", "ä", "$a", ";"])
def test_mmcif_takes_any_name(name: str) -> None:
    labels = [ChainLabels(name), ChainLabels("B", residue_index=[-4000, 20_000, 2**31 - 1])]
    first, second = read_backbones(structure_text(structure(2, 3, scale=9000), "mmcif", labels).encode())
    assert (first.chain, second.chain) == (name, "B")
    assert second.residue_index.tolist() == [-4000, 20_000, 2**31 - 1]


def test_names_by_default_are_those_that_are_free() -> None:
    labels = completed([1] * 64, [ChainLabels("B"), *[ChainLabels()] * 63])
    names = [label.chain for label in labels]
    assert names[:4] == ["B", "A", "C", "D"]
    assert names[-4:] == ["8", "9", "AA", "AB"]
    assert len(set(names)) == 64


@pytest.mark.parametrize(
    ("decoded", "labels", "field", "reason"),
    [
        (structure(2), [ChainLabels("AB")], "chains[0].chain", "62 in all"),
        (structure(2, 2), [ChainLabels(), ChainLabels(" ")], "chains[1].chain", "62 in all"),
        (structure(*[1] * 63), [], "chains[62].chain", "62 in all"),
        (structure(2), [ChainLabels(residue_index=[9999, 10_000])], "chains[0].residue_index", "residue 10000"),
        (structure(2), [ChainLabels(residue_index=[-1000, 1])], "chains[0].residue_index", "-999 to 9999"),
        (structure(2, scale=9000), [], "format", "coordinates"),
        (structure(9_000, 9_000, 9_000, 6_400), [], "format", "100200 atoms"),
    ],
)
def test_what_pdb_files_do_not_hold(
    decoded: DecodedStructure, labels: list[ChainLabels], field: str, reason: str
) -> None:
    with pytest.raises(InvalidStructure) as caught:
        structure_text(decoded, "pdb", labels)
    assert caught.value.field == field
    assert reason in caught.value.description
    assert "mmCIF has no such limit" in caught.value.description
    if len(decoded.chains) < 10:  # and it holds true
        assert len(read_backbones(structure_text(decoded, "mmcif", labels).encode())) == len(decoded.chains)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("labels", "field", "reason"),
    [
        ([ChainLabels()], "chains", "there are labels for 1 chains, but tokens of 2"),
        ([ChainLabels("A"), ChainLabels("A")], "chains[0].chain", "another chain"),
        ([ChainLabels(), ChainLabels(sequence="ACD")], "chains[1].sequence", "3 entries for 2 residues"),
        ([ChainLabels(), ChainLabels(residue_index=[1])], "chains[1].residue_index", "1 entries"),
        ([ChainLabels(residue_index=[1, 2**31]), ChainLabels()], "chains[0].residue_index", "32 bits"),
        ([ChainLabels(insertion_codes="ABC"), ChainLabels()], "chains[0].insertion_codes", "3 entries"),
        ([ChainLabels(insertion_codes=" é"), ChainLabels()], "chains[0].insertion_codes", "ASCII"),
        ([ChainLabels("x" * 101), ChainLabels()], "chains[0].chain", "too long"),
        ([ChainLabels("x\n"), ChainLabels()], "chains[0].chain", "unprintable characters"),
        (
            [ChainLabels(residue_index=[5, 5], insertion_codes="AA"), ChainLabels()],
            "chains[0].residue_index",
            "residue 5A: several residues",
        ),
    ],
)
def test_labels_that_do_not_fit(labels: list[ChainLabels], field: str, reason: str, form: WrittenFormat) -> None:
    with pytest.raises(InvalidStructure) as caught:
        structure_text(structure(2, 2), form, labels)
    assert caught.value.field == field
    assert reason in caught.value.description


def test_more_residues_of_one_number_than_there_are_letters() -> None:
    labels = [ChainLabels(residue_index=[3] * 28)]
    with pytest.raises(InvalidStructure, match="residue 3Z: several residues"):
        structure_text(structure(28), "mmcif", labels)
