"""Serves what the store says: follows its ACTIVE and CANARY, and writes there what operators ask this server for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple

import structlog

from foldmint_server.codebooks.manager import CodebookManager, Swap
from foldmint_server.codebooks.store_changes import StoreChanges, StoreReading
from foldmint_server.errors import CodebookRejected, UnknownVersion
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer.store.control import Canary, Control

log = structlog.get_logger(__name__)


class StoreState(NamedTuple):
    """What the store said when it was read last.

    control: None if it could never be read. server: the server's name. problem: why the server does not serve that;
    empty if there is none.
    """

    control: Control | None
    server: str
    problem: str = ""

    @property
    def active(self) -> str:
        """The version that ACTIVE names; empty if it is not known."""
        return "" if self.control is None else self.control.active

    @property
    def canary(self) -> Canary | None:
        """The canary, if there is one."""
        return None if self.control is None else self.control.canary

    @property
    def expected(self) -> str:
        """The version that the server is to serve by default; empty if it is not known."""
        return "" if self.control is None else self.control.version_for(self.server)


class StoreFollower:
    """Keeps what a server serves and what its store says the same; all methods are called from one event loop.

    state: of the last reading; threads may look at it.
    """

    def __init__(self, codebooks: CodebookManager, server: str, metrics: Metrics) -> None:
        """server: the server's name, by which it serves a canary or not."""
        self.state = StoreState(None, server)
        self._codebooks, self._server, self._metrics = codebooks, server, metrics
        self._store = StoreChanges(codebooks.store, server)
        self._turn = asyncio.Lock()
        self._refused: tuple[Control, str] | None = None  # what could not be followed, and why
        self._lost = False  # whether the store cannot be reached
        self._tasks: set[asyncio.Task[Swap]] = set()

    @property
    def serving(self) -> str:
        """The version that is served by default."""
        return self._codebooks.active.codebook_version

    @property
    def follows(self) -> bool:
        """Whether the server serves what the store said when it was read last."""
        return not self.state.problem and self.state.expected == self.serving

    async def run(self, seconds: float) -> None:
        """Poll every `seconds`, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.poll()
            except Exception:
                log.exception("the store could not be followed")

    async def poll(self) -> None:
        """Read the store, and serve what it says.

        While the store cannot be read, or what it says cannot be used, the server serves what it has. A version that
        was refused is not tried again before the store says something else.
        """
        async with self._turn:
            try:
                reading = await asyncio.to_thread(self._store.read)
                problem = await self._follow(reading)
            except CodebookRejected as error:
                if error.unreachable:
                    self._lose(str(error))
                else:
                    self._find()
                    self._refuse(str(error))
                return
            self._find()
            self._note(reading, problem)

    async def activate(self, version: str) -> Swap:
        """Make a version the active one of the store, once it is loaded, and serve it.

        Raises UnknownVersion if neither server nor store has it; CodebookRejected, with the reason, if it cannot be
        used, the store cannot be changed, or the server serves a canary. Then nothing changes.
        """
        return await self._to_its_end(self._activate(version))

    async def roll_back(self, from_version: str = "") -> Swap:
        """Make the version that was active before the active one of the store again, and serve it.

        from_version: that must be active now; empty: any. Raises CodebookRejected if another is, if there was none
        before, and as `activate`.
        """
        return await self._to_its_end(self._roll_back(from_version))

    async def _to_its_end(self, change: Coroutine[Any, Any, Swap]) -> Swap:
        """Await a change, which ends even if its caller is gone: what was written to the store is served too."""
        task = asyncio.create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A caller that gave up does not retrieve the error.
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(task)

    async def _activate(self, version: str) -> Swap:
        async with self._turn:
            loaded = await self._codebooks.load(version)
            reading = await asyncio.to_thread(self._store.activate, version)
            swap = self._codebooks.swap(loaded, "activated")
            self._note(reading)
            return swap

    async def _roll_back(self, from_version: str) -> Swap:
        async with self._turn:
            active, version = await asyncio.to_thread(self._store.rollback_target, from_version)
            loaded = await self._codebooks.load(version)
            reading = await asyncio.to_thread(self._store.roll_back, active, version)
            swap = self._codebooks.swap(loaded, "rolled_back")
            self._note(reading)
            return swap

    async def _follow(self, reading: StoreReading) -> str:
        """Serve what was read; returns why that cannot be done, or nothing.

        Raises CodebookRejected if the store cannot be reached any more.
        """
        control = reading.control
        if self._refused is not None and self._refused[0] == control:
            return self._refused[1]
        self._refused = None
        try:
            quiet = self._lost
            loaded = await self._codebooks.load(control.version_for(self._server), quiet=quiet)
            self._codebooks.swap(loaded, "activated")
            # Answers of a canary, and of the others, may be asked for by version at any server.
            for version in (control.active, *(() if control.canary is None else (control.canary.version,))):
                self._codebooks.keep(await self._codebooks.load(version, quiet=quiet))
        except (CodebookRejected, UnknownVersion) as error:
            if isinstance(error, CodebookRejected) and error.unreachable:
                raise
            self._refused = (control, str(error))
            return str(error)
        return ""

    def _note(self, reading: StoreReading, problem: str = "") -> None:
        """Remember what was read, and what of it cannot be served."""
        control = reading.control
        before, self.state = self.state.control, StoreState(control, self._server, problem)
        canary = {control.canary.version} if control.canary is not None else set()
        target = {reading.rollback_target} if reading.rollback_target is not None else set()
        self._codebooks.protect({control.active} | canary | target)
        if not problem:
            self._refused = None
        if control != before:
            self._metrics.record_store(control, before)
        self._metrics.codebook_follows_store.set(self.follows)

    def _refuse(self, problem: str) -> None:
        """Log once that what the store says is invalid."""
        if problem != self.state.problem:
            self._metrics.codebook_swaps.labels("refused").inc()
            log.error("the store's control files are invalid; serving on", reason=problem, serving=self.serving)
        self._set_problem(problem)

    def _lose(self, problem: str) -> None:
        """Log once that the store cannot be reached."""
        if not self._lost:
            self._lost = True
            self._metrics.store_reachable.set(0)
            log.error("the store cannot be reached; serving on", reason=problem, serving=self.serving)
        self._set_problem(problem)

    def _find(self) -> None:
        """Log once that the store is reached again."""
        if self._lost:
            self._lost = False
            self._metrics.store_reachable.set(1)
            log.info("the store is reached again", store=str(self._codebooks.store.files))

    def _set_problem(self, problem: str) -> None:
        self.state = self.state._replace(problem=problem)
        self._metrics.codebook_follows_store.set(self.follows)
