"""Tokens equal the reference's, with random weights copied from it: esm==3.2.1.post1, `StructureTokenEncoder`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import Record
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import ESM3, Encoder, ModelConfig
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.neighborhoods import geometry
from helpers.support import REFERENCE_WARNINGS

pytestmark = REFERENCE_WARNINGS

SMALL = ModelConfig(width=128, heads=16, layers=2, out=32)
DEEP = ModelConfig(width=96, heads=8, layers=3, out=16)


@dataclass(frozen=True)
class Pair:
    """The reference, and ours with its weights."""

    reference: Any
    tokenizer: StructureTokenizer

    def expected(self, x: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.int64]:
        with torch.no_grad():
            _, codes = self.reference.encode(torch.from_numpy(x)[None], residue_index=torch.from_numpy(index)[None])
        result: NDArray[np.int64] = codes[0].numpy()
        return result


@pytest.fixture(scope="module")
def paired(reference_class: Any, chains: list[Record]) -> Callable[[ModelConfig], Pair]:
    """Makes a pair of a size. Its codes are vectors of real residues, so that thousands of them are in use."""

    def make(config: ModelConfig) -> Pair:
        torch.manual_seed(0)
        reference = reference_class(config.width, 1, config.heads, config.layers, config.out, config.codes).eval()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                if "scale_per_head" in name:
                    parameter.normal_()  # zero at birth, which would hide a mix-up of heads
            reference.relative_positional_embedding.embedding.weight.normal_()
            reference.pre_vq_proj.weight.mul_(10)
        encoder = Encoder(config)
        names = encoder.state_dict().keys()
        state = {name: value for name, value in reference.state_dict().items() if not name.startswith("codebook.")}
        assert state.keys() == names
        encoder.load_state_dict(state)
        # Few chains suffice for the large size, whose reference is slow.
        sample = chains[3:] if config.width < ESM3.width else chains[3:7]
        engine = Engine(encoder)
        rows = [geometry(chain.coordinates, chain.residue_index).rows(slice(None)) for chain in sample]
        z = torch.cat([engine.vectors(part) for part in rows])
        # Centered: products far from zero cancel, in the reference as well as here.
        shift = z.mean(0)
        with torch.no_grad():
            encoder.pre_vq_proj.bias.sub_(shift)
            reference.pre_vq_proj.bias.sub_(shift)
        far = torch.full((max(0, config.codes - len(z)), config.out), 1e4)
        chosen = torch.randperm(len(z))[: config.codes]
        reference.codebook.embeddings.copy_(torch.cat([z[chosen] - shift, far]))
        codebook = Codebook(reference.codebook.embeddings.clone(), torch.ones(config.codes), z.new_zeros(0))
        model = Model("random", config, encoder, "-", CodebookVersion("-", "-", codebook))
        return Pair(reference, StructureTokenizer(model))

    return make


Variant = Callable[[Record, np.random.Generator], tuple[NDArray[np.float32], NDArray[np.int64]]]


def whole(chain: Record, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return chain.coordinates, chain.residue_index


def with_missing(chain: Record, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x = chain.coordinates.copy()
    x[random.random(len(x)) < 0.1] = np.nan
    x[random.random(x.shape[:2]) < 0.03] = np.nan  # single atoms
    return x, chain.residue_index


def with_gaps(chain: Record, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    jumps = (random.random(len(chain.sequence)) < 0.05) * random.integers(1, 50, len(chain.sequence))
    return chain.coordinates, chain.residue_index + np.cumsum(jumps)


def short(chain: Record, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    length = int(random.integers(1, 16))
    return chain.coordinates[:length], chain.residue_index[:length]


def agreement(pair: Pair, cases: list[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> tuple[int, int, int]:
    """Residues, those whose tokens differ, and different codes seen."""
    total = wrong = 0
    seen: set[int] = set()
    for x, index in cases:
        expected = pair.expected(x, index)
        (own,) = pair.tokenizer.tokenize(backbone(x, index))
        total += len(expected)
        wrong += int((own.tokens != expected).sum())
        seen.update(expected.tolist())
    return total, wrong, len(seen)


@pytest.mark.parametrize("config", [SMALL, DEEP], ids=["width-128", "width-96-of-3-layers"])
def test_whole_chains(paired: Callable[[ModelConfig], Pair], chains: list[Record], config: ModelConfig) -> None:
    random = np.random.default_rng(0)
    total, wrong, seen = agreement(paired(config), [whole(chain, random) for chain in chains])
    assert total > 20_000
    print(f"{wrong} of {total} tokens differ; {seen} codes seen")  # noqa: T201
    assert seen > 2_000
    assert wrong <= total * 1e-4


@pytest.mark.parametrize("variant", [with_missing, with_gaps, short])
def test_broken_chains(paired: Callable[[ModelConfig], Pair], chains: list[Record], variant: Variant) -> None:
    random = np.random.default_rng(1)
    total, wrong, _ = agreement(paired(SMALL), [variant(chain, random) for chain in chains])
    assert wrong <= total * 1e-4


def test_esm3_size(paired: Callable[[ModelConfig], Pair], chains: list[Record]) -> None:
    random = np.random.default_rng(2)
    pair = paired(ESM3)
    variants: list[Variant] = [whole, with_missing, with_gaps, short]
    shortest = sorted(chains, key=lambda chain: len(chain.sequence))[:12]
    cases = [variants[place % 4](chain, random) for place, chain in enumerate(shortest)]
    total, wrong, seen = agreement(pair, cases)
    assert total > 500
    assert seen > 100
    assert wrong <= total * 1e-4


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_esm3_size_on_twenty_thousand_residues(paired: Callable[[ModelConfig], Pair], chains: list[Record]) -> None:
    random = np.random.default_rng(3)
    variants: list[Variant] = [whole, whole, whole, with_missing, with_gaps, short]
    cases = [variants[place % 6](chain, random) for place, chain in enumerate(chains[2:] + chains[2:18])]
    total, wrong, seen = agreement(paired(ESM3), cases)
    print(f"{wrong} of {total} tokens differ; {seen} codes seen")  # noqa: T201
    assert total >= 20_000
    assert wrong <= total * 1e-4


def test_alone_and_among_fifty_others(paired: Callable[[ModelConfig], Pair], chains: list[Record]) -> None:
    pair = paired(SMALL)
    several = [backbone(chain.coordinates, chain.residue_index) for chain in chains[2:53]]
    together = pair.tokenizer.tokenize(several)
    total = wrong = 0
    for chain, tokens in zip(several, together, strict=True):
        expected = pair.expected(chain.coordinates, chain.residue_index)
        total += len(expected)
        wrong += int((tokens.tokens != expected).sum())
    assert wrong <= total * 1e-4
