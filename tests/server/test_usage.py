"""Hits, and what is made of them over a sliding window."""

import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from foldmint_server.usage import CodeUsage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def recorded(usage: CodeUsage, codes: list[int]) -> None:
    usage.record(np.array(codes, np.int64), np.ones(len(codes), np.float32))


def test_hits_are_counted_by_code() -> None:
    usage = CodeUsage(8, 60, Clock())
    recorded(usage, [0, 3, 3, 7])
    recorded(usage, [3])
    assert usage.hits().tolist() == [1, 0, 0, 3, 0, 0, 0, 1]


def test_the_window_slides_and_the_hits_stay() -> None:
    clock = Clock()
    usage = CodeUsage(4, 60, clock)
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
    usage = CodeUsage(4, 60, Clock())
    recorded(usage, [0, 1])
    assert usage.window().perplexity == pytest.approx(2)
    recorded(usage, [2, 3])
    assert usage.window().perplexity == pytest.approx(4)
    recorded(usage, [0] * 4)  # 5/8 and three times 1/8
    entropy = -(5 / 8 * math.log(5 / 8) + 3 / 8 * math.log(1 / 8))
    assert usage.window().perplexity == pytest.approx(math.exp(entropy))


def test_no_code_is_dead_before_there_was_time_to_hit_it() -> None:
    usage = CodeUsage(4, 60, Clock())
    recorded(usage, [0] * 39)
    assert math.isnan(usage.window().dead)
    recorded(usage, [1])
    assert usage.window().dead == 2


def test_the_exposition() -> None:
    registry = CollectorRegistry()
    usage = CodeUsage(3, 60, Clock())
    registry.register(usage)
    usage.record(np.array([0, 2, 2]), np.array([0.1, 0.6, 99.0], np.float32))
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
