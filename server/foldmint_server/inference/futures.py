"""Resolves futures of an event loop from the threads of devices."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from foldmint_server.errors import Stopping
from foldmint_server.inference.batch_executor import DeviceLost, Job
from foldmint_tokenizer.engine import Quantized

LOST = "a device of the server failed"
"""The message for jobs and calls whose device is lost."""


def resolve(job: Job) -> None:
    """Give a job that is complete its codes."""
    _call(job.loop, _resolve, job.future, Quantized(job.codes, job.distances))


def reject(jobs: Sequence[Job], error: BaseException) -> None:
    """Fail jobs."""
    for job in jobs:
        _call(job.loop, _reject, job.future, error)


def run(call: Callable[[], None], future: "Future[None]") -> None:
    """Run a call, and resolve its future. Raises DeviceLost, and what is not an Exception."""
    try:
        call()
    except BaseException as error:
        lost = isinstance(error, DeviceLost)
        future.set_exception(Stopping(LOST) if lost else error)
        if lost or not isinstance(error, Exception):
            raise
    else:
        future.set_result(None)


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Call in the loop's thread; nothing waits in a loop that is closed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, *arguments)


def _resolve(future: "asyncio.Future[Quantized]", result: Quantized) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: "asyncio.Future[Quantized]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
