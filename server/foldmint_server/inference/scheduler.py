"""The scheduler: residues of many requests share the devices' batches, and large proteins alternate with small ones.

Requests are admitted within a budget of queued residues. Each device has a thread, which fills a batch from those that
wait (`fair_queue` decides which), computes it, and quantizes each request's rows with the codebook that the
request was admitted under.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray
from torch import Tensor

from foldmint_server.errors import Overloaded, Stopping
from foldmint_server.inference.batch_executor import (
    Batch,
    BatchExecutor,
    BatchTimes,
    Device,
    DeviceLost,
    Job,
    residues_of,
)
from foldmint_server.inference.batch_wait import BatchWait
from foldmint_server.inference.deadlines import Throughput, check_in_time
from foldmint_server.inference.device_worker import DeviceWorker, make_calls
from foldmint_server.inference.fair_queue import FairQueue
from foldmint_server.inference.futures import LOST, reject, resolve
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.neighborhoods import Geometry

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SchedulerConfig:
    """batch_residues: of a batch. slice_residues: of a long request's turn while others wait. max_delay: seconds that a
    batch may wait for what is about to fill it. queued_residues: the budget of residues admitted and not yet computed.
    min_split_residues: fewer are not split among devices, even if several are free.
    """

    batch_residues: int
    slice_residues: int
    max_delay: float
    queued_residues: int
    min_split_residues: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < (0 if name == "max_delay" else 1):
                raise ValueError(f"SchedulerConfig.{name} must be positive, not {value}")


class Scheduler:
    """Runs a thread for each device; `compute` is called from one event loop.

    idle: devices without work. observe: is called with the vectors (rows, out) of each batch, after its jobs are
    resolved: in the device's thread, by one thread at a time.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        config: SchedulerConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Tensor], None] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """names: of the devices, for metrics; their numbers by default."""
        self._observe, self._observing = observe, threading.Lock()
        self._config, self._metrics, self._clock = config, metrics, clock
        self._changed = threading.Condition()
        self.idle = 0
        self._queue: FairQueue[Job] = FairQueue(config.batch_residues, config.slice_residues, config.queued_residues)
        self._batch_wait = BatchWait(config.batch_residues, config.max_delay, clock)
        self._throughput = Throughput()
        self._closed = ""  # or why
        self._workers = [
            DeviceWorker(
                number, device, BatchExecutor(number, device, config.batch_residues, metrics, clock), name=name
            )
            for number, (name, device) in enumerate(
                zip(names or [str(number) for number in range(len(devices))], devices, strict=True)
            )
        ]
        for worker in self._workers:  # series that stand at 0
            metrics.batch_seconds.labels(worker.name)
            metrics.batch_residues.labels(worker.name)
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name=f"device {worker.number}", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    async def compute(
        self,
        geometry: Geometry,
        embeddings: Sequence[Tensor],
        *,
        caller: str = "",
        wait_for_room: bool = False,
        seconds_left: float | None = None,
        batch_times: list[BatchTimes] | None = None,
        vectors: NDArray[np.float32] | None = None,
    ) -> Quantized:
        """Codes and distances (rows,) of a structure's rows, quantized with these embeddings (codes, out).

        embeddings: the same, on each device. caller: for round robin among callers. batch_times: is given the
        times of each batch that its rows have a part in, as it begins. vectors: (rows, out), is given those of the
        rows. seconds_left: for which the caller waits.

        Raises Overloaded if the budget has no room (with wait_for_room, waits for it instead), or if so much is queued
        that the caller would not wait until its rows are computed; Stopping if the scheduler closes; and what the
        device raised. Cancelling it drops the rows that were not yet computed.
        """
        rows = len(geometry.queries)
        if rows == 0:
            return Quantized(np.empty(0, np.int64), np.empty(0, np.float32))
        loop = asyncio.get_running_loop()
        job = Job(
            caller,
            rows,
            geometry=geometry,
            embeddings=embeddings,
            loop=loop,
            future=loop.create_future(),
            codes=np.empty(rows, np.int64),
            distances=np.empty(rows, np.float32),
            vectors=vectors,
            batch_times=batch_times,
        )
        self._admit(job, wait_for_room=wait_for_room, seconds_left=seconds_left)
        try:
            return await job.future
        finally:
            with self._changed:
                self._forget(job)  # no effect on a job that is done

    async def warm_up(self, embeddings: Sequence[Tensor]) -> None:
        """Let each device compute something, one after another; what one raises is raised.

        In its own thread: libraries keep memory, handles and recorded graphs for each. Raises Stopping if the scheduler
        is closed.
        """
        for worker, own in zip(self._workers, embeddings, strict=True):
            await asyncio.wrap_future(self._call_in(worker, partial(worker.device.warm_up, own)))

    def health_check(self, embeddings: Sequence[Tensor]) -> None:
        """Probe the devices, after another computation on one of them failed. Thread-safe."""
        for worker, own in zip(self._workers, embeddings, strict=True):
            with contextlib.suppress(Stopping):
                self._call_in(worker, partial(worker.executor.probe, own))

    @property
    def lost(self) -> bool:
        """Whether the last device is lost: nothing more will be computed."""
        return all(worker.lost for worker in self._workers)

    @property
    def devices_left(self) -> int:
        """Devices that are not lost."""
        return sum(not worker.lost for worker in self._workers)

    def hung(self, seconds: float) -> bool:
        """Whether no device is left, or one has worked on one batch for longer than this, or is tried for too long."""
        now = self._clock()
        left = [worker for worker in self._workers if not worker.lost]
        return not left or bool(self._closed) or any(worker.hung(now, seconds) for worker in left)

    def close(self) -> None:
        """Stop the devices' threads after their present batches; jobs that are left fail with Stopping."""
        with self._changed:
            self._close("the server is stopping")
        for thread in self._threads:
            thread.join()

    def _call_in(self, worker: DeviceWorker, call: Callable[[], None]) -> "Future[None]":
        """Let a device's thread make a call before its next batch. Raises Stopping if it runs no more."""
        with self._changed:
            self._check_open()
            future = worker.add_call(call)
            self._changed.notify_all()
        return future

    def _close(self, reason: str) -> None:
        """Fail all waiting jobs and calls. The caller holds the lock."""
        self._closed = self._closed or reason
        error = Stopping(self._closed)
        for worker in self._workers:
            worker.reject_calls(error)
        left = self._queue.clear()
        self._metrics.rejects.labels("stopping").inc(sum(job.admitted is None for job in left))
        reject(left, error)
        self._metrics.queued_residues.set(0)
        self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Stopping(self._closed)

    def _admit(self, job: Job, *, wait_for_room: bool, seconds_left: float | None) -> None:
        """Queue the job, or let it wait for room."""
        with self._changed:
            if self._closed:
                self._metrics.rejects.labels("stopping").inc()
            self._check_open()
            if wait_for_room:
                self._queue.enqueue_waiting(job)
                self._admit_waiting()
                return
            if seconds_left is not None:
                try:
                    check_in_time(self._queue, job, seconds_left, self._throughput, self.devices_left)
                except Overloaded:
                    self._metrics.rejects.labels("deadline").inc()
                    raise
            if not self._queue.admit(job):
                self._metrics.rejects.labels("queue_full").inc()
                raise Overloaded(
                    f"{self._queue.queued} residues are queued, and there is no room for {job.residues} more"
                )
            self._admitted([job])

    def _admit_waiting(self) -> None:
        """Admit waiting jobs for which there is room now. The caller holds the lock."""
        self._admitted(self._queue.admit_waiting())

    def _admitted(self, jobs: Sequence[Job]) -> None:
        """Record admitted jobs. The caller holds the lock."""
        for job in jobs:
            self._batch_wait.note_arrival(job.residues)
            job.admitted = self._clock()
        self._metrics.queued_residues.set(self._queue.queued)
        if jobs:
            self._changed.notify_all()

    def _forget(self, job: Job) -> None:
        """Drop the rows of a job that were not dispatched yet. The caller holds the lock."""
        self._queue.remove(job)
        self._admit_waiting()

    def _serve(self, worker: DeviceWorker) -> None:
        """The thread of a device. If it ends early, the others go on; if none is left, all waiting jobs fail."""
        try:
            worker.device.bind_thread()
            self._run(worker)
        except BaseException as error:
            left = self.devices_left - 1
            log.critical("the thread of a device died", device=worker.number, devices_left=left)
            with self._changed:
                worker.lost = True
                worker.reject_calls(Stopping(LOST))
                if self.lost:
                    self._close(LOST)
            if not isinstance(error, DeviceLost):
                raise

    def _run(self, worker: DeviceWorker) -> None:
        ended: float | None = None  # the last batch
        while True:
            with self._changed:
                idle = not self._queue.queued
                self.idle += 1
                while not (self._queue.queued or worker.calls or self._closed):
                    self._changed.wait()
                self.idle -= 1
                if self._closed:
                    return
                calls = worker.take_calls()
                if not calls:
                    self._wait_for_more(idle)
                batch = self._queue.next_batch(min(self._share(), worker.executor.limit))
                self._admit_waiting()
            worker.began = self._clock()
            make_calls(calls)
            if batch:
                # What passes between two batches is part of a busy device's throughput.
                began = self._clock() if idle or calls or ended is None else ended
                self._compute(worker, batch)
                ended = self._clock()
                with self._changed:
                    self._throughput.record(residues_of(batch), ended - began)
            worker.began = None

    def _share(self) -> int:
        """How many of the waiting rows a device takes: they are split evenly among the idle devices."""
        return max(-(-self._queue.queued // (1 + self.idle)), self._config.min_split_residues)

    def _wait_for_more(self, idle: bool) -> None:
        """Wait until a batch is full, if that is worth it. The caller holds the lock."""
        until = self._batch_wait.deadline(self._queue.queued, idle=idle)
        if until is None:
            return
        while not self._closed and 0 < self._queue.queued < self._config.batch_residues:
            left = until - self._clock()
            if left <= 0 or not self._changed.wait(left):
                self._batch_wait.finish(timed_out=True)
                return
        self._batch_wait.finish(timed_out=False)

    def _compute(self, worker: DeviceWorker, batch: Batch) -> None:
        """Compute a batch, and resolve its jobs. Raises DeviceLost."""
        now = self._clock()
        for job, part in batch:
            if part.start == 0 and job.admitted is not None:
                job.started = now
                self._metrics.stage_seconds.labels("queue").observe(now - job.admitted)
        total = residues_of(batch)
        self._metrics.batches.inc()
        self._metrics.batch_fill.observe(total / self._config.batch_residues)
        self._metrics.batch_residues.labels(worker.name).observe(total)
        try:
            outcome = worker.executor.compute(batch)
        except BaseException:
            self._drop([job for job, _ in batch], Stopping(LOST))
            raise
        finally:
            self._metrics.batch_seconds.labels(worker.name).observe(self._clock() - now)
        for job, error in outcome.failed.items():
            self._drop([job], error)
        self._answer([one for one in outcome.done if one[0] not in outcome.failed])
        if self._observe is not None:
            try:
                with self._observing:
                    for z in outcome.vectors:
                        self._observe(z)
            except Exception:
                log.exception("vectors were not recorded", residues=total)

    def _answer(self, batch: Batch) -> None:
        """Resolve the jobs that are complete."""
        with self._changed:  # other devices may have had other rows of them
            for job, part in batch:
                job.done += part.stop - part.start
            complete = [job for job in dict.fromkeys(job for job, _ in batch) if job.done == job.residues]
        now = self._clock()
        for job in complete:
            self._metrics.stage_seconds.labels("compute").observe(now - job.started)
            resolve(job)

    def _drop(self, jobs: Sequence[Job], error: BaseException) -> None:
        """Fail jobs, and compute nothing more of them."""
        with self._changed:
            for job in jobs:
                self._forget(job)
        reject(jobs, error)
