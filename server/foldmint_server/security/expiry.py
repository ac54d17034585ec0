"""When certificates and tokens expire: reported, and warned of in time."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

log = structlog.get_logger(__name__)
_SOON = 14 * 86_400.0  # seconds before an expiry in which it is warned of
_REMIND = 86_400.0


class ExpiryWarnings:
    """Reports when things of a kind expire, and warns daily within the last 14 days.

    kind: `certificate` or `token`, for the log. Things that have expired are warned of too, unless `once_expired` is
    False: a token's end may be what its operator wanted.
    """

    def __init__(
        self,
        kind: str,
        report: Callable[[str, float], object],
        clock: Callable[[], float] = time.time,
        *,
        once_expired: bool = True,
    ) -> None:
        """report: is called with a name and its expiry, in seconds since 1970."""
        self._kind, self._report, self._clock, self._once_expired = kind, report, clock, once_expired
        self._ends: dict[str, float] = {}
        self._warned: dict[str, float] = {}

    def record(self, which: str, expires: float) -> None:
        """One was read."""
        if self._ends.get(which) != expires:
            self._warned.pop(which, None)
        self._ends[which] = expires
        self._report(which, expires)
        self.check()

    def forget(self, names: Iterable[str]) -> None:
        """These are no longer there."""
        for name in names:
            self._ends.pop(name, None)
            self._warned.pop(name, None)

    def check(self) -> None:
        """Warn, unless it was done today."""
        now = self._clock()
        for which, expires in list(self._ends.items()):
            if expires <= now and not self._once_expired:
                continue
            if expires - now < _SOON and now - self._warned.get(which, -_REMIND) >= _REMIND:
                self._warned[which] = now
                when = datetime.fromtimestamp(expires).astimezone().isoformat(timespec="seconds")
                text = f"a {self._kind} has expired" if expires <= now else f"a {self._kind} expires soon"
                log.warning(text, **{self._kind: which}, expires=when, days=round((expires - now) / 86_400, 1))
