"""Whether a structure would be computed before its caller's deadline, by what is queued and by the devices' throughput.

What would be late is better refused at once: its caller can ask another server, and the devices compute only what
somebody still waits for.
"""

from foldmint_server.errors import Overloaded
from foldmint_server.inference.fair_queue import FairQueue, R

_SHARE = 0.8
"""Of a caller's time, that its structure may take by estimate; the rest is for what the estimate misses."""


class Throughput:
    """How long devices take for a residue: an exponential average, in which full batches count most.

    Of those, a queue is made. half_life: seconds of computing after which a batch counts half. Not thread-safe.
    """

    def __init__(self, half_life: float = 5.0) -> None:
        self._half_life = half_life
        self._seconds = self._residues = 0.0  # weighted by residues

    def record(self, residues: int, seconds: float) -> None:
        """Record a batch of one device."""
        decay = 0.5 ** (seconds / self._half_life)
        self._seconds = decay * self._seconds + seconds * residues
        self._residues = decay * self._residues + residues * residues

    def seconds_for(self, residues: int, devices: int) -> float:
        """Seconds that so many devices need for residues; 0 before anything was recorded."""
        if not self._residues or not devices:
            return 0.0
        return residues * self._seconds / self._residues / devices


def check_in_time(queue: FairQueue[R], request: R, seconds_left: float, throughput: Throughput, devices: int) -> None:
    """Raise Overloaded if a request would be computed too late.

    Where nothing is queued, it never is: the estimate may be of busier times, and only computing renews it. It counts
    on callers taking turns and, for short requests, on nothing arriving later, so it is rather too short.
    """
    limit, queued = _SHARE * seconds_left, queue.queued
    if not queued:
        return
    seconds = throughput.seconds_for(queue.residues_until(request), devices)
    if seconds > limit:
        raise Overloaded(
            f"{queued} residues are queued: the answer would take about {seconds:.1f} s, and its deadline is in "
            f"{seconds_left:.1f} s",
            seconds=seconds - limit,
        )
