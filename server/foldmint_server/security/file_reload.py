"""What is read from files, and read again while the server runs, since tokens and certificates change."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import structlog

log = structlog.get_logger(__name__)
T = TypeVar("T")


class ReloadedFile(Generic[T]):
    """A value that was read from files; `look` reads it again, and keeps the old one if the new one cannot be used.

    It is read each time, since times of files are too coarse to tell of all changes; these files are small.
    """

    def __init__(self, what: str, read: Callable[[], T], changed: Callable[[T], object] = lambda _: None) -> None:
        """what: for the log. read: raises ValueError, whose message holds no secret, or OSError. changed: is told of
        each new value, the first too.

        Raises what `read` raises.
        """
        self._what, self._read, self._changed = what, read, changed
        self._fault = ""
        self._value = read()
        changed(self._value)

    def __call__(self) -> T:
        """The value that was read last."""
        return self._value

    def check(self) -> None:
        """Read again; what cannot be used is told once, and so is what can be again."""
        try:
            value = self._read()
        except (ValueError, OSError) as error:
            if str(error) != self._fault:
                self._fault = str(error)
                # Without the exception, which may hold what stands in a file.
                log.error(  # noqa: TRY400
                    "new files cannot be used; the old ones stay in use", what=self._what, reason=self._fault
                )
            return
        if self._fault:
            self._fault = ""
            log.info("the files can be used again", what=self._what)
        if value != self._value:
            self._value = value
            self._changed(value)
            log.info("read anew", what=self._what)


class Checked(Protocol):
    """What wants to look at something now and then."""

    def check(self) -> None:
        """Look, in a thread."""
        ...


async def check_periodically(parts: Iterable[Checked], seconds: float) -> None:
    """Look at all parts each so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        for part in parts:
            try:
                await asyncio.to_thread(part.check)
            except Exception:
                log.exception("files could not be looked at")
