"""Figures of usage, from counts that are known."""

import numpy as np
import pytest

from foldmint_client import CodebookUsage
from foldmint_client.analysis.usage import Throughput, figures


def counts(*hits: int) -> "np.typing.NDArray[np.uint64]":
    return np.array(hits, np.uint64)


def test_figures() -> None:
    found = figures(counts(20, 0, 20, 0), top=3)
    assert (found.residues, found.used, found.utilization, found.dead) == (40, 2, 0.5, 2)
    assert found.perplexity == pytest.approx(2)
    assert found.top == ((0, 20), (2, 20))
    found = figures(counts(1, 2, 1), top=1)
    assert found.perplexity == pytest.approx(2 * 2**0.5)  # e to the entropy of 1/4, 1/2, 1/4
    assert found.top == ((1, 2),)
    assert (found.utilization, found.dead) == (1, None)


def test_extremes() -> None:
    found = figures(counts(0, 0), top=5)
    assert (found.residues, found.utilization, found.perplexity, found.dead, found.top) == (0, 0, None, None, ())
    found = figures(counts(2**64 - 1, 2**64 - 1), top=1)
    assert found.residues == 2**65 - 2
    assert found.perplexity == pytest.approx(2)
    assert found.top == ((0, 2**64 - 1),)


def test_throughput() -> None:
    rates = Throughput(kept=2)

    def add(version: str, residues: int, time: float) -> float | None:
        return rates.add(CodebookUsage(version, counts(residues), None), residues, time)

    assert add("1", 100, 10.0) is None
    assert add("1", 300, 10.5) == 400
    assert add("2", 400, 11.0) is None  # another version
    assert add("2", 300, 12.0) is None  # another server, or the same anew
    assert add("2", 310, 13.0) == 10
    assert add("2", 310, 14.0) == 0
    rates.lost()
    assert add("2", 999, 15.0) is None
    assert [*rates.rates] == [10, 0]
