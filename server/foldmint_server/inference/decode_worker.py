"""Decoding: the tokens of one structure after another, on a thread of its own.

A structure is decoded as a whole, since every residue attends to all others. It is admitted within a budget of residues
that wait or are being decoded, and dropped if its caller cancels before its decoding begins.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from foldmint_server.errors import DeviceFull, Overloaded, Stopping
from foldmint_server.inference.batch_executor import BatchTimes, free_memory, no_memory
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer import Assignment, DecodedStructure, TokenizerError
from foldmint_tokenizer.detokenizer import DecoderInputs
from foldmint_tokenizer.motion.motions import Segments

# Residues from which on the time allowed for one structure grows, with their square, as the computation does.
_SHORT = 1000
_WARM_UP = 64


class Decoder(Protocol):
    """The interface of a detokenizer."""

    def detokenize(
        self,
        tokens: NDArray[np.int64],
        *,
        has_frame: NDArray[np.bool_] | None = None,
        pae: bool = False,
        inputs: DecoderInputs | None = None,
        assignment: Assignment = Assignment.INDEPENDENT,
        segments: Sequence[Segments] | None = None,
    ) -> DecodedStructure:
        """The structure that tokens (length,) stand for; as of `StructureDetokenizer`."""
        ...


class Wanted(NamedTuple):
    """How tokens are to be decoded; as of `StructureDetokenizer.detokenize`.

    inputs: of the version that the tokens are codes of.
    """

    has_frame: NDArray[np.bool_] | None = None
    pae: bool = False
    inputs: DecoderInputs | None = None
    assignment: Assignment = Assignment.INDEPENDENT
    segments: Sequence[Segments] | None = None


class _UnderWay(NamedTuple):
    residues: int
    began: float


_PLAIN = Wanted()


class DecodeWorker:
    """Runs the decode thread; `decode` is called from one event loop. budget: residues admitted and not yet decoded."""

    def __init__(
        self,
        decoder: Decoder,
        budget: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """failed: is called where the device, not the tokens, may be at fault."""
        self._failed = failed
        self._decoder, self._budget, self._metrics, self._clock = decoder, budget, metrics, clock
        self._lock = threading.Lock()
        self._queued = 0
        self._closed = False
        self._under_way: _UnderWay | None = None
        self._thread = ThreadPoolExecutor(1, "decode")

    async def decode(
        self,
        tokens: NDArray[np.int64],
        residues: int,
        wanted: Wanted = _PLAIN,
        batch_times: list[BatchTimes] | None = None,
    ) -> DecodedStructure:
        """The structure that tokens (length,) with so many residues stand for.

        batch_times: is given the times of its decoding, as it begins.

        Raises Overloaded if the budget has no room, Stopping if the thread is being closed, DeviceFull if the device
        has no memory for it, and what the decoder raised. Cancelling it drops a structure whose decoding has not begun.
        """
        call = partial(self._decoder.detokenize, tokens, **wanted._asdict())
        return await asyncio.wrap_future(self._admitted(call, residues, batch_times))

    async def warm_up(self) -> None:
        """Decode dummy tokens, so that the first request does not wait for libraries."""
        warming = self._thread.submit(self._decoder.detokenize, np.zeros(_WARM_UP, np.int64), pae=True)
        await asyncio.wrap_future(warming)

    def hung(self, seconds: float) -> bool:
        """Whether one structure has been under way for longer than this, or than large ones may take in proportion."""
        job = self._under_way
        return job is not None and self._clock() - job.began > seconds * max(1.0, (job.residues / _SHORT) ** 2)

    def close(self) -> None:
        """End the thread after the structure that is under way; what is left fails with Stopping."""
        with self._lock:
            self._closed = True
        self._thread.shutdown()

    def _admitted(
        self, call: Callable[[], DecodedStructure], residues: int, batch_times: list[BatchTimes] | None
    ) -> "Future[DecodedStructure]":
        with self._lock:
            if self._closed:
                self._metrics.rejects.labels("stopping").inc()
                raise Stopping("the server is stopping")
            if self._queued and self._queued + residues > self._budget:
                self._metrics.rejects.labels("queue_full").inc()
                raise Overloaded(f"{self._queued} residues are to be decoded, and there is no room for {residues} more")
            job = self._thread.submit(self._decoded, call, residues, self._clock(), batch_times)
        self._queue(residues)
        job.add_done_callback(lambda _: self._queue(-residues))
        return job

    def _queue(self, residues: int) -> None:
        """Change the number of queued residues."""
        with self._lock:
            self._queued += residues
            self._metrics.queued_detokenize_residues.set(self._queued)

    def _decoded(
        self,
        call: Callable[[], DecodedStructure],
        residues: int,
        admitted: float,
        batch_times: list[BatchTimes] | None,
    ) -> DecodedStructure:
        if self._closed:
            raise Stopping("the server is stopping")
        began = self._clock()
        self._metrics.stage_seconds.labels("queue").observe(began - admitted)
        self._under_way = _UnderWay(residues, began)
        times = BatchTimes(time.time_ns())
        if batch_times is not None:
            batch_times.append(times)
        try:
            structure = call()
        except TokenizerError:
            raise
        except Exception as error:
            if no_memory(error):
                error.with_traceback(None)  # whose frames hold on to the memory
                free_memory()
                raise DeviceFull(f"the device has no memory to decode {residues} residues at once now") from None
            self._failed()
            raise
        finally:
            times.computed = time.time_ns()
            self._under_way = None
        self._metrics.stage_seconds.labels("decode").observe(self._clock() - began)
        self._metrics.detokenized_residues.inc(residues)
        return structure
