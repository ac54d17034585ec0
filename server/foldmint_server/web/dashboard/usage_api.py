"""The numbers of the dashboard: usage of the codes, over which time, and current traffic."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from foldmint_server.codebooks.manager import CodebookManager
from foldmint_server.codebooks.store_follower import StoreFollower
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.web.dashboard.responses import Content
from foldmint_server.web.dashboard.traffic import Traffic

Scope = Literal["version", "window", "start"]
"""Hits of the active version since it was first activated here; over the sliding window; since the server's start, as
foldmint_code_hits_total counts them."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

_FRESH_SECONDS = 1.0


class UsageApi:
    """The response of /api/usage, cached for a second for each scope."""

    def __init__(
        self,
        usage: CodeUsage,
        window_seconds: float,
        codebooks: CodebookManager,
        follower: StoreFollower,
        traffic: Traffic,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usage, self._window_seconds, self._traffic = usage, window_seconds, traffic
        self._codebooks, self._follower = codebooks, follower
        self._clock = clock
        self._started = time.time()
        self._lock = threading.Lock()
        self._made: dict[Scope, tuple[float, Content]] = {}

    def content(self, scope: Scope) -> Content:
        """The answer as JSON."""
        with self._lock:
            now = self._clock()
            made = self._made.get(scope)
            if made is None or now - made[0] >= _FRESH_SECONDS:
                made = self._made[scope] = (now, Content.of_json(self.as_json(scope)))
            return made[1]

    def as_json(self, scope: Scope) -> dict[str, Any]:
        """The answer; `docs/page.md` describes the fields."""
        active = self._codebooks.active
        window = self._usage.window()
        hits, since = np.zeros(active.codes, np.int64), None
        if scope == "start":
            hits, since = self._usage.hits(), self._started
        elif scope == "window":
            hits = self._usage.window_hits()
        elif (known := self._usage.of_version(active.codebook_version)) is not None:
            hits, since = known
        return {
            "model": active.model,
            "codebook": {
                "version": active.codebook_version,
                "digest": active.codebook_digest,
                "activated": self._codebooks.activated.get(active.codebook_version),
            },
            "store": self._store(),
            "started": self._started,
            "scope": scope,
            "since": since,
            "hits": hits.tolist(),
            "window": {
                "seconds": self._window_seconds,
                "residues": window.residues,
                "utilization": window.utilization if window.residues else None,
                "perplexity": _finite(window.perplexity),
                "dead": _finite(window.dead),
            },
            "traffic": self._traffic.as_json(),
        }

    def _store(self) -> dict[str, Any]:
        state = self._follower.state
        return {
            "active": state.active or None,
            "canary": None if state.canary is None else state.canary._asdict(),
            "server": state.server,
            "expected": state.expected or None,
            "follows": self._follower.follows,
            "problem": state.problem or None,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
