"""The numbers of the dashboard: usage of the codes, over which time, what it proves, traffic, devices, the server."""

import math
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from foldmint.usage import EXPOSURE, enough_exposure, evidence
from foldmint_server.codebooks.manager import CodebookManager
from foldmint_server.codebooks.store_follower import StoreFollower
from foldmint_server.metrics.code_usage import CodeUsage, WindowUsage
from foldmint_server.web.dashboard.devices import Devices
from foldmint_server.web.dashboard.responses import Content
from foldmint_server.web.dashboard.traffic import Traffic

Scope = Literal["version", "window", "start"]
"""Hits of the active version since it was first activated here; over the sliding window; since the server's start, as
foldmint_code_hits_total counts them."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

_FRESH_SECONDS = 1.0


class Listener(NamedTuple):
    """How callers reach the server: the port of --listen, and whether they need TLS and a token."""

    port: int
    tls: bool
    token: bool


class UsageApi:
    """The response of /api/usage, cached for a second for each scope.

    docs_url: of the documentation; empty if it is not known. listener: set once it listens.
    """

    def __init__(
        self,
        usage: CodeUsage,
        window_seconds: float,
        codebooks: CodebookManager,
        follower: StoreFollower,
        traffic: Traffic,
        devices: Devices,
        clock: Callable[[], float] = time.monotonic,
        docs_url: str = "",
    ) -> None:
        self.listener: Listener | None = None
        self._devices, self._docs_url = devices, docs_url
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
            "release": version("foldmint"),
            "listener": None if self.listener is None else self.listener._asdict(),
            "docs": self._docs_url.rstrip("/") or None,
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
            "evidence": _evidence(hits, active.N),
            "window": {
                "seconds": self._window_seconds,
                "residues": window.residues,
                "utilization": window.utilization if window.residues else None,
                "perplexity": _finite(window.perplexity),
                "dead": _finite(window.dead),
                "proved_dead": self._proved_dead(active.N, window),
            },
            "traffic": self._traffic.as_json(),
            "devices": self._devices.as_json(),
        }

    def _proved_dead(self, N: NDArray[np.float32], window: WindowUsage) -> int | None:
        """Codes without a hit in the window that would have had one if they were alive; None while that is open."""
        return None if math.isnan(window.dead) else len(_evidence(self._usage.window_hits(), N)["dead"])

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


def _evidence(hits: NDArray[np.int64], N: NDArray[np.float32]) -> dict[str, Any]:
    """What the absence of hits proves. dead: codes without a hit that would have had one, if they were alive.

    Nothing is said of codes before there are as many residues a code as the exposure rule asks for.
    """
    residues, needed = int(hits.sum()), EXPOSURE * len(hits)
    enough = enough_exposure(residues, len(hits))
    dead = np.flatnonzero((hits == 0) & evidence(hits, N).judged).tolist() if enough else []
    return {"residues": residues, "needed": needed, "enough": enough, "dead": dead}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
