"""Tokens equal the reference's, with random weights copied from it: esm==3.2.1.post1, `StructureTokenEncoder`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foldmint_tokenizer import backbone
from foldmint_tokenizer.encoder import ESM3
from foldmint_tokenizer.sizes import ModelConfig
from helpers.chains import RealChain
from helpers.files import esm_reader
from helpers.files.esm_reader import SMALL, Pair
from helpers.support import REFERENCE_WARNINGS

pytestmark = REFERENCE_WARNINGS

DEEP = ModelConfig(width=96, heads=8, layers=3, out=16)


@pytest.fixture(scope="module")
def paired(reference_class: Any, chains: list[RealChain]) -> Callable[[ModelConfig], Pair]:
    """Makes a pair of a size. Its codes are vectors of real residues, so that thousands of them are in use."""

    def make(config: ModelConfig) -> Pair:
        # Few chains suffice for the large size, whose reference is slow.
        sample = chains[3:] if config.width < ESM3.width else chains[3:7]
        return esm_reader.pair(reference_class, [(one.coordinates, one.residue_index) for one in sample], config)

    return make


Variant = Callable[[RealChain, np.random.Generator], tuple[NDArray[np.float32], NDArray[np.int64]]]


def whole(chain: RealChain, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return chain.coordinates, chain.residue_index


def with_missing(chain: RealChain, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x = chain.coordinates.copy()
    x[random.random(len(x)) < 0.1] = np.nan
    x[random.random(x.shape[:2]) < 0.03] = np.nan  # single atoms
    return x, chain.residue_index


def with_gaps(chain: RealChain, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    jumps = (random.random(len(chain.sequence)) < 0.05) * random.integers(1, 50, len(chain.sequence))
    return chain.coordinates, chain.residue_index + np.cumsum(jumps)


def short(chain: RealChain, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    length = int(random.integers(1, 16))
    return chain.coordinates[:length], chain.residue_index[:length]


def expected_tokens(pair: Pair, x: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.int64]:
    return pair.expected(torch.from_numpy(x)[None], torch.from_numpy(index)[None])


def agreement(pair: Pair, cases: list[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> tuple[int, int, int]:
    """Residues, those whose tokens differ, and different codes seen."""
    total = wrong = 0
    seen: set[int] = set()
    for x, index in cases:
        expected = expected_tokens(pair, x, index)
        (own,) = pair.tokenizer.tokenize(backbone(x, index))
        total += len(expected)
        wrong += int((own.tokens != expected).sum())
        seen.update(expected.tolist())
    return total, wrong, len(seen)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, DEEP], ids=["width-128", "width-96-of-3-layers"])
def test_whole_chains(paired: Callable[[ModelConfig], Pair], chains: list[RealChain], config: ModelConfig) -> None:
    random = np.random.default_rng(0)
    total, wrong, seen = agreement(paired(config), [whole(chain, random) for chain in chains])
    assert total > 20_000
    print(f"{wrong} of {total} tokens differ; {seen} codes seen")  # noqa: T201
    assert seen > 2_000
    assert wrong <= total * 1e-4


@pytest.mark.parametrize("variant", [with_missing, with_gaps, short])
def test_broken_chains(paired: Callable[[ModelConfig], Pair], chains: list[RealChain], variant: Variant) -> None:
    random = np.random.default_rng(1)
    total, wrong, _ = agreement(paired(SMALL), [variant(chain, random) for chain in chains])
    assert wrong <= total * 1e-4


@pytest.mark.slow
def test_esm3_size(paired: Callable[[ModelConfig], Pair], chains: list[RealChain]) -> None:
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
def test_esm3_size_on_twenty_thousand_residues(paired: Callable[[ModelConfig], Pair], chains: list[RealChain]) -> None:
    random = np.random.default_rng(3)
    variants: list[Variant] = [whole, whole, whole, with_missing, with_gaps, short]
    cases = [variants[place % 6](chain, random) for place, chain in enumerate(chains[2:] + chains[2:18])]
    total, wrong, seen = agreement(paired(ESM3), cases)
    print(f"{wrong} of {total} tokens differ; {seen} codes seen")  # noqa: T201
    assert total >= 20_000
    assert wrong <= total * 1e-4


def test_alone_and_among_fifty_others(paired: Callable[[ModelConfig], Pair], chains: list[RealChain]) -> None:
    pair = paired(SMALL)
    several = [backbone(chain.coordinates, chain.residue_index) for chain in chains[2:53]]
    together = pair.tokenizer.tokenize(several)
    total = wrong = 0
    for chain, tokens in zip(several, together, strict=True):
        expected = expected_tokens(pair, chain.coordinates, chain.residue_index)
        total += len(expected)
        wrong += int((tokens.tokens != expected).sum())
    assert wrong <= total * 1e-4
