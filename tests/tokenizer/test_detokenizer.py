"""Tokens come back as the backbones of their chains, and are refused, with the position, where they make no sense."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldmint_tokenizer import InvalidTokens, ModelError, StructureDetokenizer
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.detokenizer import checked_tokens
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS, MASK, PAD


@pytest.fixture(scope="module")
def detokenizer(decoding_store: Path) -> StructureDetokenizer:
    return StructureDetokenizer.load(decoding_store)


TOKENS = [7, 4095, 0, CHAINBREAK, 12, CHAINBREAK, 900, 901, 902, 903]


@pytest.mark.parametrize(
    "tokens",
    [
        [BOS, *TOKENS, EOS],
        [BOS, *TOKENS],
        [*TOKENS, EOS],
        np.array(TOKENS),
        np.array(TOKENS, np.uint16),
        np.array([BOS, *TOKENS, EOS], np.int32),
    ],
)
def test_ends_and_types_are_free(detokenizer: StructureDetokenizer, tokens: Sequence[int]) -> None:
    expected, own = detokenizer.detokenize(TOKENS), detokenizer.detokenize(tokens)
    assert own.ptm == expected.ptm
    for one, other in zip(own.chains, expected.chains, strict=True):
        np.testing.assert_array_equal(one.coordinates, other.coordinates)
        np.testing.assert_array_equal(one.plddt, other.plddt)


def test_chains_are_parted(detokenizer: StructureDetokenizer) -> None:
    decoded = detokenizer.detokenize(TOKENS)
    assert [len(chain) for chain in decoded.chains] == [3, 1, 4]
    assert 0 <= decoded.ptm <= 1
    for chain in decoded.chains:
        assert chain.coordinates.shape == (len(chain), 3, 3)
        assert chain.plddt.shape == (len(chain),)
        assert chain.coordinates.dtype == chain.plddt.dtype == np.float32
        assert np.all((chain.plddt >= 0) & (chain.plddt <= 1))


def test_each_residue_stays_in_its_place(detokenizer: StructureDetokenizer) -> None:
    decoder = detokenizer.model.decoder
    assert isinstance(decoder, Decoder)
    with torch.no_grad():
        states = decoder.states(decoder.embed(torch.tensor([[BOS, *TOKENS, EOS]])))
        origin, plddt = decoder.rigids(states).origin[0], decoder.confidence(states)[0]
    places = [[1, 2, 3], [5], [7, 8, 9, 10]]
    for place, chain in zip(places, detokenizer.detokenize(TOKENS).chains, strict=True):
        np.testing.assert_allclose(chain.coordinates[:, 1], origin[place], rtol=0, atol=1e-4)
        np.testing.assert_allclose(chain.plddt, plddt[place], rtol=0, atol=1e-5)


def test_aligned_errors_are_for_those_who_ask(detokenizer: StructureDetokenizer) -> None:
    assert detokenizer.detokenize(TOKENS).pae is None
    pae = detokenizer.detokenize(TOKENS, pae=True).pae
    assert pae is not None
    assert pae.shape == (8, 8)
    assert pae.dtype == np.float32
    assert np.all((pae >= 0) & (pae <= 32))


def test_a_residue_alone(detokenizer: StructureDetokenizer) -> None:
    decoded = detokenizer.detokenize([5], pae=True)
    assert decoded.pae is not None
    assert ([len(chain) for chain in decoded.chains], decoded.pae.shape) == ([1], (1, 1))


@pytest.mark.parametrize(
    ("tokens", "position", "reason"),
    [
        ([], None, "there are no tokens"),
        ([[1, 2], [3, 4]], None, r"the shape is \(2, 2\)"),
        (5, None, r"the shape is \(\)"),
        ([1.0, 2.0], None, "the type is float64"),
        ([True, False], None, "the type is bool"),
        (["A", "B"], None, "the type is <U1"),
        ([3, -1], 1, "-1 is not a token; codes are 0 to 4095"),
        ([3, 4101, -1], 1, "4101 is not a token"),
        ([3, 4, MASK], 2, r"4096 \(MASK\) is not allowed among the residues"),
        ([PAD, 3], 0, r"4099 \(PAD\) is not allowed"),
        ([BOS, 3, PAD, EOS], 2, r"4099 \(PAD\) is not allowed"),
        ([BOS, BOS, 3], 1, r"4098 \(BOS\) is not allowed"),
        ([3, EOS, 4], 1, r"4097 \(EOS\) is not allowed"),
        ([EOS, 3], 0, r"4097 \(EOS\) is not allowed"),
        ([3, EOS, EOS], 1, r"4097 \(EOS\) is not allowed"),
        ([3, BOS], 1, r"4098 \(BOS\) is not allowed"),
        ([BOS], 0, "a chain without residues"),
        ([EOS], 0, "a chain without residues"),
        ([BOS, EOS], 1, "a chain without residues"),
        ([CHAINBREAK], 0, "a chain without residues"),
        ([CHAINBREAK, 3], 0, "a chain without residues"),
        ([BOS, CHAINBREAK, 3, EOS], 1, "a chain without residues"),
        ([3, CHAINBREAK, CHAINBREAK, 4], 2, "a chain without residues"),
        ([BOS, 3, CHAINBREAK, EOS], 3, "a chain without residues"),
        ([3, CHAINBREAK], 1, "a chain without residues"),
    ],
)
def test_tokens_that_make_no_sense(
    detokenizer: StructureDetokenizer, tokens: Sequence[int], position: int | None, reason: str
) -> None:
    with pytest.raises(InvalidTokens, match=reason) as caught:
        detokenizer.detokenize(tokens)
    assert caught.value.position == position
    assert str(caught.value).startswith("" if position is None else f"token {position}: ")


def test_a_small_codebook_has_no_other_codes() -> None:
    assert checked_tokens([15], 16).tolist() == [BOS, 15, EOS]
    with pytest.raises(InvalidTokens, match="16 is not a token; codes are 0 to 15") as caught:
        checked_tokens([BOS, 15, 16], 16)
    assert caught.value.position == 2


def test_a_model_without_a_decoder_says_so(detokenizer: StructureDetokenizer) -> None:
    with pytest.raises(ModelError, match="the model decoding has no decoder"):
        StructureDetokenizer(replace(detokenizer.model, decoder=None, decoder_digest=None))


@pytest.mark.parametrize(
    "broken",
    [
        lambda decoder: decoder.affine_output_projection.proj.bias,
        lambda decoder: decoder.plddt_head.output.bias,
        lambda decoder: decoder.pairwise_classification_head.linear2.weight,
        lambda decoder: decoder.embed.weight,
    ],
    ids=["position", "confidence", "aligned-error", "embedding"],
)
def test_nonsense_of_the_decoder_is_no_answer(
    detokenizer: StructureDetokenizer, broken: Callable[[Decoder], torch.Tensor]
) -> None:
    decoder = deepcopy(detokenizer.model.decoder)
    assert isinstance(decoder, Decoder)
    with torch.no_grad():
        broken(decoder).fill_(torch.inf)
    with pytest.raises(ModelError, match="not finite"):
        StructureDetokenizer(replace(detokenizer.model, decoder=decoder)).detokenize(TOKENS)
