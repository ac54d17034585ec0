"""Progress of the commands, with the time that is left: bars on a terminal, lines of text elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

_SECONDS = 30.0  # between two lines of a phase when the output is not a terminal


class TrainingDisplay:
    """A bar with the figures of the last step, or of the phase between steps; where there is no terminal, a line every
    `every` steps, and lines of phases as of `PhaseDisplay`.
    """

    def __init__(self, console: Console, every: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._every, self._clock = console, every, clock
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._phases = PhaseDisplay(console, clock)
        self._began, self._first, self._last = 0.0, 0, 0

    def log(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False)

    def report(self, step: NamedTuple, steps: int) -> None:
        """Show a step of a stage of so many; its figures are those that are not zero."""
        self._phases.close()
        self._progress.start()
        values = step._asdict()
        done = values.pop("step")
        if done <= self._last or self._last == 0:  # a stage begins, or goes on from a checkpoint or after a phase
            self._began, self._first = self._clock(), done
        self._last = done
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items() if value)
        self._progress.update(self._task, completed=done, total=steps, description=figures)
        if not self._console.is_terminal and (done % self._every == 0 or done == steps):
            left = remaining(done - self._first, steps - done, self._clock() - self._began)
            self.log(f"step {done}/{steps}  {figures}{left and f'  {left}'}")

    def phase(self, name: str, total: int | None) -> Callable[[int], None]:
        """Begin a phase between steps, as of `PhaseDisplay`."""
        self._progress.stop()  # a terminal has one such display at a time
        self._last = 0  # the time that it takes is not that of steps
        return self._phases.phase(name, total)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._phases.close()
        self._progress.stop()


class PhaseDisplay:
    """A bar for the current phase; outside a terminal, a line every half minute and at its end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def log(self, text: str) -> None:
        """Show a line, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def phase(self, name: str, total: int | None) -> Callable[[int], None]:
        """Begin a phase, in place of the one before. Returns what is to be called with how much more of it is done."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.start()
        task = self._progress.add_task(name, total=total)
        began = shown = self._clock()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, shown
            done += more
            self._progress.advance(task, more)
            now, ended = self._clock(), total is not None and done - more < total <= done
            if self._console.is_terminal or not (now - shown >= _SECONDS or ended):
                return
            shown = now
            left = remaining(done, 0 if total is None else total - done, now - began)
            of = "" if total is None else f" of {total:,}"
            self.log(f"{name}: {done:,}{of}{left and f', {left}'}")

        return advance

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def remaining(done: int, left: int, seconds: float) -> str:
    """The time that is left, in words, at the pace of what was done in so many seconds; empty if it is not known."""
    if done <= 0 or left <= 0 or seconds <= 0:
        return ""
    whole = round(seconds / done * left)
    hours, minutes = whole // 3600, whole % 3600 // 60
    duration = f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
    return f"{duration} left"


@contextmanager
def counting(console: Console, *what: str) -> Iterator[list[Callable[[int], None]]]:
    """Counts that grow, each of something whose end is not known."""
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield [partial(progress.advance, progress.add_task(each, total=None)) for each in what]
