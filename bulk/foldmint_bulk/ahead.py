"""Iterates ahead of the caller, in a thread."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class _End(NamedTuple):
    """No more items: the iteration ended, by an error or not."""

    error: BaseException | None


def ahead(items: Iterable[T], most: int) -> Generator[T]:
    """The items, of which so many are produced ahead of the caller, in a thread of their own.

    An error of the iteration is raised in its place. Closing the generator ends the iteration at its next item.
    """
    ready: queue.Queue[T | _End] = queue.Queue(most)
    stopped = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ready.put(item)
                if stopped.is_set():
                    break
        except BaseException as raised:  # noqa: BLE001 (raised where the items are wanted)
            error = raised
        ready.put(_End(error))

    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    item: T | _End | None = None
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while not isinstance(item, _End):
            item = ready.get()
        thread.join()
