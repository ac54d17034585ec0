"""Lines of the log that callers could write as fast as they can ask: the first at once, then a count now and then."""

import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import structlog

SECONDS = 10.0
"""From one line to the next of its kind."""


@dataclass
class _Held:
    since: float
    count: int = 0
    level: str = ""
    line: dict[str, Any] = field(default_factory=dict)


class LogThrottle:
    """A processor of structlog. Lines with the same event and the same value of the field `throttle` are of one kind:
    of each kind at most one line is let through in `seconds`, with the field `times` where it stands for several.

    Values must come from a small set; what a stranger sends must be no part of them.
    """

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._held: dict[tuple[str, str], _Held] = {}
        self._lock = threading.Lock()

    def __call__(self, logger: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401, ARG002
        """The line, without the field; raises structlog.DropEvent where it is only counted."""
        if (kind := line.pop("throttle", None)) is None:
            return line
        now, key = self._clock(), (str(line["event"]), str(kind))
        with self._lock:
            held = self._held.get(key)
            if held is None or now - held.since >= self._seconds:
                self._held[key] = _Held(now)
                return line if held is None or not held.count else {**line, "times": held.count + 1}
            held.count, held.level, held.line = held.count + 1, level, dict(line)
        raise structlog.DropEvent

    def flush(self, *, all_kinds: bool = False) -> None:
        """Log the counts whose time has come, or all of them."""
        due = []
        with self._lock:
            now = self._clock()
            for key, held in list(self._held.items()):
                if not all_kinds and now - held.since < self._seconds:
                    continue
                if held.count:
                    due.append(held)
                    self._held[key] = _Held(now)
                else:
                    del self._held[key]
        log = structlog.get_logger(__name__)
        for held in due:
            getattr(log, held.level)(**held.line, times=held.count)
