"""The scheduler: residues of many requests share the device's steps, and large proteins take turns with small ones.

Requests are admitted within a budget of queued residues. A device thread fills a step from those that wait, computes
it, and quantizes each request's rows with the codebook that the request was admitted under.

A request is short if its rows are no more than two steps', and long otherwise. Each kind has half of every step, and
what the other does not need. Short ones are computed whole, long ones slice by slice in turn; turns go round the
callers, and of each caller round its requests. So however many long ones there are, they add two steps at most to a
short one that has no others before it; and long ones go on, however many short ones come.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from torch import Tensor

from foldmint_server.errors import Overloaded, Stopping
from foldmint_server.metrics import Metrics
from foldmint_server.turns import Turns
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.neighborhoods import Geometry, Neighborhoods, concatenate

log = structlog.get_logger(__name__)
_MOST_VAIN = 256  # steps without a wait: of a caller's time, waits in vain then take next to nothing


class Device(Protocol):
    """What the scheduler asks of an engine."""

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """Vectors (rows, out) before quantization."""
        ...

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """Codes and distances (rows,)."""
        ...


@dataclass(frozen=True)
class SchedulerConfig:
    """step_residues: of a step. slice_residues: of a long request's turn while others wait. max_delay: seconds that a
    step may wait for what is about to fill it. queued_residues: the budget of residues admitted and not yet computed.
    """

    step_residues: int
    slice_residues: int
    max_delay: float
    queued_residues: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < (0 if name == "max_delay" else 1):
                raise ValueError(f"SchedulerConfig.{name} must be positive, not {value}")


@dataclass(eq=False)
class Job:
    """A structure's rows on their way. caller: who asked. taken: rows handed to the device. admitted, started: when."""

    caller: str
    shape: Geometry
    embeddings: Tensor
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Quantized]"
    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    taken: int = 0
    admitted: float = 0.0
    started: float = 0.0

    @property
    def rows(self) -> int:
        """Rows in all."""
        return len(self.shape.queries)

    @property
    def left(self) -> int:
        """Rows that the device was not handed yet."""
        return self.rows - self.taken


class Scheduler:
    """Runs the device thread; `compute` is called from one event loop.

    observe: is shown the vectors (rows, out) of each step, on the device and in its thread, once all are answered.
    """

    def __init__(
        self,
        device: Device,
        config: SchedulerConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._observe = observe
        self._device, self._config, self._metrics, self._clock = device, config, metrics, clock
        self._changed = threading.Condition()
        self._short: Turns[Job] = Turns()
        self._long: Turns[Job] = Turns()
        self._queued = 0
        # Rows admitted since the last look, and when that was: how fast they come.
        self._arrived, self._looked = 0, clock()
        # Steps that follow without a wait on one in vain, and how many of them are left.
        self._vain, self._without_wait = 1, 0
        self._closed = False
        self._room: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        # Those that wait for room stand in line: a large structure is not passed over by small ones behind it.
        self._line = asyncio.Lock()
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    async def compute(
        self, shape: Geometry, embeddings: Tensor, *, caller: str = "", wait_for_room: bool = False
    ) -> Quantized:
        """Codes and distances (rows,) of a structure's rows, quantized with these embeddings (codes, out).

        caller: with whose requests it takes turns.

        Raises Overloaded if the budget has no room (with wait_for_room, waits for it instead), Stopping if the
        scheduler closes, and what the device raised. Cancelling it drops the rows that were not yet computed.
        """
        rows = len(shape.queries)
        if rows == 0:
            return Quantized(np.empty(0, np.int64), np.empty(0, np.float32))
        loop = asyncio.get_running_loop()
        job = Job(
            caller,
            shape,
            embeddings,
            loop,
            loop.create_future(),
            np.empty(rows, np.int64),
            np.empty(rows, np.float32),
        )
        if wait_for_room:
            async with self._line:
                while (freed := self._admitted(job)) is not None:
                    await freed.wait()
        elif self._admitted(job) is not None:
            self._metrics.rejects.labels("queue_full").inc()
            raise Overloaded(f"{self._queued} residues are queued, and there is no room for {rows} more")
        try:
            return await job.future
        finally:
            with self._changed:
                self._forget(job)  # of no effect on a job that is done

    def stuck(self, seconds: float) -> bool:
        """Whether the device thread has died, or has worked on one step for longer than this."""
        began = self._step_began
        return not self._thread.is_alive() or (began is not None and self._clock() - began > seconds)

    def close(self) -> None:
        """Stop the device thread after its present step; jobs that are left fail with Stopping."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            self._wake()
        self._thread.join()

    def _admitted(self, job: Job) -> asyncio.Event | None:
        """Queue the job and return None; without room, return what will be set when some residues are computed."""
        with self._changed:
            if self._closed:
                self._metrics.rejects.labels("stopping").inc()
                raise Stopping("the server is stopping")
            if self._queued and self._queued + job.rows > self._config.queued_residues:
                # Under the same lock as the look at the queue: else the last step could end in between, unheard.
                freed = asyncio.Event()
                self._room.append((job.loop, freed))
                return freed
            self._queue(job.rows)
            self._arrived += job.rows
            job.admitted = self._clock()
            self._turns(job).add(job.caller, job)
            self._changed.notify()
            return None

    def _turns(self, job: Job) -> Turns[Job]:
        return self._short if job.rows <= 2 * self._config.step_residues else self._long

    def _forget(self, job: Job) -> None:
        """Let go of the rows of a job that the device was not handed yet; the lock is held."""
        if self._turns(job).remove(job.caller, job):
            self._queue(-job.left)

    def _queue(self, rows: int) -> None:
        """Change the number of queued residues; the lock is held."""
        self._queued += rows
        self._metrics.queued_residues.set(self._queued)
        if rows < 0:
            self._wake()

    def _wake(self) -> None:
        """Let those that wait for room look again; the lock is held."""
        for loop, freed in self._room:
            _call(loop, freed.set)
        self._room.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                idle = not self._queued
                while not self._queued and not self._closed:
                    self._changed.wait()
                if self._closed:
                    self._fail(self._short.clear() + self._long.clear(), Stopping("the server is stopping"))
                    return
                self._wait_to_fill(idle)
                step = self._next_step()
            if step:
                self._step_began = self._clock()
                self._compute(step)
                self._step_began = None

    def _wait_to_fill(self, idle: bool) -> None:
        """Wait for what is missing from a step, if it will come in time, at the rate of late; the lock is held.

        A device that was idle begins at once. Each wait in vain doubles the number of steps before the next one, since
        callers that wait for this step's answers before they send more look as if they would send at once.
        """
        now = self._clock()
        arrived, elapsed = self._arrived, now - self._looked
        self._arrived, self._looked = 0, now
        missing = self._config.step_residues - self._queued
        if idle or missing <= 0 or arrived * self._config.max_delay < missing * elapsed:
            return
        if self._without_wait:
            self._without_wait -= 1
            return
        until = now + self._config.max_delay
        while not self._closed and 0 < self._queued < self._config.step_residues:
            left = until - self._clock()
            if left <= 0 or not self._changed.wait(left):
                self._vain = min(2 * self._vain, _MOST_VAIN)
                self._without_wait = self._vain
                return
        self._vain = 1

    def _next_step(self) -> list[tuple[Job, slice]]:
        """Slices of the jobs whose turns it is, up to a step's size; the lock is held."""
        step = self._config.step_residues
        parts: dict[Job, slice] = {}
        room = step

        def take(turns: Turns[Job], most: int) -> int:
            job = turns.take()
            stop = job.taken + min(most, job.left)
            taken = stop - job.taken
            parts[job] = slice(parts[job].start if job in parts else job.taken, stop)
            job.taken = stop
            if job.left:
                (turns.add if turns is self._long else turns.put_back)(job.caller, job)
            return taken

        reserved = step - step // 2 if self._long else 0  # for long ones
        while self._short and room > reserved:
            room -= take(self._short, room - reserved)
        while self._long and room:
            alone = len(self._long) == 1 and not self._short
            room -= take(self._long, room if alone else min(room, self._config.slice_residues))
        while self._short and room:
            room -= take(self._short, room)
        self._queue(room - step)
        return list(parts.items())

    def _compute(self, step: list[tuple[Job, slice]]) -> None:
        now = self._clock()
        for job, part in step:
            if part.start == 0:
                job.started = now
                self._metrics.stage_seconds.labels("queue").observe(now - job.admitted)
        total = sum(part.stop - part.start for _, part in step)
        self._metrics.batches.inc()
        self._metrics.batch_fill.observe(total / self._config.step_residues)
        try:
            z = self._device.vectors(concatenate([job.shape.rows(part) for job, part in step]))
            start = 0
            for job, part in step:
                stop = start + part.stop - part.start
                job.codes[part], job.distances[part] = self._device.quantize(z[start:stop], job.embeddings)
                start = stop
        except Exception as error:
            log.exception("a step of the device failed", residues=total)
            with self._changed:
                for job, _ in step:
                    self._forget(job)
            self._fail([job for job, _ in step], error)
            return
        for job, part in step:
            if part.stop == job.rows:
                self._metrics.stage_seconds.labels("compute").observe(self._clock() - job.started)
                _call(job.loop, _resolve, job.future, Quantized(job.codes, job.distances))
        if self._observe is not None:
            try:
                self._observe(z)
            except Exception:
                log.exception("vectors were not recorded", residues=total)

    @staticmethod
    def _fail(jobs: list[Job], error: Exception) -> None:
        for job in jobs:
            _call(job.loop, _reject, job.future, error)


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Call in the loop's thread; a loop that has ended has no one left to tell."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, *arguments)


def _resolve(future: "asyncio.Future[Quantized]", result: Quantized) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: "asyncio.Future[Quantized]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
