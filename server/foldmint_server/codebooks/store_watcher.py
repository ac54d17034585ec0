"""Polling: a server follows what its store says is in use."""

import asyncio
from collections.abc import Callable

import structlog

from foldmint_server.codebooks.manager import Codebooks
from foldmint_server.errors import Refused, UnknownVersion
from foldmint_tokenizer import ModelError

log = structlog.get_logger(__name__)


class Follower:
    """Activates what ACTIVE of the store says, each time that it says something else than when it was last read.

    It is not compared with what is served: an operator who activated something else, or rolled back, is not overruled.
    """

    def __init__(self, codebooks: Codebooks, reachable: Callable[[bool], None] = lambda _: None) -> None:
        """reachable: is told when the store is lost, and when it is reached again."""
        self._reachable = reachable
        self._codebooks = codebooks
        self._said = codebooks.active.codebook_version
        self._lost = False

    async def run(self, seconds: float) -> None:
        """Look each so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except Exception:
                log.exception("the store could not be followed")

    async def look(self) -> None:
        """Look once. A version that is refused is not tried again; a store that cannot be reached is, and told once."""
        try:
            said = await asyncio.to_thread(self._codebooks.store.active)
            if said != self._said:
                await self._codebooks.activate(said, quiet=self._lost)
        except (ModelError, Refused, UnknownVersion) as error:
            if isinstance(error, ModelError) or (isinstance(error, Refused) and error.unreachable):
                self._lose(error)
                return
        self._said = said
        if self._lost:
            self._reachable(True)
            log.info("the store is reached again", store=str(self._codebooks.store.files))
            self._lost = False

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            serving = self._codebooks.active.codebook_version
            self._reachable(False)
            log.error("the store cannot be reached; serving on", reason=str(error), serving=serving)
            self._lost = True
