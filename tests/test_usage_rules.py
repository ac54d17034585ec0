"""What server, client and maintenance alike make of counts of codes."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint.usage import EXPOSURE, MAX_FALSE_DEAD, design_effect, enough_exposure, evidence, perplexity

CODES = 4096


def test_perplexity_is_the_number_of_codes_used_alike() -> None:
    assert perplexity(np.full(16, 3.0)) == pytest.approx(16, rel=1e-5)
    assert perplexity(np.array([2.0, 0.0, 2.0, 0.0])) == pytest.approx(2, rel=1e-5)
    assert perplexity(np.array([3.0, 1.0])) == pytest.approx(math.exp(-0.75 * math.log(0.75) + 0.25 * math.log(4)))
    assert perplexity(np.array([5.0])) == pytest.approx(1)
    assert perplexity(np.zeros(4)) == 0


def test_a_code_may_be_called_dead_once_enough_residues_were_seen() -> None:
    assert not enough_exposure(EXPOSURE * 4096 - 1, 4096)
    assert enough_exposure(EXPOSURE * 4096, 4096)


@pytest.fixture
def shares() -> NDArray[np.float64]:
    """Of codes that differ as those of a trained codebook do: quartiles of 0.7, 1 and 1.3 of the mean."""
    drawn = np.random.default_rng(0).gamma(5.0, size=CODES)
    made: NDArray[np.float64] = drawn / drawn.sum()
    return made


def _drawn(shares: NDArray[np.float64], a_code: float, seed: int = 1) -> NDArray[np.int64]:
    """Hits of residues that are drawn one by one."""
    return np.random.default_rng(seed).multinomial(round(a_code * CODES), shares)


def test_repeated_structures_are_no_new_evidence(shares: NDArray[np.float64]) -> None:
    """14.8 residues a code, enough by their number; but a fifth of them was sent five times: hundreds stay unhit."""
    repeated = 5 * _drawn(shares, 14.8 / 5)
    assert enough_exposure(float(repeated.sum()), CODES)
    unhit = repeated == 0
    assert unhit.sum() > 300
    found = evidence(repeated, shares)
    assert found.design_effect == pytest.approx(5, rel=0.15)
    assert found.independent == pytest.approx(14.8 / 5 * CODES, rel=0.15)
    assert found.unhit_by_chance == pytest.approx(unhit.sum(), rel=0.2)
    assert (unhit & found.judged).sum() <= 4
    # However often they are sent.
    assert evidence(100 * repeated, shares).independent == pytest.approx(found.independent, rel=0.01)


def test_dead_codes_are_told_from_rare_ones(shares: NDArray[np.float64]) -> None:
    dead = np.zeros(CODES, bool)
    dead[::10] = True
    alive = np.where(dead, 0, shares)
    for hits in (_drawn(alive / alive.sum(), 100), 3 * _drawn(alive / alive.sum(), 100)):
        found = evidence(hits, shares)
        called = (hits == 0) & found.judged
        assert (called & dead).sum() > 0.99 * dead.sum()
        assert (called & ~dead).sum() <= 3
    few = _drawn(alive / alive.sum(), 3)
    assert ((few == 0) & evidence(few, shares).judged & ~dead).sum() <= 3


def test_no_more_living_codes_are_called_dead_than_allowed(shares: NDArray[np.float64]) -> None:
    called = [
        int(((hits == 0) & evidence(hits, shares).judged).sum())
        for hits in (_drawn(shares, 12, seed) for seed in range(20))
    ]
    assert np.mean(called) < 1.5 * MAX_FALSE_DEAD


def test_another_corpus_is_not_taken_for_repeats(shares: NDArray[np.float64]) -> None:
    other = shares * np.exp(np.random.default_rng(2).normal(0, 0.5, CODES))
    hits = _drawn(other / other.sum(), 400)
    assert design_effect(hits, shares) < 4
    assert evidence(hits, shares).judged.all()


def test_codes_that_the_codebook_calls_dead_are_always_judged() -> None:
    N = np.array([0.0, 1e-6, 5.0, 5.0, 5.0, 1e-3])
    found = evidence([0, 0, 40, 35, 45, 0], N, dead_threshold=1e-5)
    assert found.judged.tolist() == [True, True, True, True, True, False]
    assert found.design_effect == 1
    # Nothing was counted: nothing can be told.
    assert not evidence([0, 0, 0, 0], [1, 1, 1, 1]).judged.any()
    assert evidence([3, 3], [0, 0]).design_effect == 1
    with pytest.raises(ValueError, match="both are"):
        evidence([1, 2], [1, 2, 3])
