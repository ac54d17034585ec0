"""Values that are read from files again while the server runs, since tokens and certificates change."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import structlog

log = structlog.get_logger(__name__)
T = TypeVar("T")


class ReloadedFile(Generic[T]):
    """A value that was read from files; `check` reads it again, and keeps the old one if the new one cannot be used.

    The whole file is read each time: modification times are too coarse to show every change, and the files are small.
    """

    def __init__(self, what: str, read: Callable[[], T], changed: Callable[[T], object] = lambda _: None) -> None:
        """what: for the log. read: raises ValueError, whose message holds no secret, or OSError. changed: is called
        with each new value, including the first.

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
        """Read again. A file that cannot be used is logged once, and so is its recovery."""
        try:
            value = self._read()
        except (ValueError, OSError) as error:
            if str(error) != self._fault:
                self._fault = str(error)
                # Without the exception, which may contain parts of the file.
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
            log.info("reloaded", what=self._what)


class Checked(Protocol):
    """A value that is checked periodically."""

    def check(self) -> None:
        """Check, in a thread."""
        ...


async def check_periodically(parts: Iterable[Checked], seconds: float) -> None:
    """Check all parts every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        for part in parts:
            try:
                await asyncio.to_thread(part.check)
            except Exception:
                log.exception("the check of a file failed")
