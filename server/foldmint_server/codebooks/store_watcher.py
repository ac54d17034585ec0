"""Polls the store, and activates the codebook version that it says is active."""

import asyncio
from collections.abc import Callable

import structlog

from foldmint_server.codebooks.manager import CodebookManager
from foldmint_server.errors import CodebookRejected, UnknownVersion
from foldmint_tokenizer import ModelError

log = structlog.get_logger(__name__)


class StoreWatcher:
    """Activates what ACTIVE of the store says, each time that it says something else than when it was last read.

    It is not compared with what is served: an operator who activated something else, or rolled back, is not overruled.
    """

    def __init__(self, codebooks: CodebookManager, reachable: Callable[[bool], None] = lambda _: None) -> None:
        """reachable: is told when the store is lost, and when it is reached again."""
        self._reachable = reachable
        self._codebooks = codebooks
        self._last_active = codebooks.active.codebook_version
        self._unreachable = False

    async def run(self, seconds: float) -> None:
        """Poll every `seconds`, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.poll()
            except Exception:
                log.exception("the store could not be followed")

    async def poll(self) -> None:
        """Poll once. A rejected version is not retried; an unreachable store is, and is logged once."""
        try:
            active = await asyncio.to_thread(self._codebooks.store.active)
            if active != self._last_active:
                await self._codebooks.activate(active, quiet=self._unreachable)
        except (ModelError, CodebookRejected, UnknownVersion) as error:
            if isinstance(error, ModelError) or (isinstance(error, CodebookRejected) and error.unreachable):
                self._mark_unreachable(error)
                return
        self._last_active = active
        if self._unreachable:
            self._reachable(True)
            log.info("the store is reached again", store=str(self._codebooks.store.files))
            self._unreachable = False

    def _mark_unreachable(self, error: Exception) -> None:
        if not self._unreachable:
            serving = self._codebooks.active.codebook_version
            self._reachable(False)
            log.error("the store cannot be reached; serving on", reason=str(error), serving=serving)
            self._unreachable = True
