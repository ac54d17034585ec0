"""What waits for the devices, and whose turn it is: residues within a budget, cut into steps.

A request is short if its rows are no more than two steps', and long otherwise. Each kind has half of every step, and
what the other does not need. Short ones are computed whole, long ones slice by slice in turn; turns go round the
callers, and of each caller round its requests. So however many long ones there are, they add two steps at most to a
short one that has no others before it; and long ones go on, however many short ones come.

What finds no room in the budget may stand in line for it: in turns round the callers there too, and a large request is
not passed over by small ones behind it.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from foldmint_server.inference.round_robin import Turns


@dataclass(eq=False)
class Request:
    """Rows that one caller wants computed. taken: how many of them were handed to a device."""

    caller: str
    rows: int
    taken: int = 0

    @property
    def left(self) -> int:
        """Rows that no device was handed yet."""
        return self.rows - self.taken


R = TypeVar("R", bound=Request)


class FairQueue(Generic[R]):
    """Not safe for use by several threads at a time.

    queued: rows admitted and not yet handed to a device.
    """

    def __init__(self, step: int, slice_: int, budget: int) -> None:
        """step: rows of a step. slice_: rows of a long request's turn while others wait. budget: for `queued`."""
        self.queued = 0
        self._step, self._slice, self._budget = step, slice_, budget
        self._short: Turns[R] = Turns()
        self._long: Turns[R] = Turns()
        self._line: Turns[R] = Turns()

    def enter(self, request: R) -> bool:
        """Admit a request if there is room for it. One that is larger than the budget goes alone."""
        if not self._has_room(request):
            return False
        self.queued += request.rows
        self._turns(request).add(request.caller, request)
        return True

    def stand(self, request: R) -> None:
        """Let a request stand in line; `advance` admits it."""
        self._line.add(request.caller, request)

    def advance(self) -> list[R]:
        """Admit those in line that there is room for, whose turn it is, and return them."""
        admitted = []
        while self._line and self._has_room(self._line.first()):
            request = self._line.take()
            self.enter(request)
            admitted.append(request)
        return admitted

    def remove(self, request: R) -> None:
        """Forget what no device was handed of a request; of no effect if nothing of it waits."""
        if self._turns(request).remove(request.caller, request):
            self.queued -= request.left
        else:
            self._line.remove(request.caller, request)

    def clear(self) -> list[R]:
        """Forget all, and return them."""
        self.queued = 0
        return self._short.clear() + self._long.clear() + self._line.clear()

    def next_step(self, most: int) -> list[tuple[R, slice]]:
        """Slices of the requests whose turns it is, up to a step's size and `most`; they are handed out hereby."""
        parts: dict[R, slice] = {}
        room = size = min(self._step, most)

        def take(turns: Turns[R], most: int) -> int:
            request = turns.take()
            stop = request.taken + min(most, request.left)
            taken = stop - request.taken
            parts[request] = slice(parts[request].start if request in parts else request.taken, stop)
            request.taken = stop
            if request.left:
                (turns.add if turns is self._long else turns.put_back)(request.caller, request)
            return taken

        reserved = size - size // 2 if self._long else 0  # for long ones
        while self._short and room > reserved:
            room -= take(self._short, room - reserved)
        while self._long and room:
            alone = len(self._long) == 1 and not self._short
            room -= take(self._long, room if alone else min(room, self._slice))
        while self._short and room:
            room -= take(self._short, room)
        self.queued -= size - room
        return list(parts.items())

    def _has_room(self, request: R) -> bool:
        return not self.queued or self.queued + request.rows <= self._budget

    def _turns(self, request: R) -> Turns[R]:
        return self._short if request.rows <= 2 * self._step else self._long
