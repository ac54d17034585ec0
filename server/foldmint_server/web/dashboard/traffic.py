"""What the server did lately: rates of residues, structures and refusals over some minutes, and latencies."""

import asyncio
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from foldmint_server.metrics.registry import Metrics

INTERVAL = 2.0
"""Seconds between two samples."""
_SAMPLES = 151  # five minutes
_LATENCY_SECONDS = 60.0
_COURSE_SAMPLES = 5  # over which each latency of the course is taken: 10 seconds


class _Sample(NamedTuple):
    """Counters at a time, in seconds. buckets: cumulated counts up to `bounds`, in seconds, the last infinite."""

    time: float
    residues: float
    structures: float
    refusals: float
    bounds: tuple[float, ...]
    buckets: tuple[float, ...]


class Traffic:
    """Samples of the server's own counters, taken by the event loop and read by other threads."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._lock = threading.Lock()
        self._samples = deque([self._now()], maxlen=_SAMPLES)

    async def run(self, *others: Callable[[], object]) -> None:
        """Take samples for ever. others: called with each of them."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.sample()
            for other in others:
                other()

    def sample(self) -> None:
        """Take one sample."""
        sample = self._now()
        with self._lock:
            self._samples.append(sample)

    def as_json(self) -> dict[str, Any]:
        """Rates between samples, the oldest first; totals as of now, which no sample need have seen yet.

        Latencies are of the last minute, None if nothing was answered.
        """
        with self._lock:
            samples = list(self._samples)
        pairs = list(itertools.pairwise(samples))
        now = samples[-1]
        before = next(sample for sample in samples if now.time - sample.time <= _LATENCY_SECONDS)
        p50, p99 = (quantile(share, now.bounds, _less(now.buckets, before.buckets)) for share in (0.5, 0.99))
        # From the sample that many before, or the first.
        spans = [(samples[max(0, end - _COURSE_SAMPLES)], samples[end]) for end in range(1, len(samples))]
        courses = [
            [_short(quantile(share, b.bounds, _less(b.buckets, a.buckets))) for a, b in spans] for share in (0.5, 0.99)
        ]
        return {
            "interval": INTERVAL,
            "residues_per_second": [_rate(b.residues - a.residues, b.time - a.time) for a, b in pairs],
            "structures_per_second": [_rate(b.structures - a.structures, b.time - a.time) for a, b in pairs],
            "refusals_per_second": [_rate(b.refusals - a.refusals, b.time - a.time) for a, b in pairs],
            "latency_p50": courses[0],
            "latency_p99": courses[1],
            "residues": int(self._residues()),
            "structures": int(self._structures()),
            "refusals": int(self._metrics.callers.refusals()),
            "in_flight": int(_sum(self._metrics.requests_in_flight)),
            "queued_residues": int(_sum(self._metrics.queued_residues)),
            "latency": {"seconds": _LATENCY_SECONDS, "p50": p50, "p99": p99},
        }

    def _now(self) -> _Sample:
        counts: dict[float, float] = {}
        for family in self._metrics.request_seconds.collect():
            for sample in family.samples:
                if sample.name.endswith("_bucket") and sample.labels["method"] != "GetModel":
                    bound = float(sample.labels["le"])
                    counts[bound] = counts.get(bound, 0.0) + sample.value
        bounds = tuple(sorted(counts))
        return _Sample(
            self._clock(),
            self._residues(),
            self._structures(),
            self._metrics.callers.refusals(),
            bounds,
            tuple(counts[bound] for bound in bounds),
        )

    def _residues(self) -> float:
        return _sum(self._metrics.residues)

    def _structures(self) -> float:
        return _sum(self._metrics.requests, but="GetModel")


def quantile(share: float, bounds: Sequence[float], counts: Sequence[float]) -> float | None:
    """A quantile of a histogram, as Prometheus takes it: linear within a bucket, at most the last finite bound.

    bounds: upper ends, the last infinite. counts: cumulated. None if nothing was counted.
    """
    if not counts or counts[-1] <= 0:
        return None
    wanted, low, below = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / (count - below)
        low, below = (low if math.isinf(bound) else bound), count
    return low


def _less(now: Sequence[float], before: Sequence[float]) -> list[float]:
    """Differences; what was not counted before, was 0."""
    return [b - a for a, b in zip(before or [0.0] * len(now), now, strict=True)]


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")


def _rate(count: float, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 else 0.0


def _sum(metric: Any, but: str = "") -> float:  # noqa: ANN401 (Counter or Gauge)
    """The sum of a metric's children, but for those of a method."""
    return float(
        sum(
            sample.value
            for family in metric.collect()
            for sample in family.samples
            if not sample.name.endswith("_created") and (not but or sample.labels["method"] != but)
        )
    )
