"""The tokenizer in process, with the embedded default model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foldmint_tokenizer import Backbone, InvalidStructure, ModelError, StructureTokenizer, backbone, read_backbones
from foldmint_tokenizer.neighborhoods import structure_geometry
from foldmint_tokenizer.store.model_store import load_model
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS
from helpers.chains import RealChain


@pytest.fixture(scope="module")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


def of(chain: RealChain) -> Backbone:
    return backbone(chain.coordinates, chain.residue_index)


def tokens_of(tokenizer: StructureTokenizer, chains: list[Backbone]) -> NDArray[np.int64]:
    return np.concatenate([tokenizer.tokenize(chain)[0].tokens for chain in chains])


def test_a_file(tokenizer: StructureTokenizer, data: Path) -> None:
    (chain,) = tokenizer.tokenize(data / "1a8o.cif")
    assert chain.tokens.shape == chain.has_frame.shape == chain.residue_index.shape == (70,)
    assert chain.tokens.min() >= 0
    assert chain.tokens.max() < 4096
    assert len(set(chain.tokens.tolist())) > 30
    assert chain.has_frame.all()
    assert chain.distances is None


def test_file_bytes_and_coordinates_agree(tokenizer: StructureTokenizer, data: Path) -> None:
    expected = tokenizer.tokenize(data / "2beg.cif.gz")
    for source in ((data / "2beg.cif.gz").read_bytes(), read_backbones(data / "2beg.cif.gz")):
        for own, other in zip(tokenizer.tokenize(source), expected, strict=True):
            assert own.chain == other.chain
            np.testing.assert_array_equal(own.tokens, other.tokens)


@pytest.mark.slow
def test_rotation_and_translation_change_nothing(tokenizer: StructureTokenizer, chains: list[RealChain]) -> None:
    random = np.random.default_rng(0)
    turned = []
    for chain, turn in zip(chains, Rotation.random(len(chains), rng=random), strict=True):
        x = chain.coordinates @ turn.as_matrix().T + random.normal(size=3) * 100
        turned.append(backbone(x.astype(np.float32), chain.residue_index))
    same = tokens_of(tokenizer, turned) == tokens_of(tokenizer, [of(chain) for chain in chains])
    assert len(same) > 20_000
    assert same.mean() >= 0.999


def test_alone_and_together(tokenizer: StructureTokenizer, chains: list[RealChain]) -> None:
    several = [of(chain) for chain in chains]
    together = np.concatenate([chain.tokens for chain in tokenizer.tokenize(several)])
    np.testing.assert_array_equal(together, tokens_of(tokenizer, several))


def test_residues_without_a_frame(tokenizer: StructureTokenizer, chains: list[RealChain]) -> None:
    x = chains[5].coordinates.copy()
    x[[3, 7]] = np.nan
    (chain,) = tokenizer.tokenize(backbone(x), distances=True)
    assert np.flatnonzero(~chain.has_frame).tolist() == [3, 7]
    bias = tokenizer.model.encoder.pre_vq_proj.bias
    embeddings = tokenizer.model.codebook.codebook.embeddings
    code = int((embeddings - bias).norm(dim=1).argmin())
    assert chain.tokens[[3, 7]].tolist() == [code, code]
    assert chain.distances is not None
    np.testing.assert_array_equal(np.isnan(chain.distances), ~chain.has_frame)


def test_a_chain_of_nothing_but_missing_atoms(tokenizer: StructureTokenizer) -> None:
    (chain,) = tokenizer.tokenize(backbone(np.full((5, 3, 3), np.nan)))
    assert not chain.has_frame.any()
    assert len(set(chain.tokens.tolist())) == 1


def test_distances_are_to_the_nearest_code(tokenizer: StructureTokenizer, data: Path) -> None:
    (chain,) = tokenizer.tokenize(data / "1a8o.cif", distances=True)
    assert chain.distances is not None
    assert (chain.distances > 0).all()
    assert chain.distances.dtype == np.float32


def test_gaps_in_the_numbers_matter(tokenizer: StructureTokenizer, chains: list[RealChain]) -> None:
    length = len(chains[5].sequence)
    apart = backbone(chains[5].coordinates, np.arange(length) * 3)
    same = tokens_of(tokenizer, [apart]) == tokens_of(tokenizer, [of(chains[5])])
    assert same.mean() < 0.9


def test_special_tokens(tokenizer: StructureTokenizer, data: Path) -> None:
    plain = tokenizer.tokenize(data / "2beg.cif.gz")
    special = tokenizer.tokenize(data / "2beg.cif.gz", special_tokens=True)
    for own, other in zip(special, plain, strict=True):
        assert own.tokens.tolist() == [BOS, *other.tokens.tolist(), EOS]
        assert len(own.residue_index) == len(own.has_frame) == len(other.tokens)


def test_complexes(tokenizer: StructureTokenizer, data: Path) -> None:
    alone = tokenizer.tokenize(data / "2beg.cif.gz")
    together = tokenizer.tokenize(data / "2beg.cif.gz", complex=True)
    # The strands of a fibril touch: each chain's tokens change when its neighbors are seen.
    for own, other in zip(together, alone, strict=True):
        assert own.chain == other.chain
        assert (own.tokens != other.tokens).any()
        np.testing.assert_array_equal(own.residue_index, other.residue_index)
    special = tokenizer.tokenize(data / "2beg.cif.gz", complex=True, special_tokens=True)
    joined = np.concatenate([chain.tokens for chain in special]).tolist()
    plain = [chain.tokens.tolist() for chain in together]
    expected = [BOS, *plain[0]]
    for tokens in plain[1:]:
        expected += [CHAINBREAK, *tokens]
    assert joined == [*expected, EOS]


def test_in_a_complex_no_two_chains_look_like_neighbors_in_sequence(data: Path) -> None:
    backbones = read_backbones(data / "2beg.cif.gz")  # all five are numbered alike
    index = structure_geometry(backbones, complex=True).residue_index
    ends = np.cumsum([len(chain) for chain in backbones])
    for chain, end in zip(backbones, ends, strict=True):
        own = index[end - len(chain) : end]
        np.testing.assert_array_equal(own - own[0], chain.residue_index - chain.residue_index[0])
        others = np.concatenate([index[: end - len(chain)], index[end:]])
        assert np.abs(own[:, None] - others).min() > 32


def test_complex_of_one_chain_is_that_chain(tokenizer: StructureTokenizer, data: Path) -> None:
    (alone,) = tokenizer.tokenize(data / "1a8o.cif")
    (together,) = tokenizer.tokenize(data / "1a8o.cif", complex=True)
    np.testing.assert_array_equal(alone.tokens, together.tokens)


@pytest.mark.parametrize(
    ("coordinates", "index", "field", "reason"),
    [
        (np.zeros((4, 3)), None, "coordinates", r"shape is \(4, 3\)"),
        (np.zeros((4, 4, 3)), None, "coordinates", "shape"),
        (np.zeros((0, 3, 3)), None, "coordinates", "no residue"),
        (np.full((2, 3, 3), np.inf), None, "coordinates", "residue 1: inf is beyond"),
        (np.full((2, 3, 3), -1.1e6), [8, 9], "coordinates", "residue 8"),
        (np.zeros((2, 3, 3)), [1, 2, 3], "residue_index", "3 entries for 2 residues"),
        (np.zeros((2, 3, 3)), [1.0, 2.5], "residue_index", "expected one integer for each residue"),
        (np.zeros((2, 3, 3)), [True, False], "residue_index", "expected one integer for each residue"),
        (np.zeros((2, 3, 3)), [1, 2**31], "residue_index", "does not fit into 32 bits"),
        (np.zeros((2, 3, 3)), [2**63, 2**64 - 1], "residue_index", "does not fit into 32 bits"),
        (np.zeros((2, 3, 3)), [-(2**100), 1], "residue_index", "does not fit into 32 bits"),
    ],
)
def test_backbones_that_are_refused(
    coordinates: NDArray[np.float64], index: list[int] | None, field: str, reason: str
) -> None:
    with pytest.raises(InvalidStructure, match=reason) as caught:
        backbone(coordinates, index, chain="Q")
    assert (caught.value.field, caught.value.chain) == (field, "Q")


def test_a_vector_that_is_not_finite_never_becomes_a_token(data: Path) -> None:
    model = load_model()
    with torch.no_grad():
        model.encoder.pre_vq_proj.weight[0, 0] = float("nan")
    tokenizer = StructureTokenizer(model)
    with pytest.raises(ModelError, match="not finite"):
        tokenizer.tokenize(data / "1a8o.cif")
