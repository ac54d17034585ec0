"""Hits of codes that a Prometheus has seen, from the readings of the servers' counters themselves.

Prometheus' own `increase` is not asked: it extrapolates to the window's ends, differently for a code that was 0 before;
it drops what a counter stands at when it is first read; it misses a restart after which a counter is soon higher than
before; and it does not stop at an exchange of the codebook. Here every stretch of readings of one server's process
under one codebook counts what its counters grew by, or all that they stand at if the process began within the window.
What a process counted after its last reading is not seen by anyone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.errors import UsageUnknown
from foldmint_maintenance.usage.prometheus_api import Prometheus, matching
from foldmint_maintenance.usage.statistics import CodeCounts

_ACTIVATED = "foldmint_codebook_activated_timestamp_seconds"
# Seconds after which Prometheus takes a series that is no longer read for ended.
_LOOKBACK = 300.0


class Codebook(NamedTuple):
    """What foldmint_codebook_info tells."""

    model: str
    version: str
    digest: str


@dataclass
class Stretch:
    """Readings of one server's process, from `first` to `last`, seconds since 1970, under one activation.

    target: the labels that Prometheus gives the server. codebook: the one that was active; None if it is not told.
    """

    target: dict[str, str]
    activated: float
    first: float
    last: float
    codebook: Codebook | None = None


@dataclass(frozen=True, eq=False)
class WindowCounts:
    """Hits in a window, and the times of the first and last reading that they are from, seconds since 1970."""

    counts: CodeCounts
    first: float
    last: float


def counted(
    prometheus: Prometheus, window: float, selector: str = "", end: float | None = None, version: str | None = None
) -> WindowCounts:
    """Hits of one codebook over a window, of all servers together.

    window: seconds. selector: label matchers, such as `job="foldmint"`. end: seconds since 1970; now, by Prometheus'
    clock, by default. version: of the codebook; the one that is active at the end by default. Raises UsageUnknown if
    the servers disagree about it, or nothing was read.
    """
    if not 0 < window < float("inf"):
        raise ValueError(f"window must be a positive number of seconds, not {window}")
    selector = selector.strip().removeprefix("{").removesuffix("}").strip().rstrip(",")
    end = prometheus.now() if end is None else end
    stretches = _stretches(prometheus, selector, end - window, end)
    codebook = _chosen(stretches, version)
    own = [stretch for stretch in stretches if stretch.codebook == codebook]
    hits: NDArray[np.int64] | None = None
    for stretch in own:
        grown = _grown(prometheus, stretch, end - window)
        if hits is not None and len(hits) != len(grown):
            raise UsageUnknown(f"the servers count {len(hits)} codes and {len(grown)}")
        hits = grown if hits is None else hits + grown
    if hits is None:
        raise UsageUnknown(f"{prometheus.url} holds no readings of codebook {codebook.version} in this window")
    first, last = min(stretch.first for stretch in own), max(stretch.last for stretch in own)
    targets = {matching(stretch.target) for stretch in own}
    notes = [f"counted from {_told(first)} to {_told(last)} on {len(targets)} servers, in {len(own)} stretches"]
    if len(own) < len(stretches):
        notes.append("the window holds readings of other codebooks, or of none that is told; they do not count")
    where = f"{prometheus.url}, {{{selector}}}" if selector else prometheus.url
    counts = CodeCounts(hits.astype(np.float64), int(hits.sum()), codebook.version, f"hits in {where}", tuple(notes))
    return WindowCounts(counts, first, last)


def _stretches(prometheus: Prometheus, selector: str, start: float, end: float) -> list[Stretch]:
    """What was read in the window. A new process, and a new codebook in an old one, has a new time of activation."""
    found: dict[tuple[str, float], Stretch] = {}
    for series in prometheus.readings(f"{_ACTIVATED}{{{selector}}}", start, end):
        for time, activated in zip(series.times, series.values, strict=True):
            stretch = found.setdefault(
                (matching(series.labels), activated), Stretch(series.labels, activated, time, time)
            )
            stretch.first, stretch.last = min(stretch.first, time), max(stretch.last, time)
    if not found:
        raise UsageUnknown(f"{prometheus.url} holds no {_ACTIVATED}{{{selector}}} in this window")
    for stretch in found.values():
        info = prometheus.at(f"foldmint_codebook_info{{{matching(stretch.target)}}} == 1", stretch.last)
        told = {Codebook(labels["model"], labels["version"], labels["digest"]) for labels, _ in info}
        # A reading in the midst of an exchange tells of two.
        stretch.codebook = told.pop() if len(told) == 1 else None
    return sorted(found.values(), key=lambda stretch: (stretch.first, stretch.activated))


def _chosen(stretches: Iterable[Stretch], version: str | None) -> Codebook:
    """The codebook of that version, or the one that all servers have at the end."""
    latest = max(stretch.last for stretch in stretches)
    at_the_end: dict[str, Stretch] = {}
    for stretch in stretches:
        if stretch.last > latest - _LOOKBACK:
            at_the_end[matching(stretch.target)] = stretch
    of = stretches if version is not None else at_the_end.values()
    choice = {stretch.codebook for stretch in of if stretch.codebook is not None}
    if version is not None:
        choice = {codebook for codebook in choice if codebook.version == version}
    if not choice:
        raise UsageUnknown(f"no server told of codebook {version or 'versions'} in this window")
    if len(choice) > 1:
        told = ", ".join(f"{one.version} of {one.model} ({one.digest[:12]})" for one in sorted(choice))
        raise UsageUnknown(f"the servers do not serve one codebook, but {told}; a selector or a version chooses")
    return choice.pop()


def _grown(prometheus: Prometheus, stretch: Stretch, start: float) -> NDArray[np.int64]:
    """What the counters of a stretch grew by, (codes,)."""
    hits, where = _read(prometheus, stretch, stretch.last), matching(stretch.target)
    began = prometheus.at(f"process_start_time_seconds{{{where}}}", stretch.first)
    swaps = prometheus.at(f'sum(foldmint_codebook_swaps_total{{{where},outcome!="refused"}})', stretch.first)
    # All that stood there at the first reading is of this window and codebook, if the process began within the window
    # and had no other codebook before.
    if began and began[0][1] >= start and all(count == 0 for _, count in swaps):
        return hits
    before = _read(prometheus, stretch, stretch.first)
    if len(before) != len(hits) or (before > hits).any():
        raise UsageUnknown(f"the counters of {{{where}}} fell, and no process began")
    return hits - before


def _read(prometheus: Prometheus, stretch: Stretch, time: float) -> NDArray[np.int64]:
    where = matching(stretch.target)
    found = {
        labels.get("code", ""): value
        for labels, value in prometheus.at(f"sum by (code) (foldmint_code_hits_total{{{where}}})", time)
    }
    try:
        return np.array([int(found[str(code)]) for code in range(len(found))], np.int64)
    except KeyError as error:
        raise UsageUnknown(f"foldmint_code_hits_total of {where} lacks the code {error}") from error


def _told(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
