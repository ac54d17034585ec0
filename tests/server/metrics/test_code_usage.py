"""Hits, and what is made of them over a sliding window."""

import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from foldmint_server.metrics.code_usage import CodeUsage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counting(codes: int, clock: Clock) -> CodeUsage:
    """Of a server that has just begun, with version 1 of its codebook."""
    usage = CodeUsage(codes, 60, clock)
    usage.activate("1", 500.0)
    return usage


def recorded(usage: CodeUsage, codes: list[int], version: str = "1") -> None:
    usage.record(version, np.array(codes, np.int64), np.ones(len(codes), np.float32))


def test_hits_are_counted_by_code() -> None:
    usage = counting(8, Clock())
    recorded(usage, [0, 3, 3, 7])
    recorded(usage, [3])
    assert usage.hits().tolist() == [1, 0, 0, 3, 0, 0, 0, 1]


def test_the_window_slides_and_the_hits_stay() -> None:
    clock = Clock()
    usage = counting(4, clock)
    recorded(usage, [0, 0])
    clock.now += 30
    recorded(usage, [1])
    assert usage.window().residues == 3
    assert usage.window().utilization == 0.5
    clock.now += 31
    assert usage.window().residues == 1
    clock.now += 31
    assert usage.window().residues == 0
    assert math.isnan(usage.window().perplexity)
    assert usage.hits().tolist() == [2, 1, 0, 0]


def test_perplexity_of_known_shares() -> None:
    usage = counting(4, Clock())
    recorded(usage, [0, 1])
    assert usage.window().perplexity == pytest.approx(2)
    recorded(usage, [2, 3])
    assert usage.window().perplexity == pytest.approx(4)
    recorded(usage, [0] * 4)  # 5/8 and three times 1/8
    entropy = -(5 / 8 * math.log(5 / 8) + 3 / 8 * math.log(1 / 8))
    assert usage.window().perplexity == pytest.approx(math.exp(entropy))


def test_no_code_is_dead_before_there_was_time_to_hit_it() -> None:
    usage = counting(4, Clock())
    recorded(usage, [0] * 39)
    assert math.isnan(usage.window().dead)
    recorded(usage, [1])
    assert usage.window().dead == 2


def test_a_swap_empties_the_window_and_sets_no_hit_back() -> None:
    usage = counting(4, Clock())
    recorded(usage, [0, 0, 1])
    usage.activate("2", 600.0)
    assert usage.window().residues == 0
    assert usage.hits().tolist() == [2, 1, 0, 0]
    recorded(usage, [3], "2")
    assert usage.window()[:3] == (1, 0.25, 1.0)
    assert usage.hits().tolist() == [2, 1, 0, 1]


def test_each_version_has_hits_of_its_own() -> None:
    """Those of another version than the active one count for it alone, whenever they come."""
    usage = counting(4, Clock())
    recorded(usage, [0])
    usage.activate("2", 600.0)
    recorded(usage, [1, 1], "2")
    recorded(usage, [3], "1")
    usage.activate("1", 700.0)
    recorded(usage, [2], "1")
    first, second = usage.of_version("1"), usage.of_version("2")
    assert first is not None
    assert second is not None
    assert (first.hits.tolist(), first.since) == ([1, 0, 1, 1], 500.0)
    assert (second.hits.tolist(), second.since) == ([0, 2, 0, 0], 600.0)
    assert usage.of_version("3") is None
    assert usage.hits().tolist() == [1, 2, 1, 0]
    assert usage.window().residues == 1


def test_a_version_that_requests_ask_for_has_hits_before_it_is_active() -> None:
    usage = counting(4, Clock())
    usage.keep("2", 600.0)
    recorded(usage, [3, 3], "2")
    usage.keep("2", 700.0)
    usage.keep("1", 700.0)
    recorded(usage, [0])
    usage.activate("2", 800.0)
    recorded(usage, [2], "2")
    first, second = usage.of_version("1"), usage.of_version("2")
    assert first is not None
    assert second is not None
    assert (first.hits.tolist(), first.since) == ([1, 0, 0, 0], 500.0)
    assert (second.hits.tolist(), second.since) == ([0, 0, 1, 2], 600.0)
    # The total is of the active version alone.
    assert usage.hits().tolist() == [1, 0, 1, 0]
    for number in range(3, 300):
        usage.keep(str(number), 900.0)
    assert usage.of_version("2") is not None
    assert usage.of_version("3") is None


def test_hits_of_versions_are_bounded() -> None:
    usage = counting(4, Clock())
    for number in range(2, 200):
        usage.activate(str(number), float(number))
        recorded(usage, [0], str(number))
        usage.activate("1", 0.0)  # often active, and never forgotten
    assert usage.of_version("2") is None
    for version in ("1", "199", "100"):
        assert usage.of_version(version) is not None
    recorded(usage, [0], "2")
    assert usage.of_version("2") is None
    assert usage.hits().tolist() == [198, 0, 0, 0]


def test_the_exposition() -> None:
    registry = CollectorRegistry()
    usage = counting(3, Clock())
    registry.register(usage)
    usage.record("1", np.array([0, 2, 2]), np.array([0.1, 0.6, 99.0], np.float32))
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'foldmint_code_hits_total{code="1"} 0.0',
        'foldmint_code_hits_total{code="2"} 2.0',
        'foldmint_quantization_distance_bucket{le="0.25"} 1.0',
        'foldmint_quantization_distance_bucket{le="0.5"} 1.0',
        'foldmint_quantization_distance_bucket{le="1"} 2.0',
        'foldmint_quantization_distance_bucket{le="30"} 2.0',
        'foldmint_quantization_distance_bucket{le="+Inf"} 3.0',
    ):
        assert line in lines
