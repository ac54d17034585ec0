"""How often each code is used: hits since the start, of each version of the codebook, and over a sliding window."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from foldmint.usage import EXPOSURE, enough_exposure, perplexity

# The window is kept in this many parts, the oldest of which drops out at a time.
_PARTS = 60
# Versions whose hits are remembered, at 32 KiB for 4096 codes.
_VERSIONS = 128
# Upper bounds of the distances' histogram, in units of the code vectors: two decades, finest where the default model's
# distances lie.
_BOUNDS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0, 20.0, 30.0)

_EDGES = np.array(_BOUNDS, np.float32)  # all exact

CodeMetrics = Literal["full", "summary", "off"]
"""What of the codes a scrape shows: all; all but the hits of each code; nothing. All is counted in any case."""


class WindowUsage(NamedTuple):
    """Usage over the window: residues; share of codes hit; perplexity; codes not hit, NaN with too few residues."""

    residues: int
    utilization: float
    perplexity: float
    dead: float


class VersionUsage(NamedTuple):
    """Usage of a version: hits (codes,) int64, since it was loaded first, in seconds since 1970."""

    hits: NDArray[np.int64]
    since: float


class CodeHits(Metric):
    """The family of hits, with a sample for each of the codes; counts: (codes,).

    Samples are made when they are asked for, by those who do not write the counts themselves.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        super().__init__("foldmint_code_hits", "Residues that got each code, since the start.", "counter")
        self.counts = counts

    @property
    def samples(self) -> list[Sample]:
        """A sample for each code."""
        name = f"{self.name}_total"
        return [Sample(name, {"code": str(code)}, float(count)) for code, count in enumerate(self.counts.tolist())]

    @samples.setter
    def samples(self, value: list[Sample]) -> None:
        if value:
            raise TypeError("samples are made of the counts")


class CodeUsage(Collector):
    """Counts of hits, recorded by the event loop and read by scrapes.

    Total, window and distances are those of the version that is active when residues are answered: its codes are what
    the numbers stand for. Residues answered under another version, which a request asked for or was admitted under,
    count for that version alone. The total is never set back; the window begins anew with each version.

    A collector of its own, since as many children of a Counter would make a scrape several times slower.
    """

    def __init__(self, codes: int, window: float, clock: Callable[[], float], shown: CodeMetrics = "full") -> None:
        """window: seconds. shown: what scrapes show."""
        self._lock = threading.Lock()
        self._window_seconds, self._shown = window, shown
        self._clock = clock
        self._part_seconds = window / _PARTS
        self._hits = np.zeros(codes, np.int64)
        self._window: deque[tuple[int, NDArray[np.int64]]] = deque()
        self._distance_counts = np.zeros(len(_BOUNDS) + 1, np.int64)
        self._distance_sum = 0.0
        self._active = ""
        self._versions: dict[str, VersionUsage] = {}

    def activate(self, version: str, now: float) -> None:
        """From now on, in seconds since 1970, a version of the codebook is the active one; the window is emptied."""
        with self._lock:
            self._active = version
            self._window.clear()
            # The last to be activated comes last, and the one before all others is forgotten first.
            known = self._versions.pop(version, None)
            self._versions[version] = known or VersionUsage(np.zeros_like(self._hits), now)
            self._forget()

    def keep(self, version: str, now: float) -> None:
        """From now on, in seconds since 1970, requests may ask for a version, whether or not it was ever active."""
        with self._lock:
            self._versions.setdefault(version, VersionUsage(np.zeros_like(self._hits), now))
            self._forget()

    def record(self, version: str, codes: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Count the codes (residues,) of residues with a frame under a version, and their distances (residues,)."""
        hits = np.bincount(codes, minlength=len(self._hits))
        places = np.searchsorted(_EDGES, distances, side="left")
        counts = np.bincount(places, minlength=len(self._distance_counts))
        total = float(distances.sum(dtype=np.float64))
        with self._lock:
            if version in self._versions:
                self._versions[version].hits[:] += hits
            if version != self._active:
                return
            self._hits += hits
            self._part()[:] += hits
            self._distance_counts += counts
            self._distance_sum += total

    def hits(self) -> NDArray[np.int64]:
        """Hits of each code since the start, (codes,), each under the version that was active when it happened."""
        with self._lock:
            return self._hits.copy()

    def of_version(self, version: str) -> VersionUsage | None:
        """Usage of a version since it was loaded first; None if it never was, or too many were since."""
        with self._lock:
            known = self._versions.get(version)
            return None if known is None else VersionUsage(known.hits.copy(), known.since)

    def window_hits(self) -> NDArray[np.int64]:
        """Hits of each code over the sliding window, (codes,)."""
        with self._lock:
            self._part()
            hits: NDArray[np.int64] = np.sum([part for _, part in self._window], axis=0)
            return hits

    def window(self) -> WindowUsage:
        """Usage over the sliding window."""
        hits = self.window_hits()
        total = int(hits.sum())
        if total == 0:
            return WindowUsage(0, 0.0, math.nan, math.nan)
        used = int(np.count_nonzero(hits))
        dead = float(len(hits) - used) if enough_exposure(total, len(hits)) else math.nan
        return WindowUsage(total, used / len(hits), perplexity(hits), dead)

    def _part(self) -> NDArray[np.int64]:
        """The window's current part, after old ones are dropped. The caller holds the lock."""
        now = int(self._clock() // self._part_seconds)
        while self._window and self._window[0][0] <= now - _PARTS:
            self._window.popleft()
        if not self._window or self._window[-1][0] != now:
            self._window.append((now, np.zeros_like(self._hits)))
        return self._window[-1][1]

    def _forget(self) -> None:
        """Forget the versions above the limit that came first, but never the active one. The caller holds the lock."""
        others = [version for version in self._versions if version != self._active]
        for version in others[: max(0, len(self._versions) - _VERSIONS)]:
            del self._versions[version]

    def describe(self) -> list[Metric]:
        """Nothing: a registry need not collect to know of conflicts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What is to be shown of the codes; how many there are in any case."""
        yield GaugeMetricFamily("foldmint_codebook_codes", "Codes of the codebook.", len(self._hits))
        if self._shown == "full":
            yield CodeHits(self.hits())
        if self._shown != "off":
            yield from self._summary()

    def _summary(self) -> Iterator[Metric]:
        usage = self.window()
        for metric, text, value in (
            ("foldmint_usage_window_seconds", "Length of the sliding window.", self._window_seconds),
            ("foldmint_window_residues", "Residues with a frame in the sliding window.", float(usage.residues)),
            ("foldmint_code_utilization_ratio", "Share of the codes hit in the sliding window.", usage.utilization),
            ("foldmint_code_perplexity", "Perplexity of the codes in the sliding window.", usage.perplexity),
            (
                "foldmint_dead_codes",
                f"Codes not hit in the sliding window; NaN below {EXPOSURE} residues a code.",
                usage.dead,
            ),
        ):
            yield GaugeMetricFamily(metric, text, value)
        with self._lock:
            counts, total = np.cumsum(self._distance_counts), self._distance_sum
        bounds = [*(f"{bound:g}" for bound in _BOUNDS), "+Inf"]
        yield HistogramMetricFamily(
            "foldmint_quantization_distance",
            "Euclidean distance from a residue's vector to its code, in units of the code vectors.",
            buckets=list(zip(bounds, counts.tolist(), strict=True)),
            sum_value=total,
        )
