"""Decoded tokens are the reference's, with its random weights: esm==3.2.1.post1, `StructureTokenDecoder`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import (
    ESM3_DECODER,
    Decoder,
    Rigids,
    aligned_error,
    backbone_atoms,
    composed,
)
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, CODES, EOS, MASK
from helpers.chains import RealChain
from helpers.support import REFERENCE_WARNINGS

pytestmark = REFERENCE_WARNINGS

SMALL = DecoderConfig(width=64, heads=4, layers=3)
MIDDLE = DecoderConfig(width=192, heads=6, layers=2)
SLICE = DecoderConfig(width=ESM3_DECODER.width, heads=ESM3_DECODER.heads, layers=2)

ENCODER = ModelConfig(width=192, heads=24, layers=2, out=48)


@dataclass(frozen=True)
class Pair:
    """The reference, and ours with its weights."""

    reference: Any
    decoder: Decoder

    def compare(self, tokens: NDArray[np.int64]) -> None:
        """Assert that both make the same of tokens (length,), from BOS to EOS."""
        with torch.no_grad():
            expected = self.reference.decode(torch.from_numpy(tokens)[None])
        residue = tokens < MASK
        own = detokenizer(self.decoder).detokenize(tokens, pae=True)
        x = np.concatenate([chain.coordinates for chain in own.chains])
        plddt = np.concatenate([chain.plddt for chain in own.chains])
        assert own.pae is not None
        np.testing.assert_allclose(x, expected["bb_pred"][0].numpy()[residue], rtol=0, atol=1e-3)
        np.testing.assert_allclose(plddt, expected["plddt"][0].numpy()[residue], rtol=0, atol=1e-4)
        pae = expected["predicted_aligned_error"][0].numpy()[residue][:, residue]
        np.testing.assert_allclose(own.pae, pae, rtol=0, atol=1e-4)
        assert own.ptm == pytest.approx(float(expected["ptm"][0]), abs=1e-4)


Paired = Callable[[DecoderConfig], Pair]


@pytest.fixture(scope="module")
def paired(reference_decoder_class: Any) -> Paired:
    """Makes a pair of a size, whose weights are all random."""

    def make(config: DecoderConfig) -> Pair:
        torch.manual_seed(0)
        reference = reference_decoder_class(config.width, config.heads, config.layers).eval()
        with torch.no_grad():
            for parameter in reference.parameters():
                if parameter.ndim == 1:  # ones and zeros of norms at birth, which would hide a mix-up
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        decoder = Decoder(config)
        state = reference.state_dict()
        assert state.keys() == decoder.state_dict().keys()
        decoder.load_state_dict(state)
        return Pair(reference, decoder.eval())

    return make


def detokenizer(decoder: Decoder) -> StructureDetokenizer:
    config = ModelConfig(width=16, heads=2, layers=1, out=4)
    codebook = Codebook(torch.zeros(CODES, 4), torch.ones(CODES), torch.zeros(CODES, 4))
    return StructureDetokenizer(
        Model("random", config, Encoder(config), "-", CodebookVersion("-", "-", codebook), decoder, "-")
    )


def structure(lengths: Sequence[int], random: np.random.Generator) -> NDArray[np.int64]:
    """Random tokens of chains of these lengths, from BOS to EOS."""
    parts: list[NDArray[np.int64] | list[int]] = [[BOS]]
    for length in lengths:
        parts += [random.integers(0, CODES, length), [CHAINBREAK]]
    return np.concatenate([*parts[:-1], [EOS]])


@pytest.mark.parametrize("config", [SMALL, MIDDLE], ids=["width-64", "width-192"])
def test_random_structures(paired: Paired, config: DecoderConfig) -> None:
    random = np.random.default_rng(0)
    pair = paired(config)
    for lengths in ([1], [2], [300], *random.integers(1, 300, (6, 1)), *random.integers(1, 100, (6, 3)), [1, 1, 1]):
        pair.compare(structure(lengths, random))


@pytest.mark.slow
def test_a_slice_of_esm3_size(paired: Paired) -> None:
    random = np.random.default_rng(1)
    pair = paired(SLICE)
    for lengths in ([1], [37], [60, 1, 90], [300]):
        pair.compare(structure(lengths, random))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_esm3_size(paired: Paired) -> None:
    random = np.random.default_rng(2)
    pair = paired(ESM3_DECODER)
    for lengths in ([1], [130, 40], [300]):
        pair.compare(structure(lengths, random))


def test_all_logits_of_pairs(paired: Paired) -> None:
    pair = paired(MIDDLE)
    states = torch.randn(2, 9, MIDDLE.width)
    head = pair.decoder.pairwise_classification_head
    with torch.no_grad():
        expected = pair.reference.pairwise_classification_head(states)
        whole = head(states, slice(None), slice(None))
        some = head(states, torch.tensor([7, 2]), slice(64, 160))
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(some, expected[:, [7, 2], :, 64:160], rtol=0, atol=1e-5)


def test_rows_at_a_time_make_no_difference(paired: Paired) -> None:
    decoder = paired(SMALL).decoder
    states, residues = torch.randn(45, SMALL.width), torch.arange(1, 44)
    with torch.no_grad():
        whole = aligned_error(decoder.pairwise_classification_head, states, residues, rows=1000)
        for rows in (1, 16, 43):
            part = aligned_error(decoder.pairwise_classification_head, states, residues, rows)
            torch.testing.assert_close(part.pae, whole.pae, rtol=0, atol=1e-4)
            torch.testing.assert_close(part.ptm, whole.ptm, rtol=0, atol=1e-5)
    assert whole.pae.shape == (43, 43)


def test_there_and_back(reference_class: Any, paired: Paired, chains: list[RealChain]) -> None:
    pair = paired(MIDDLE)
    torch.manual_seed(0)
    encoding = reference_class(ENCODER.width, 1, ENCODER.heads, ENCODER.layers, ENCODER.out, ENCODER.codes).eval()
    sample = sorted(chains, key=lambda chain: len(chain.sequence))[::9]
    given = [(torch.from_numpy(c.coordinates)[None], torch.from_numpy(c.residue_index)[None]) for c in sample]
    with torch.no_grad():
        encoding.relative_positional_embedding.embedding.weight.normal_()
        # At birth all vectors are much alike: they are centered, and codes laid around them, so that many are in use.
        vectors: list[Tensor] = []
        hook = encoding.pre_vq_proj.register_forward_hook(lambda module, inputs, z: vectors.append(z[0]))
        for x, index in given:
            encoding.encode(x, residue_index=index)
        hook.remove()
        z = torch.cat(vectors)
        encoding.pre_vq_proj.bias.sub_(z.mean(0))
        encoding.codebook.embeddings.mul_(z.std(0))
    encoder = Encoder(ENCODER)
    encoder.load_state_dict({n: v for n, v in encoding.state_dict().items() if not n.startswith("codebook.")})
    embeddings = encoding.codebook.embeddings.clone()
    codebook = CodebookVersion("-", "-", Codebook(embeddings, torch.ones(CODES), embeddings.clone()))
    model = Model("random", ENCODER, encoder.eval(), "-", codebook, pair.decoder, "-")
    tokenizer, back = StructureTokenizer(model), StructureDetokenizer(model)
    seen: set[int] = set()
    for chain, (x, index) in zip(sample, given, strict=True):
        with torch.no_grad():
            _, codes = encoding.encode(x, residue_index=index)
            ends = torch.tensor([[BOS]]), torch.tensor([[EOS]])
            expected = pair.reference.decode(torch.cat([ends[0], codes, ends[1]], 1))
        (own,) = tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index))
        np.testing.assert_array_equal(own.tokens, codes[0].numpy())
        (decoded,) = back.detokenize(own.tokens).chains
        np.testing.assert_allclose(decoded.coordinates, expected["bb_pred"][0, 1:-1].numpy(), rtol=0, atol=1e-3)
        np.testing.assert_allclose(decoded.plddt, expected["plddt"][0, 1:-1].numpy(), rtol=0, atol=1e-4)
        seen.update(own.tokens.tolist())
    assert len(seen) > 100


def loop(moves: Rigids) -> Rigids:
    """Each motion after all before it, one by one, in float64."""
    rotation, origin = moves.rotation.double(), moves.origin.double()
    turned, placed = [rotation[:, 0]], [origin[:, 0]]
    for at in range(1, origin.shape[1]):
        placed.append(placed[-1] + (turned[-1] @ origin[:, at, :, None]).squeeze(-1))
        turned.append(turned[-1] @ rotation[:, at])
    return Rigids(torch.stack(turned, 1), torch.stack(placed, 1))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 300])
def test_motions_along_a_chain(length: int) -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(2, length, 3, 3)).Q
    rotation *= torch.linalg.det(rotation)[..., None, None]
    moves = Rigids(rotation, 3.8 * torch.nn.functional.normalize(torch.randn(2, length, 3), dim=-1))
    own, expected = composed(moves), loop(moves)
    torch.testing.assert_close(own.origin.double(), expected.origin, rtol=0, atol=1e-3)
    torch.testing.assert_close(own.rotation.double(), expected.rotation, rtol=0, atol=1e-4)


def test_a_chained_decoder_counts_from_the_token_before() -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(64, 4, 2, chained=True)).eval()
    states = torch.randn(2, 120, 64)
    with torch.no_grad():
        own = decoder.rigids(states)
        expected = loop(decoder.affine_output_projection(states))
    torch.testing.assert_close(backbone_atoms(own).double(), backbone_atoms(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize("chained", [False, True])
def test_in_a_batch_as_alone(chained: bool) -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(64, 4, 2, chained=chained)).eval()
    lengths = [5, 40, 1, 23]
    ids = torch.randint(0, CODES, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = decoder.states(decoder.embed(ids), mask)
        atoms, plddt = backbone_atoms(decoder.rigids(together)), decoder.confidence(together)
        for row, length in enumerate(lengths):
            alone = decoder.states(decoder.embed(ids[row : row + 1, :length]))
            torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-5)
            expected = backbone_atoms(decoder.rigids(alone))[0]
            torch.testing.assert_close(atoms[row, :length], expected, rtol=0, atol=1e-3)
            torch.testing.assert_close(plddt[row, :length], decoder.confidence(alone)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"width": 0}, "width must be a positive integer"),
        ({"heads": 2.0}, "heads must be a positive integer"),
        ({"layers": True}, "layers must be a positive integer"),
        ({"width": 60, "heads": 4}, "60, must be a multiple of twice the heads, 4"),
        ({"chained": 1}, "chained must be true or false"),
    ],
)
def test_sizes_are_checked(sizes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DecoderConfig(**({"width": 64, "heads": 4, "layers": 2} | sizes))
