"""Hits of codes over a window, from the raw samples of servers' counters in Prometheus.

PromQL's `increase` is unsuitable. It extrapolates to the window's ends, differently for codes that were 0 before. It
drops a counter's value at its first sample. It misses a restart after which a counter soon exceeds its old value. And
it does not stop at a codebook swap. Here each interval in which one server process served one codebook contributes the
increase of its counters, or their whole value if the process started within the window. Hits after the last sample of
a process are lost.
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
# Seconds without a sample after which Prometheus considers a series ended.
_LOOKBACK = 300.0


class Codebook(NamedTuple):
    """Labels of foldmint_codebook_info."""

    model: str
    version: str
    digest: str


@dataclass
class Stretch:
    """Samples of one server process under one activation of a codebook, from `first` to `last`, seconds since 1970.

    target: the labels that Prometheus gives the server. codebook: the active one; None if unknown.
    """

    target: dict[str, str]
    activated: float
    first: float
    last: float
    codebook: Codebook | None = None


@dataclass(frozen=True, eq=False)
class WindowCounts:
    """Hits in a window, and the times of the first and last sample used, seconds since 1970."""

    counts: CodeCounts
    first: float
    last: float


def counted(
    prometheus: Prometheus, window: float, selector: str = "", end: float | None = None, version: str | None = None
) -> WindowCounts:
    """Hits of one codebook over a window, summed over servers.

    window: seconds. selector: label matchers, such as `job="foldmint"`. end: seconds since 1970; by default now, by
    Prometheus' clock. version: of the codebook; by default the one active at the end. Raises `UsageUnknown` if the
    servers disagree about it, or there are no samples.
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
    notes = [
        f"counted from {_format_time(first)} to {_format_time(last)} on {len(targets)} servers, in {len(own)} stretches"
    ]
    if len(own) < len(stretches):
        notes.append("the window holds readings of other codebooks, or of unknown ones; they do not count")
    where = f"{prometheus.url}, {{{selector}}}" if selector else prometheus.url
    counts = CodeCounts(hits.astype(np.float64), int(hits.sum()), codebook.version, f"hits in {where}", tuple(notes))
    return WindowCounts(counts, first, last)


def _stretches(prometheus: Prometheus, selector: str, start: float, end: float) -> list[Stretch]:
    """Samples in the window, by activation: each process, and each codebook in it, has its own time of activation."""
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
        codebooks = {Codebook(labels["model"], labels["version"], labels["digest"]) for labels, _ in info}
        # A sample taken during a swap has two.
        stretch.codebook = codebooks.pop() if len(codebooks) == 1 else None
    return sorted(found.values(), key=lambda stretch: (stretch.first, stretch.activated))


def _chosen(stretches: Iterable[Stretch], version: str | None) -> Codebook:
    """The codebook of that version, or the one that all servers serve at the end."""
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
        raise UsageUnknown(f"no server reported codebook {version or 'versions'} in this window")
    if len(choice) > 1:
        listed = ", ".join(f"{one.version} of {one.model} ({one.digest[:12]})" for one in sorted(choice))
        raise UsageUnknown(f"the servers do not serve one codebook, but {listed}; a selector or a version chooses")
    return choice.pop()


def _grown(prometheus: Prometheus, stretch: Stretch, start: float) -> NDArray[np.int64]:
    """Increase of the counters in a stretch, (codes,)."""
    hits, where = _read(prometheus, stretch, stretch.last), matching(stretch.target)
    began = prometheus.at(f"process_start_time_seconds{{{where}}}", stretch.first)
    swaps = prometheus.at(f'sum(foldmint_codebook_swaps_total{{{where},outcome!="refused"}})', stretch.first)
    # Hits before the first sample belong to this window and codebook if the process started within the window and had
    # no other codebook before.
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


def _format_time(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
