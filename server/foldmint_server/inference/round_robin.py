"""Whose turn it is: caller by caller, and of each caller's requests one after another."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Things that wait for their turns, by caller. Each operation takes the same time, however many wait.

    A caller with many things waits as long between two turns as one with a single thing: turns go round the callers.
    """

    def __init__(self) -> None:
        self._callers: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, caller: str, thing: T) -> None:
        """Let a thing wait behind its caller's others."""
        self._callers.setdefault(caller, OrderedDict())[thing] = None
        self._count += 1

    def put_back(self, caller: str, thing: T) -> None:
        """Let a thing whose turn was cut off be the next."""
        self.add(caller, thing)
        self._callers[caller].move_to_end(thing, last=False)
        self._callers.move_to_end(caller, last=False)

    def first(self) -> T:
        """The thing whose turn it is, which goes on to wait. KeyError if there is none."""
        for things in self._callers.values():
            return next(iter(things))
        raise KeyError("nothing waits")

    def take(self) -> T:
        """The thing whose turn it is, which waits no more; its caller's turn is over. KeyError if there is none."""
        caller, things = next(iter(self._callers.items()), ("", None))
        if things is None:
            raise KeyError("nothing waits")
        thing, _ = things.popitem(last=False)
        self._count -= 1
        if things:
            self._callers.move_to_end(caller)
        else:
            del self._callers[caller]
        return thing

    def remove(self, caller: str, thing: T) -> bool:
        """Forget a thing. Returns whether it was waiting."""
        things = self._callers.get(caller)
        if things is None or thing not in things:
            return False
        del things[thing]
        self._count -= 1
        if not things:
            del self._callers[caller]
        return True

    def clear(self) -> list[T]:
        """Forget all, and return them."""
        all_of_them = [thing for things in self._callers.values() for thing in things]
        self._callers.clear()
        self._count = 0
        return all_of_them
