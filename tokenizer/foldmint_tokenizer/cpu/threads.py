"""A CPU's threads, among which rows are split."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from foldmint_tokenizer.cpu.fast_encoder import FastEncoder, Workspace
from foldmint_tokenizer.neighborhoods import Neighborhoods

FEWEST_ROWS = 32
"""With fewer rows a thread, another thread would cost more than it saves."""

# Guards torch's default number of threads while it changes.
_THREAD_DEFAULT_LOCK = threading.Lock()

T = TypeVar("T")


class EncoderThreads:
    """A CPU's threads, each with a share of the rows and its own memory.

    Splitting rows is faster than splitting each operation, as torch does itself: operations are many and small.
    step_rows: of which each thread has a block.
    """

    def __init__(self, encoder: FastEncoder, count: int) -> None:
        self._encoder = encoder
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._own = threading.local()
        self.step_rows = count * encoder.block_rows

    def single(self) -> "EncoderThreads":
        """A copy with one thread, the caller's."""
        return EncoderThreads(self._encoder, 1)

    def map(self, task: Callable[[slice], T], total: int) -> list[T]:
        """The task's results for all rows, in parts sized for the threads, in order."""
        parts = -(-total // self._encoder.block_rows)
        if total >= self.count * FEWEST_ROWS:
            parts = -(-parts // self.count) * self.count
        step = self._encoder.row_step
        bounds = [round(total * part / parts / step) * step for part in range(parts)] + [total]
        slices = [slice(start, stop) for start, stop in pairwise(bounds)]
        if (self.count == 1 or parts <= 1) and torch.get_num_threads() == 1:
            return [task(part) for part in slices]
        # A few rows, too: with several threads, torch would split each of many small operations, and wait for the
        # slowest thread after each.
        if self._pool is None:
            self._pool = _single_threaded(self.count)
        waiting, results = deque(enumerate(slices)), dict[int, T]()

        def work() -> None:
            try:
                while (one := _first(waiting)) is not None:
                    place, part = one
                    results[place] = task(part)
            except BaseException:
                waiting.clear()  # the others need not go on
                raise

        # Wait for the threads, not for each part: waking the caller after each would take a core from a busy thread.
        for done in [self._pool.submit(work) for _ in range(min(self.count, len(slices)))]:
            done.result()
        return [results[place] for place in range(len(slices))]

    def block(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out), computed by the calling thread."""
        if not hasattr(self._own, "work"):
            self._own.work = Workspace()
        return self._encoder(rows, self._own.work)


def _first(waiting: "deque[T]") -> T | None:
    """Take the first of what waits, in any thread; None if nothing does."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _single_threaded(count: int) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch uses one thread."""
    pool = ThreadPoolExecutor(count, "encoder", initializer=use_one_thread)
    started = threading.Barrier(count)
    list(pool.map(lambda _: started.wait(), range(count)))
    return pool


def use_one_thread() -> None:
    """Restrict torch to one thread in the calling thread."""
    with _THREAD_DEFAULT_LOCK:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        # A thread's setting becomes the default of new threads; a short-lived thread restores the previous default.
        restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
        restoring.start()
        restoring.join()
