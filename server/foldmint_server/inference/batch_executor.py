"""Computing batches on a device: whole, or in parts where one fails, so that only what cannot be computed fails.

A batch that the device has no memory for is halved, down to a few rows; later ones are smaller, until enough of them
went well. One that fails otherwise is parted by structures, after a tiny one has shown that the device still computes:
if it does not, the device is lost, as after an error that spoils its CUDA context for good.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_server.errors import DeviceFull
from foldmint_server.inference.fair_queue import Request
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.neighborhoods import Geometry, Neighborhoods, concatenate

log = structlog.get_logger(__name__)
# Rows below which a batch is not halved: the memory that they need is next to nothing.
_FEWEST_ROWS = 16
# Batches that must go well before larger ones are tried again.
_GOOD_STEPS = 16
# What libraries say, beside torch's own error, when memory is missing.
_NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
Batch = list[tuple["Job", slice]]
"""Of each job in it, the rows."""


class Device(Protocol):
    """What the scheduler asks of an engine, from one thread."""

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """Vectors (rows, out) before quantization."""
        ...

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """Codes and distances (rows,)."""
        ...

    def bind_thread(self) -> None:
        """Called first in its thread."""
        ...

    def warm_up(self, embeddings: Tensor) -> None:
        """Compute a dummy batch, so that the first request does not wait for libraries."""
        ...

    def probe(self, embeddings: Tensor) -> None:
        """Compute as little as shows whether the device still computes."""
        ...


@dataclass
class BatchTimes:
    """A batch's, in ns since 1970: when it began, all was computed, all rows quantized; 0: not yet, or never."""

    began: int
    computed: int = 0
    quantized: int = 0


@dataclass(eq=False, kw_only=True)
class Job(Request):
    """A structure's rows on their way. embeddings: of its codebook, on each device. vectors: (rows, out), where they
    are kept; None: they are not. batch_times: where to note those of its batches, if anywhere. done: rows computed.
    admitted, started: when.
    """

    geometry: Geometry
    embeddings: Sequence[Tensor]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Quantized]"
    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    vectors: NDArray[np.float32] | None = None
    batch_times: list[BatchTimes] | None = None
    done: int = 0
    admitted: float | None = None
    started: float = 0.0


class DeviceLost(Exception):
    """The device computes nothing any more."""


@dataclass
class BatchResult:
    """What became of a batch. done: the parts that were computed. vectors: theirs, (rows, out) each. failed: jobs, and
    why.
    """

    done: Batch = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    failed: dict[Job, Exception] = field(default_factory=dict)


class BatchExecutor:
    """Computes the batches of one device, in its thread.

    number: of the device. limit: rows that the next batch may have. probing_since: when a probe of the device began;
    None: it is not.
    """

    def __init__(
        self, number: int, device: Device, most: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = most
        self.probing_since: float | None = None
        self._number, self._device, self._full = number, device, most
        self._metrics, self._clock = metrics, clock
        self._good = 0

    def compute(self, batch: Batch) -> BatchResult:
        """Codes and distances of a batch's jobs, each with the codebook of its own. Raises DeviceLost."""
        outcome, waiting = BatchResult(), [batch]
        while waiting:
            part = [one for one in waiting.pop() if one[0] not in outcome.failed]
            if not part:
                continue
            result = self._attempt(part)
            if isinstance(result, Tensor):
                outcome.done += part
                outcome.vectors.append(result)
                self._went_well()
            elif no_memory(result):
                self._give_way(part)
                if residues_of(part) > _FEWEST_ROWS:
                    waiting += _halves(part)
                else:
                    full = DeviceFull("the device has no memory for this structure now, not even for a few residues")
                    outcome.failed.update((job, full) for job, _ in part)
            else:
                self._fail(part, result)
                jobs = len({job for job, _ in part})
                if jobs > 1:
                    waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
                else:
                    outcome.failed[part[0][0]] = result
        return outcome

    def probe(self, embeddings: Tensor) -> None:
        """See whether the device still computes. Raises DeviceLost."""
        self.probing_since = self._clock()
        try:
            self._device.probe(embeddings)
        except Exception as error:
            if no_memory(error):  # the device still works
                return
            self._metrics.batch_failures.labels("device_lost").inc()
            log.critical("a device is lost: it computes nothing any more", device=self._number, exc_info=error)
            raise DeviceLost from error
        finally:
            self.probing_since = None

    def _attempt(self, part: Batch) -> Tensor | Exception:
        """Vectors (rows, out) of a part whose jobs were given their codes, or what went wrong."""
        times = _noted(part)
        try:
            z = self._device.vectors(concatenate([job.geometry.rows(rows) for job, rows in part]))
            if times is not None:
                if z.is_cuda:  # which else would end at the first quantization, and count as that
                    torch.cuda.current_stream(z.device).synchronize()
                times.computed = time.time_ns()
            self._quantize(z, part)
            if times is not None:
                times.quantized = time.time_ns()
        except Exception as error:
            if not no_memory(error):
                log.exception("a batch of the device failed", residues=residues_of(part), device=self._number)
            # Its frames hold on to the memory that the batch took.
            return error.with_traceback(None)
        return z

    def _quantize(self, z: Tensor, part: Batch) -> None:
        """Give each job its codes; neighbors under the same codebook, as nearly all are, are quantized together."""
        start = 0
        for _, group in groupby(part, key=lambda one: id(one[0].embeddings)):
            jobs = list(group)
            stop = start + residues_of(jobs)
            found = self._device.quantize(z[start:stop], jobs[0][0].embeddings[self._number])
            at = 0
            for job, rows in jobs:
                some = slice(at, at + rows.stop - rows.start)
                job.codes[rows], job.distances[rows] = found.codes[some], found.distances[some]
                if job.vectors is not None:
                    job.vectors[rows] = z[start + at : start + some.stop].float().cpu().numpy()
                at = some.stop
            start = stop

    def _give_way(self, part: Batch) -> None:
        """Make room after a batch that there was no memory for, and let the next ones be smaller."""
        rows = residues_of(part)
        self._metrics.batch_failures.labels("out_of_memory").inc()
        log.warning("the device has no memory for a batch; it is halved", residues=rows, device=self._number)
        self.limit, self._good = max(_FEWEST_ROWS, min(self.limit, rows) // 2), 0
        free_memory()

    def _went_well(self) -> None:
        """Let batches grow again after enough of them."""
        if self.limit < self._full:
            self._good += 1
            if self._good >= _GOOD_STEPS:
                self.limit, self._good = min(self._full, 2 * self.limit), 0

    def _fail(self, part: Batch, error: Exception) -> None:
        """Count a failure that is not one of memory. Raises DeviceLost if the device is at fault."""
        self._metrics.batch_failures.labels("not_finite" if isinstance(error, ModelError) else "error").inc()
        self.probe(part[0][0].embeddings[self._number])


def no_memory(error: Exception) -> bool:
    """Whether the device, or the machine, had no memory for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def free_memory() -> None:
    """Free memory that is no longer in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def residues_of(batch: Batch) -> int:
    """Residues of a batch."""
    return sum(rows.stop - rows.start for _, rows in batch)


def _halves(batch: Batch) -> list[Batch]:
    """The rows of a batch in two batches, the second first: the last is the next to be taken."""
    left = residues_of(batch) // 2
    first: Batch = []
    second: Batch = []
    for job, rows in batch:
        cut = min(rows.start + left, rows.stop)
        left -= cut - rows.start
        first += [(job, slice(rows.start, cut))] if cut > rows.start else []
        second += [(job, slice(cut, rows.stop))] if cut < rows.stop else []
    return [second, first]


def _noted(batch: Batch) -> BatchTimes | None:
    """Add the times of a batch that begins to the jobs that record them; None if none of them does."""
    wanted = [job.batch_times for job, _ in batch if job.batch_times is not None]
    if not wanted:
        return None
    times = BatchTimes(time.time_ns())
    for batches in wanted:
        batches.append(times)
    return times
