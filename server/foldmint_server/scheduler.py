"""The scheduler: residues of many requests share the devices' steps, and large proteins take turns with small ones.

Requests are admitted within a budget of queued residues. Each device has a thread, which fills a step from those that
wait (`fair_queue` tells whose turn it is), computes it, and quantizes each request's rows with the codebook that the
request was admitted under.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from torch import Tensor, cuda

from foldmint_server.errors import Overloaded, Stopping
from foldmint_server.fair_queue import FairQueue, Request
from foldmint_server.metrics import Metrics
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.neighborhoods import Geometry, Neighborhoods, concatenate

log = structlog.get_logger(__name__)
_MOST_VAIN = 256  # steps without a wait: of a caller's time, waits in vain then take next to nothing
Step = list[tuple["Job", slice]]
"""Of each job in it, the rows."""


class Device(Protocol):
    """What the scheduler asks of an engine, from one thread."""

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """Vectors (rows, out) before quantization."""
        ...

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """Codes and distances (rows,)."""
        ...

    def settle(self) -> None:
        """Called first in its thread."""
        ...

    def warm_up(self, embeddings: Tensor) -> None:
        """Compute what tells nothing, so that the first request does not wait for libraries."""
        ...


@dataclass(frozen=True)
class SchedulerConfig:
    """step_residues: of a step. slice_residues: of a long request's turn while others wait. max_delay: seconds that a
    step may wait for what is about to fill it. queued_residues: the budget of residues admitted and not yet computed.
    few_residues: that are not shared out among devices, even if several are free.
    """

    step_residues: int
    slice_residues: int
    max_delay: float
    queued_residues: int
    few_residues: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < (0 if name == "max_delay" else 1):
                raise ValueError(f"SchedulerConfig.{name} must be positive, not {value}")


@dataclass
class StepTimes:
    """A step's, in ns since 1970: when it began, all vectors were computed, all rows quantized; 0: not yet."""

    began: int
    computed: int = 0
    quantized: int = 0


@dataclass(eq=False, kw_only=True)
class Job(Request):
    """A structure's rows on their way. embeddings: of its codebook, on each device. steps: where to note its steps, if
    anywhere. done: rows computed. admitted, started: when.
    """

    shape: Geometry
    embeddings: Sequence[Tensor]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Quantized]"
    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    steps: list[StepTimes] | None = None
    done: int = 0
    admitted: float | None = None
    started: float = 0.0


@dataclass(eq=False)
class _Worker:
    """A device and its thread. calls: what is to be run there before the next step. began: when its step did."""

    number: int
    device: Device
    calls: "deque[tuple[Callable[[], None], Future[None]]]" = field(default_factory=deque)
    began: float | None = None


class Scheduler:
    """Runs a thread for each device; `compute` is called from one event loop.

    observe: is shown the vectors (rows, out) of each step once all are answered: in its device's thread, by one at a
    time.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        config: SchedulerConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._observe, self._observing = observe, threading.Lock()
        self._config, self._metrics, self._clock = config, metrics, clock
        self._changed = threading.Condition()
        self._free = 0  # devices that wait for something to do
        self._queue: FairQueue[Job] = FairQueue(config.step_residues, config.slice_residues, config.queued_residues)
        # Rows admitted since the last look, and when that was: how fast they come.
        self._arrived, self._looked = 0, clock()
        # Steps that follow without a wait on one in vain, and how many of them are left.
        self._vain, self._without_wait = 1, 0
        self._closed = ""  # or why
        self._workers = [_Worker(number, device) for number, device in enumerate(devices)]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name=f"device {worker.number}", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    async def compute(
        self,
        shape: Geometry,
        embeddings: Sequence[Tensor],
        *,
        caller: str = "",
        wait_for_room: bool = False,
        steps: list[StepTimes] | None = None,
    ) -> Quantized:
        """Codes and distances (rows,) of a structure's rows, quantized with these embeddings (codes, out).

        embeddings: the same, on each device. caller: with whose requests it takes turns. steps: is given the times of
        each step that its rows have a part in, as it begins.

        Raises Overloaded if the budget has no room (with wait_for_room, waits for it instead), Stopping if the
        scheduler closes, and what the device raised. Cancelling it drops the rows that were not yet computed.
        """
        rows = len(shape.queries)
        if rows == 0:
            return Quantized(np.empty(0, np.int64), np.empty(0, np.float32))
        loop = asyncio.get_running_loop()
        job = Job(
            caller,
            rows,
            shape=shape,
            embeddings=embeddings,
            loop=loop,
            future=loop.create_future(),
            codes=np.empty(rows, np.int64),
            distances=np.empty(rows, np.float32),
            steps=steps,
        )
        self._admit(job, wait_for_room=wait_for_room)
        try:
            return await job.future
        finally:
            with self._changed:
                self._forget(job)  # of no effect on a job that is done

    async def warm_up(self, embeddings: Sequence[Tensor]) -> None:
        """Let each device compute something, one after another; what one raises is raised.

        In its own thread: libraries keep memory, handles and recorded graphs for each. Raises Stopping if the scheduler
        is closed.
        """
        for worker, own in zip(self._workers, embeddings, strict=True):
            future: Future[None] = Future()
            with self._changed:
                self._check_open()
                worker.calls.append((partial(worker.device.warm_up, own), future))
                self._changed.notify_all()
            await asyncio.wrap_future(future)

    def stuck(self, seconds: float) -> bool:
        """Whether a device's thread has died, or has worked on one step for longer than this."""
        now = self._clock()
        return not all(thread.is_alive() for thread in self._threads) or any(
            began is not None and now - began > seconds for began in [worker.began for worker in self._workers]
        )

    def close(self) -> None:
        """Stop the devices' threads after their present steps; jobs that are left fail with Stopping."""
        with self._changed:
            self._close("the server is stopping")
        for thread in self._threads:
            thread.join()

    def _close(self, reason: str) -> None:
        """Fail all that waits; the lock is held."""
        self._closed = self._closed or reason
        error = Stopping(self._closed)
        for worker in self._workers:
            while worker.calls:
                worker.calls.popleft()[1].set_exception(error)
        left = self._queue.clear()
        self._metrics.rejects.labels("stopping").inc(sum(job.admitted is None for job in left))
        self._fail(left, error)
        self._metrics.queued_residues.set(0)
        self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Stopping(self._closed)

    def _admit(self, job: Job, *, wait_for_room: bool) -> None:
        """Queue the job, or let it stand in line for room."""
        with self._changed:
            if self._closed:
                self._metrics.rejects.labels("stopping").inc()
            self._check_open()
            if wait_for_room:
                self._queue.stand(job)
                self._advance()
            elif self._queue.enter(job):
                self._entered([job])
            else:
                self._metrics.rejects.labels("queue_full").inc()
                raise Overloaded(f"{self._queue.queued} residues are queued, and there is no room for {job.rows} more")

    def _advance(self) -> None:
        """Let those in for which there is room now; the lock is held."""
        self._entered(self._queue.advance())

    def _entered(self, jobs: Sequence[Job]) -> None:
        """Note what was admitted; the lock is held."""
        for job in jobs:
            self._arrived += job.rows
            job.admitted = self._clock()
        self._metrics.queued_residues.set(self._queue.queued)
        if jobs:
            self._changed.notify_all()

    def _forget(self, job: Job) -> None:
        """Let go of the rows of a job that no device was handed yet; the lock is held."""
        self._queue.remove(job)
        self._advance()

    def _serve(self, worker: _Worker) -> None:
        """The thread of a device. Whatever ends it before its time ends the scheduler: nothing waits for the dead."""
        try:
            worker.device.settle()
            self._run(worker)
        except BaseException:
            log.critical("the thread of a device died", device=worker.number)
            with self._changed:
                self._close("a device of the server failed")
            raise

    def _run(self, worker: _Worker) -> None:
        while True:
            with self._changed:
                idle = not self._queue.queued
                self._free += 1
                while not (self._queue.queued or worker.calls or self._closed):
                    self._changed.wait()
                self._free -= 1
                if self._closed:
                    return
                calls = list(worker.calls)
                worker.calls.clear()
                if not calls:
                    self._wait_to_fill(idle)
                step = self._queue.next_step(self._share())
                self._advance()
            worker.began = self._clock()
            for call, future in calls:
                _run(call, future)
            if step:
                self._compute(worker, step)
            worker.began = None

    def _share(self) -> int:
        """How many of the rows that wait a device takes: all that fit a step, or what the free ones leave it."""
        return max(-(-self._queue.queued // (1 + self._free)), self._config.few_residues)

    def _wait_to_fill(self, idle: bool) -> None:
        """Wait for what is missing from a step, if it will come in time, at the rate of late; the lock is held.

        A device that was idle begins at once. Each wait in vain doubles the number of steps before the next one, since
        callers that wait for this step's answers before they send more look as if they would send at once.
        """
        now = self._clock()
        arrived, elapsed = self._arrived, now - self._looked
        self._arrived, self._looked = 0, now
        missing = self._config.step_residues - self._queue.queued
        if idle or missing <= 0 or arrived * self._config.max_delay < missing * elapsed:
            return
        if self._without_wait:
            self._without_wait -= 1
            return
        until = now + self._config.max_delay
        while not self._closed and 0 < self._queue.queued < self._config.step_residues:
            left = until - self._clock()
            if left <= 0 or not self._changed.wait(left):
                self._vain = min(2 * self._vain, _MOST_VAIN)
                self._without_wait = self._vain
                return
        self._vain = 1

    def _compute(self, worker: _Worker, step: Step) -> None:
        now = self._clock()
        for job, part in step:
            if part.start == 0 and job.admitted is not None:
                job.started = now
                self._metrics.stage_seconds.labels("queue").observe(now - job.admitted)
        total = sum(part.stop - part.start for _, part in step)
        self._metrics.batches.inc()
        self._metrics.batch_fill.observe(total / self._config.step_residues)
        times = _noted(step)
        try:
            z = worker.device.vectors(concatenate([job.shape.rows(part) for job, part in step]))
            if times is not None:
                if z.is_cuda:  # which else would end at the first quantization, and count as that
                    cuda.current_stream(z.device).synchronize()
                times.computed = time.time_ns()
            self._quantize(worker, z, step)
            if times is not None:
                times.quantized = time.time_ns()
        except BaseException as error:
            log.exception("a step of the device failed", residues=total, device=worker.number)
            with self._changed:
                for job, _ in step:
                    self._forget(job)
            died = not isinstance(error, Exception)
            self._fail([job for job, _ in step], Stopping("a device of the server failed") if died else error)
            if died:
                raise
            return
        self._answer(step)
        if self._observe is not None:
            try:
                with self._observing:
                    self._observe(z)
            except Exception:
                log.exception("vectors were not recorded", residues=total)

    def _quantize(self, worker: _Worker, z: Tensor, step: Step) -> None:
        """Give each job its codes; neighbors under the same codebook, as nearly all are, are quantized together."""
        start = 0
        for _, group in groupby(step, key=lambda one: id(one[0].embeddings)):
            parts = list(group)
            stop = start + sum(part.stop - part.start for _, part in parts)
            found = worker.device.quantize(z[start:stop], parts[0][0].embeddings[worker.number])
            at = 0
            for job, part in parts:
                some = slice(at, at + part.stop - part.start)
                job.codes[part], job.distances[part] = found.codes[some], found.distances[some]
                at = some.stop
            start = stop

    def _answer(self, step: Step) -> None:
        """Tell those whose last rows these were."""
        with self._changed:  # other devices may have had other rows of them
            for job, part in step:
                job.done += part.stop - part.start
            complete = [job for job, _ in step if job.done == job.rows]
        now = self._clock()
        for job in complete:
            self._metrics.stage_seconds.labels("compute").observe(now - job.started)
            _call(job.loop, _resolve, job.future, Quantized(job.codes, job.distances))

    @staticmethod
    def _fail(jobs: Sequence[Job], error: BaseException) -> None:
        for job in jobs:
            _call(job.loop, _reject, job.future, error)


def _noted(step: Step) -> StepTimes | None:
    """The times of a step that begins, for those who want to know; None if nobody does."""
    wanted = [job.steps for job, _ in step if job.steps is not None]
    if not wanted:
        return None
    times = StepTimes(time.time_ns())
    for steps in wanted:
        steps.append(times)
    return times


def _run(call: Callable[[], None], future: "Future[None]") -> None:
    """Run a call, and tell what became of it."""
    try:
        call()
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        future.set_result(None)


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Call in the loop's thread; a loop that has ended has no one left to tell."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, *arguments)


def _resolve(future: "asyncio.Future[Quantized]", result: Quantized) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: "asyncio.Future[Quantized]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
