"""Where the codebook comes from: the versions of the store and what each was made from, for the page."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from foldmint_server.codebooks.manager import CodebookManager
from foldmint_tokenizer import ModelError

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 30.0
_VERSIONS = 100  # the newest of a store, beside those in memory


class Lineage:
    """The versions that store and server have; read by many threads, of which one at a time looks into the store.

    A version never changes, so its manifest is read once.
    """

    def __init__(self, codebooks: CodebookManager, clock: Callable[[], float] = time.monotonic) -> None:
        self._codebooks, self._clock = codebooks, clock
        self._reading = threading.Lock()
        self._stored: Mapping[str, dict[str, Any]] | None = None  # replaced, never changed
        self._known: dict[str, dict[str, Any]] = {}  # of the reading thread alone
        self._looked = -math.inf

    def as_json(self) -> dict[str, Any]:
        """Versions, the newest first; store: whether it could be read; if not, only versions in memory are listed.

        What another thread is just reading, or has read within 30 seconds, is not read again.
        """
        if self._reading.acquire(blocking=False):
            try:
                if self._clock() - self._looked >= _FRESH_SECONDS:
                    self._look()
            finally:
                self._reading.release()
        kept, found = dict(self._codebooks.kept), self._stored
        stored = found or {}
        return {
            "store": found is not None,
            "versions": [
                (stored.get(name) or summary(kept[name].manifest))
                | {
                    "version": name,
                    "active": name == self._codebooks.active.codebook_version,
                    "kept": name in kept,
                    "stored": name in stored,
                    "activated": self._codebooks.activated.get(name),
                }
                for name in sorted({*kept, *stored}, reverse=True)
            ],
        }

    def _look(self) -> None:
        """Read the store; in one thread at a time."""
        store, known = self._codebooks.store, self._known
        try:
            store.about()
            self._stored = {name: known.get(name) or self._summary(name) for name in store.versions()[-_VERSIONS:]}
        except ModelError as error:
            log.warning("the page's lineage cannot be read", reason=str(error))
            self._stored = None
        self._looked = self._clock()

    def _summary(self, name: str) -> dict[str, Any]:
        """Of a version of the store. One that cannot be read now may be another time."""
        try:
            found = summary(self._codebooks.store.manifest(name))
        except ModelError as error:
            log.warning("a manifest cannot be read", version=name, reason=str(error))
            return summary({}) | {"damaged": True}
        self._known[name] = found
        return found


def summary(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the dashboard shows of a manifest; None for a missing entry, as in manifests that other tools wrote."""
    about = manifest.get("about")
    about = about if isinstance(about, Mapping) else {}
    replaced, parent = about.get("replaced"), manifest.get("parent")
    return {
        "parent": str(parent)[:100] if parent else None,
        "made_by": _short(about.get("made_by")),
        "created": _short(about.get("created")),
        "replaced": len(replaced) if isinstance(replaced, list) else None,
        "damaged": False,
    }


def _short(value: object) -> str | None:
    return value[:100] if isinstance(value, str) and value else None
