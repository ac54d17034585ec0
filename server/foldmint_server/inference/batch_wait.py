"""How long a batch waits for residues that are about to arrive, judged by the recent arrival rate."""

from collections.abc import Callable

_MOST_SKIPPED = 256  # batches without a wait; waits that time out then cost a caller next to nothing


class BatchWait:
    """Decides how long to wait; not thread-safe.

    A device that was idle starts at once. Each wait that times out doubles the number of batches before the next wait:
    callers that wait for this batch's answers before they send more would otherwise look as if they were about to send.
    """

    def __init__(self, batch: int, max_delay: float, clock: Callable[[], float]) -> None:
        """batch: residues of a full batch. max_delay: seconds that it may wait."""
        self._batch, self._max_delay, self._clock = batch, max_delay, clock
        # Residues that arrived since the last decision, and when that was.
        self._arrived, self._decided = 0, clock()
        # Batches without a wait after a wait that timed out, and how many of them are left.
        self._skip, self._skips_left = 1, 0

    def note_arrival(self, residues: int) -> None:
        """Count residues that were admitted."""
        self._arrived += residues

    def deadline(self, queued: int, *, idle: bool) -> float | None:
        """Until when a batch of so many residues waits for more, by the clock; None if it does not wait."""
        now = self._clock()
        arrived, elapsed = self._arrived, now - self._decided
        self._arrived, self._decided = 0, now
        missing = self._batch - queued
        if idle or missing <= 0 or arrived * self._max_delay < missing * elapsed:
            return None
        if self._skips_left:
            self._skips_left -= 1
            return None
        return now + self._max_delay

    def finish(self, *, timed_out: bool) -> None:
        """End a wait."""
        self._skip = min(2 * self._skip, _MOST_SKIPPED) if timed_out else 1
        self._skips_left = self._skip if timed_out else 0
