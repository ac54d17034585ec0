"""Whether a step waits for what is about to fill it: if that will come in time, at the rate of late."""

from collections.abc import Callable

_MOST_VAIN = 256  # steps without a wait: of a caller's time, waits in vain then take next to nothing


class Filling:
    """Tells how long to wait; not safe for use by several threads at a time.

    A device that was idle begins at once. Each wait in vain doubles the number of steps before the next one, since
    callers that wait for this step's answers before they send more look as if they would send at once.
    """

    def __init__(self, step: int, max_delay: float, clock: Callable[[], float]) -> None:
        """step: rows of a full one. max_delay: seconds that it may wait."""
        self._step, self._max_delay, self._clock = step, max_delay, clock
        # Rows admitted since the last look, and when that was: how fast they come.
        self._arrived, self._looked = 0, clock()
        # Steps that follow without a wait on one in vain, and how many of them are left.
        self._vain, self._without_wait = 1, 0

    def arrived(self, rows: int) -> None:
        """Note that rows were admitted."""
        self._arrived += rows

    def until(self, queued: int, *, idle: bool) -> float | None:
        """Until when a step of so many rows waits for more; None: it does not."""
        now = self._clock()
        arrived, elapsed = self._arrived, now - self._looked
        self._arrived, self._looked = 0, now
        missing = self._step - queued
        if idle or missing <= 0 or arrived * self._max_delay < missing * elapsed:
            return None
        if self._without_wait:
            self._without_wait -= 1
            return None
        return now + self._max_delay

    def ended(self, *, in_vain: bool) -> None:
        """Note whether a wait was in vain."""
        self._vain = min(2 * self._vain, _MOST_VAIN) if in_vain else 1
        self._without_wait = self._vain if in_vain else 0
