"""The queue of admitted requests: a budget of residues, cut into batches that are shared fairly among callers.

A request is short if it has no more residues than two batches hold, and long otherwise. Long requests get a quarter of
every batch, short ones the rest, and each kind whatever the other leaves. Short requests are computed whole; long ones
slice by slice, round robin over the callers and over each caller's requests. So however many long requests there are,
they delay a short one by one batch at most, and long requests make progress however many short ones arrive.

A request that finds no room in the budget may wait for it, round robin as well: small requests behind a large one do
not overtake it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from foldmint_server.inference.round_robin import RoundRobin

_LONG_PART = 4
"""Long requests get one of so many parts of a batch."""
_RECENT = 64
"""Batches over which the long requests' part is averaged: about a second of a CPU's."""


@dataclass(eq=False)
class Request:
    """Residues of one caller. dispatched: how many of them were handed to a device."""

    caller: str
    residues: int
    dispatched: int = 0

    @property
    def left(self) -> int:
        """Residues that are not dispatched yet."""
        return self.residues - self.dispatched


R = TypeVar("R", bound=Request)


class FairQueue(Generic[R]):
    """Not thread-safe. queued: residues admitted and not yet dispatched."""

    def __init__(self, batch: int, slice_: int, budget: int) -> None:
        """batch: residues of a batch. slice_: of a long request's turn while others wait. budget: limit of `queued`."""
        self.queued = 0
        self._long_share = 1.0  # of recent batches, while long requests waited
        self._batch, self._slice, self._budget = batch, slice_, budget
        self._short: RoundRobin[R] = RoundRobin()
        self._long: RoundRobin[R] = RoundRobin()
        self._waiting: RoundRobin[R] = RoundRobin()
        self._short_left, self._long_left = Counter[str](), Counter[str]()  # residues by caller

    def admit(self, request: R) -> bool:
        """Admit a request if the budget has room. A request larger than the budget is admitted alone."""
        if not self._has_room(request):
            return False
        ready = self._ready_of(request)
        ready.push(request.caller, request)
        self._add(ready, request.caller, request.residues)
        return True

    def residues_until(self, request: R) -> int:
        """Residues that are computed until the end of a request, if it is admitted now; its own included.

        Of its kind, those whose turn comes before; of the other kind, as much as its part of the batches is meanwhile.

        What arrives later comes on top, unless the request is long. Then short requests are assumed to go on taking as
        much of the batches as recently, and each long one that ends to be followed by another of its size.
        """
        if self._ready_of(request) is self._short:
            left = self._short_left
            own = left[request.caller] + request.residues
            own += sum(min(residues, own) for caller, residues in left.items() if caller != request.caller)
            return own + min(-(-own // (_LONG_PART - 1)), sum(self._long_left.values()))
        turns = {
            caller: sum(min(other.residues, request.residues) for other in others)
            for caller, others in self._long.by_caller()
        }
        own = turns.pop(request.caller, 0) + request.residues
        own += sum(min(residues, own) for residues in turns.values())
        recently = int(own / max(self._long_share, 1 / _LONG_PART))
        return max(own + min(own * (_LONG_PART - 1), sum(self._short_left.values())), recently)

    def enqueue_waiting(self, request: R) -> None:
        """Queue a request that waits for room; `admit_waiting` admits it."""
        self._waiting.push(request.caller, request)

    def admit_waiting(self) -> list[R]:
        """Admit waiting requests, in their order, while there is room; return those admitted."""
        admitted = []
        while self._waiting and self._has_room(self._waiting.peek()):
            request = self._waiting.pop()
            self.admit(request)
            admitted.append(request)
        return admitted

    def remove(self, request: R) -> None:
        """Remove what is left of a request; a no-op if nothing of it is queued."""
        ready = self._ready_of(request)
        if ready.remove(request.caller, request):
            self._add(ready, request.caller, -request.left)
        else:
            self._waiting.remove(request.caller, request)

    def clear(self) -> list[R]:
        """Remove and return all requests, waiting ones included."""
        self.queued = 0
        self._short_left.clear()
        self._long_left.clear()
        return self._short.clear() + self._long.clear() + self._waiting.clear()

    def next_batch(self, most: int) -> list[tuple[R, slice]]:
        """Dispatch the next slices, up to a batch and at most `most` residues."""
        slices: dict[R, slice] = {}
        room = size = min(self._batch, most)

        def dispatch(ready: RoundRobin[R], most: int) -> int:
            request = ready.pop()
            stop = request.dispatched + min(most, request.left)
            count = stop - request.dispatched
            slices[request] = slice(slices[request].start if request in slices else request.dispatched, stop)
            request.dispatched = stop
            self._add(ready, request.caller, -count)
            if request.left:
                (ready.push if ready is self._long else ready.push_front)(request.caller, request)
            return count

        long_waits = bool(self._long)
        reserved = -(-size // _LONG_PART) if long_waits else 0
        while self._short and room > reserved:
            room -= dispatch(self._short, room - reserved)
        left = room
        while self._long and room:
            alone = len(self._long) == 1 and not self._short
            room -= dispatch(self._long, room if alone else min(room, self._slice))
        of_long = left - room
        while self._short and room:
            room -= dispatch(self._short, room)
        if long_waits and size > room:
            self._long_share += (of_long / (size - room) - self._long_share) / _RECENT
        return list(slices.items())

    def _has_room(self, request: R) -> bool:
        return not self.queued or self.queued + request.residues <= self._budget

    def _add(self, ready: RoundRobin[R], caller: str, residues: int) -> None:
        """Count residues of a caller that are queued, or, if negative, are not any more."""
        left = self._left_of(ready)
        left[caller] += residues
        if not left[caller]:
            del left[caller]
        self.queued += residues

    def _left_of(self, ready: RoundRobin[R]) -> Counter[str]:
        return self._short_left if ready is self._short else self._long_left

    def _ready_of(self, request: R) -> RoundRobin[R]:
        return self._short if request.residues <= 2 * self._batch else self._long
