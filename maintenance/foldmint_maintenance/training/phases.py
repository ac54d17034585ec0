"""Phases of a training that have no steps: how their progress is reported."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

Advance = Callable[[int], None]
"""Called with how much more of a phase is done."""

Phase = Callable[[str, int | None], Advance]
"""Called when a phase begins, with its name and what it has to do; None if that is not known."""


def ignored(more: int) -> None:
    """Progress that nobody looks at."""


def silent(name: str, total: int | None) -> Advance:  # noqa: ARG001 (as `Phase` has it)
    """Phases that nobody looks at."""
    return ignored


def counted(items: Iterable[T], advance: Advance) -> Iterator[T]:
    """The items, each of which advances a phase."""
    for item in items:
        yield item
        advance(1)
