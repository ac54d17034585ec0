"""The versions that requests ask for: those that the server keeps, and others that it loads from its store.

A job that continues at another server asks there for the version that it began with. Callers are strangers, so loads
are bounded: a version is loaded once for all who wait for it, few are loaded at a time, none replaces one that is in
use, and what the store lacks or cannot give is remembered for a moment.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import structlog

from foldmint_server.codebooks.manager import CodebookManager, LoadedCodebook
from foldmint_server.errors import CodebookRejected, Overloaded, UnknownVersion, VersionNotAvailable

log = structlog.get_logger(__name__)
T = TypeVar("T")
ACTIVE = "ACTIVE"
"""What a request asks for that wants the version that is active when it is admitted."""

IN_USE_SECONDS = 60.0
"""A version that was requested within this time is not dropped for another one that is requested."""

MOMENT_SECONDS = 2.0
"""How long the list of the store's versions, and the refusal of a version, are remembered."""

_MOST_LOADING = 4  # versions at once
_LONGEST_NAME = 100  # of a version, in messages and logs; a stranger chose it


class _Refusal(NamedTuple):
    until: float
    reason: str


class RequestedVersions:
    """Resolves the version that a request asks for; all methods are called from one event loop.

    server: the server's name, for messages.
    """

    def __init__(self, codebooks: CodebookManager, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._codebooks, self._server, self._clock = codebooks, server, clock
        self._used: dict[str, float] = {}  # of kept versions: when they were requested last
        self._loading: dict[str, asyncio.Task[LoadedCodebook]] = {}
        self._listing: asyncio.Task[frozenset[str]] | None = None
        self._stored: frozenset[str] = frozenset()
        self._stored_until = -1.0
        self._refused: dict[str, _Refusal] = {}

    async def resolve(self, version: str, default: LoadedCodebook | None = None) -> LoadedCodebook:
        """The version that a request asks for.

        version: empty for the default, or the active one where none is given; ACTIVE for the active one. Raises
        VersionNotAvailable if neither server nor store has the version, if it cannot be loaded, or if all that the
        server may keep are in use; Overloaded while too many others are loaded.
        """
        default = self._codebooks.active if default is None else default
        if version in ("", default.codebook_version):
            return default
        if version == ACTIVE:
            return self._codebooks.active
        loaded = self._codebooks.kept.get(version)
        if loaded is None:
            loaded = await self._shared_load(version)
        self._used[version] = self._clock()
        self._codebooks.touch(version)
        return loaded

    async def _shared_load(self, version: str) -> LoadedCodebook:
        """Load a version, together with all others who ask for it meanwhile."""
        task = self._loading.get(version)
        if task is None:
            refusal = self._refused.get(version)
            if refusal is not None and self._clock() < refusal.until:
                raise VersionNotAvailable(refusal.reason)
            if version not in await self._stored_versions():
                raise VersionNotAvailable(self._because(version, "its store has no such version, or cannot be read"))
            task = self._loading.get(version)  # another caller may have begun meanwhile
        if task is None:
            if len(self._loading) >= _MOST_LOADING:
                raise Overloaded(f"server {self._server} is loading {len(self._loading)} other codebook versions")
            task = self._loading[version] = _begun(self._load(version))
            task.add_done_callback(lambda _: self._loading.pop(version, None))
        return await asyncio.shield(task)

    async def _load(self, version: str) -> LoadedCodebook:
        """Load a version, and keep it in the place of one that is not in use. Raises VersionNotAvailable."""
        try:
            self._check_room(version)
            loaded = await self._codebooks.fetch(version)
            self._check_room(version)  # others may have come meanwhile
        except (CodebookRejected, UnknownVersion) as error:
            log.warning("a requested codebook cannot be loaded", throttle="load", version=version, reason=str(error))
            raise self._refuse(version, "it cannot be loaded; see the server's log") from error
        self._codebooks.keep(loaded, in_use=self._in_use())
        self._used[version] = self._clock()
        log.info("codebook loaded for a request", throttle="load", version=version)
        return loaded

    def _check_room(self, version: str) -> None:
        if not self._codebooks.has_room(self._in_use()):
            raise self._refuse(version, "all versions that it may keep (--keep-versions) are in use")

    def _in_use(self) -> frozenset[str]:
        since = self._clock() - IN_USE_SECONDS
        self._used = {version: used for version, used in self._used.items() if used > since}
        return frozenset(self._used)

    def _refuse(self, version: str, reason: str) -> VersionNotAvailable:
        """The error, which stays the answer for a moment."""
        now, text = self._clock(), self._because(version, reason)
        self._refused = {name: refusal for name, refusal in self._refused.items() if now < refusal.until}
        self._refused[version] = _Refusal(now + MOMENT_SECONDS, text)
        return VersionNotAvailable(text)

    def _because(self, version: str, reason: str) -> str:
        kept = ", ".join(sorted(self._codebooks.kept))
        return (
            f"codebook version {version[:_LONGEST_NAME]!r} is not available on server {self._server}: {reason}; "
            f"it keeps {kept}"
        )

    async def _stored_versions(self) -> frozenset[str]:
        """The versions of the store, as of a moment ago at most; none while it cannot be read."""
        if self._clock() >= self._stored_until:
            if self._listing is None:
                self._listing = _begun(self._list())
            await asyncio.shield(self._listing)
        return self._stored

    async def _list(self) -> frozenset[str]:
        try:
            self._stored = await self._codebooks.stored_versions()
        except CodebookRejected as error:
            self._stored = frozenset()
            log.warning("the store's versions cannot be listed", throttle="list", reason=str(error))
        finally:
            self._stored_until = self._clock() + MOMENT_SECONDS
            self._listing = None
        return self._stored


def _begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that goes on if its callers are gone; nobody retrieves its error then."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return task
