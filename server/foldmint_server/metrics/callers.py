"""Usage by caller: residues, structures, refusals and latency, by the names of access tokens."""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

ANONYMOUS = "anonymous"
"""The value of the label `caller` for callers without a valid token."""
OTHER = "other"
"""Its value for tokens beyond the number of names that are shown."""
RESERVED = (ANONYMOUS, OTHER)

# Seconds; fewer than for all callers together, since each caller has series of its own.
_SECONDS = (0.01, 0.025, 0.1, 0.25, 1, 2.5, 10, 60)


class _Series(NamedTuple):
    """The series of a caller."""

    residues: Counter
    structures: Counter
    seconds: Histogram


class CallerUsage:
    """Counts usage by caller; thread-safe.

    A caller is the name of a token, from the operator's own file; `ANONYMOUS` without one. What callers send is never
    part of a label. The first `most` names of the file have series of their own, in its order, which is the same on all
    servers that share it; a name keeps its series when its token is revoked.
    """

    def __init__(self, registry: CollectorRegistry, most: int) -> None:
        """most: names with series of their own."""
        self._most = most
        self._lock = threading.Lock()
        self._residues = Counter(
            "foldmint_caller_residues",
            "Residues tokenized or decoded, by the name of the caller's token (anonymous: without a valid one; other: "
            "beyond --max-caller-names).",
            ["caller"],
            registry=registry,
        )
        self._structures = Counter(
            "foldmint_caller_structures", "Structures answered, by caller.", ["caller"], registry=registry
        )
        self._refusals = Counter(
            "foldmint_caller_refusals",
            "Structures and calls that were refused or failed, by caller and gRPC status; without cancelled ones.",
            ["caller", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "foldmint_caller_request_duration_seconds",
            "Time from the arrival of a structure to its answer, by caller.",
            ["caller"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._known: dict[str, _Series] = {name: self._series(name) for name in RESERVED}

    def know(self, names: Iterable[str]) -> None:
        """Give names series of their own, in this order, while there is room."""
        with self._lock:
            room = self._most + len(RESERVED) - len(self._known)
            new = [name for name in dict.fromkeys(names) if name not in self._known][: max(0, room)]
            if new:  # replaced, not changed: the event loop reads it without the lock
                self._known = {**self._known, **{name: self._series(name) for name in new}}

    def add_residues(self, caller: str, count: int) -> None:
        """Residues were answered. caller: the name of a token; empty without one."""
        self._of(caller).residues.inc(count)

    def answered(self, caller: str, seconds: float) -> None:
        """A structure was answered after so many seconds."""
        series = self._of(caller)
        series.structures.inc()
        series.seconds.observe(seconds)

    def refused(self, caller: str, status: str) -> None:
        """A structure or a call was not answered. status: the name of its gRPC status."""
        name = caller or ANONYMOUS
        self._refusals.labels(name if name in self._known else OTHER, status).inc()

    def refusals(self) -> float:
        """How many structures and calls were refused or failed, of all callers."""
        (family,) = self._refusals.collect()
        return float(sum(one.value for one in family.samples if one.name.endswith("_total")))

    def _of(self, caller: str) -> _Series:
        known = self._known
        return known.get(caller or ANONYMOUS) or known[OTHER]

    def _series(self, name: str) -> _Series:
        return _Series(self._residues.labels(name), self._structures.labels(name), self._seconds.labels(name))
