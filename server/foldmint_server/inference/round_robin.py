"""A round-robin queue over callers; the items of each caller are first in, first out."""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """Queued items by caller. Every operation takes constant time, but for `by_caller` and `clear`.

    A caller with many items waits as long between two turns as a caller with one.
    """

    def __init__(self) -> None:
        self._callers: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, caller: str, item: T) -> None:
        """Append an item to its caller's queue."""
        self._callers.setdefault(caller, OrderedDict())[item] = None
        self._count += 1

    def push_front(self, caller: str, item: T) -> None:
        """Put an item at the very front: the next `pop` returns it."""
        self.push(caller, item)
        self._callers[caller].move_to_end(item, last=False)
        self._callers.move_to_end(caller, last=False)

    def peek(self) -> T:
        """The next item, which stays queued. Raises KeyError if the queue is empty."""
        for items in self._callers.values():
            return next(iter(items))
        raise KeyError("the queue is empty")

    def pop(self) -> T:
        """Remove and return the next item; its caller goes to the end. Raises KeyError if the queue is empty."""
        caller, items = next(iter(self._callers.items()), ("", None))
        if items is None:
            raise KeyError("the queue is empty")
        item, _ = items.popitem(last=False)
        self._count -= 1
        if items:
            self._callers.move_to_end(caller)
        else:
            del self._callers[caller]
        return item

    def remove(self, caller: str, item: T) -> bool:
        """Remove an item. Returns whether it was queued."""
        items = self._callers.get(caller)
        if items is None or item not in items:
            return False
        del items[item]
        self._count -= 1
        if not items:
            del self._callers[caller]
        return True

    def by_caller(self) -> Iterator[tuple[str, Collection[T]]]:
        """Each caller's items, those whose turn comes first ahead of others."""
        for caller, items in self._callers.items():
            yield caller, items.keys()

    def clear(self) -> list[T]:
        """Remove and return all items."""
        everything = [item for items in self._callers.values() for item in items]
        self._callers.clear()
        self._count = 0
        return everything
