"""Waiting for what is to come about, instead of for a time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE = 60.0
"""Seconds after which what did not come about is a failure."""


async def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once a condition holds, which a thread or another task brings about."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"it did not come about in {seconds:g} s")
        await asyncio.sleep(0.002)


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """The same, where no event loop runs."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"it did not come about in {seconds:g} s")
        time.sleep(0.01)


async def tasks_began() -> None:
    """Let the tasks that were created run to their first wait."""
    await asyncio.sleep(0)


def value_of(metric: Any) -> float:
    """The value of a gauge, a counter or one of their children."""
    (sample,) = (one for one in metric.collect()[0].samples if not one.name.endswith("_created"))
    value: float = sample.value
    return value
