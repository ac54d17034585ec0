"""What server, client and maintenance alike make of counts of codes."""

import math

import numpy as np
import pytest

from foldmint.usage import EXPOSURE, enough_exposure, perplexity


def test_perplexity_is_the_number_of_codes_used_alike() -> None:
    assert perplexity(np.full(16, 3.0)) == pytest.approx(16, rel=1e-5)
    assert perplexity(np.array([2.0, 0.0, 2.0, 0.0])) == pytest.approx(2, rel=1e-5)
    assert perplexity(np.array([3.0, 1.0])) == pytest.approx(math.exp(-0.75 * math.log(0.75) + 0.25 * math.log(4)))
    assert perplexity(np.array([5.0])) == pytest.approx(1)
    assert perplexity(np.zeros(4)) == 0


def test_a_code_may_be_called_dead_once_enough_residues_were_seen() -> None:
    assert not enough_exposure(EXPOSURE * 4096 - 1, 4096)
    assert enough_exposure(EXPOSURE * 4096, 4096)
