"""Progress of the commands: bars on a terminal, lines of text elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class TrainingDisplay:
    """A bar with the figures of the last step; where there is no terminal, a line every `every` steps."""

    def __init__(self, console: Console, every: int) -> None:
        self._console, self._every = console, every
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def tell(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False)

    def watch(self, step: NamedTuple, steps: int) -> None:
        """Show a step of a stage of so many; its figures are those that are not zero."""
        self._progress.start()
        told = step._asdict()
        done = told.pop("step")
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in told.items() if value)
        self._progress.update(self._task, completed=done, total=steps, description=figures)
        if not self._console.is_terminal and (done % self._every == 0 or done == steps):
            self.tell(f"step {done}/{steps}  {figures}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


@contextmanager
def counting(console: Console, *what: str) -> Iterator[list[Callable[[int], None]]]:
    """Counts that grow, each of something whose end is not known."""
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield [partial(progress.advance, progress.add_task(each, total=None)) for each in what]
