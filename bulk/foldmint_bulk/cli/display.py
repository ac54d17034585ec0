"""The progress of a bulk job on standard error: a bar on a terminal, lines elsewhere."""

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from foldmint_bulk.cli.metrics import Metrics
from foldmint_bulk.output.records import Record
from foldmint_bulk.worker import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_LINE_SECONDS = 30.0
_RATE_SECONDS = 120.0  # that the rate is of
_SHOWN = 5


class Display:
    """Shows how a run goes on, and keeps its metrics; see `driver.Observer`.

    clock: seconds. terminal: whether standard error is one.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        echo: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
    ) -> None:
        self._metrics, self._clock, self._echo = metrics, clock, echo
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._lock = threading.Lock()
        self._total = self._done = self._failed = self._own = 0
        self._failures: Counter[str] = Counter()
        self._seconds = self._device_seconds = 0.0
        self._samples: deque[tuple[float, int]] = deque()
        self._began = self._said = clock()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._metrics.close()

    def started(self, total: int, done: int) -> None:
        """Show the beginning."""
        with self._lock:
            self._total, self._done, self._began = total, done, self._clock()
            self._metrics.units(done, 0, total - done)
            if self._terminal and total > done:
                self._bar = _bar(total, done)
            else:
                self._echo(self._line())

    def progressed(self, progress: Progress) -> None:
        """Count what a worker has done."""
        with self._lock:
            now = self._clock()
            self._samples.append((now, progress.residues))
            while self._samples[0][0] < now - _RATE_SECONDS:
                self._samples.popleft()
            self._metrics.progressed(progress)
            self._show()

    def recorded(self, record: Record) -> None:
        """Count a record."""
        with self._lock:
            self._done += 1
            self._own += 1
            self._failed += bool(record.error)
            self._failures.update(record.failures)
            self._seconds += record.seconds
            self._device_seconds += record.device_seconds
            self._metrics.units(self._done - self._failed, self._failed, self._total - self._done)
            self._metrics.recorded(record, self._idle(), self._eta())
            if record.error:
                self._say(f"failed: {record.source}: {record.error}")
            self._show(last=self._done == self._total)

    def note(self, text: str) -> None:
        """Say something else."""
        with self._lock:
            self._say(text)

    def _idle(self) -> float | None:
        return 1 - self._device_seconds / self._seconds if self._seconds else None

    def _eta(self) -> float | None:
        spent = self._clock() - self._began
        return spent / self._own * (self._total - self._done) if self._own else None

    def _rate(self) -> float:
        span = self._clock() - max(self._began, self._clock() - _RATE_SECONDS)
        return sum(residues for _, residues in self._samples) / span if span > 0 else 0.0

    def _show(self, *, last: bool = False) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, figures=self._figures())
        elif last or self._clock() - self._said > _LINE_SECONDS:
            self._echo(self._line())
            self._said = self._clock()

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._echo(text)

    def _line(self) -> str:
        return f"{self._done} of {self._total} units{self._figures()}"

    def _figures(self) -> str:
        parts = []
        if rate := self._rate():
            parts.append(f"{rate:,.0f} residues/s")
        if self._done < self._total and (eta := self._eta()) is not None:
            parts.append(f"{_duration(eta)} left")
        if (idle := self._idle()) is not None:
            parts.append(f"device idle {idle:.0%}")
        parts += [f"{count} {kind}" for kind, count in self._failures.most_common(_SHOWN)]
        return "".join(f", {part}" for part in parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _bar(total: int, done: int) -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("units"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
    bar.add_task("units", total=total, completed=done, figures="")
    bar.start()
    return bar
