"""What the commands show: progress on a terminal, lines of text elsewhere, a table of figures."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from foldmint_maintenance import evaluation, training

_UNITS = {
    "window_rmsd_mean": "Å",
    "window_rmsd_median": "Å",
    "mutual_information_bits": "bits",
    "backbone_rmsd_median": "Å",
}


class TrainingDisplay:
    """A bar with the figures of the last step; where there is no terminal, a line every `every` steps."""

    def __init__(self, console: Console, steps: int, batch: int, every: int) -> None:
        self._console, self._steps, self._batch, self._every = console, steps, batch, every
        self._started: tuple[int, float] | None = None
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=steps)

    def tell(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False)

    def watch(self, step: training.Progress) -> None:
        """Show a step."""
        now = time.monotonic()
        if self._started is None:
            self._started = (step.step, now)
            self._progress.start()
        done, elapsed = step.step - self._started[0], now - self._started[1]
        rate = f"  {self._batch * done / elapsed:,.0f} residues/s" if done and elapsed > 0 else ""
        figures = (
            f"loss {step.loss:.3f}  window error {step.window_error:.3f} Å  perplexity {step.perplexity:.0f}{rate}"
        )
        self._progress.update(self._task, completed=step.step, description=figures)
        if not self._console.is_terminal and (step.step % self._every == 0 or step.step == self._steps):
            self.tell(f"step {step.step}/{self._steps}  {figures}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int], None]]:
    """A count that grows, of something whose end is not known."""
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count: progress.advance(task, count)


def evaluation_table(result: evaluation.Evaluation) -> Table:
    """The figures that are known, one a row."""
    table = Table(title=f"{result.model}, codebook {result.codebook_version}", show_header=False)
    for name, value in result.as_json().items():
        if name in ("model", "codebook_version", "notes") or value is None:
            continue
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        table.add_row(name.replace("_", " "), shown, _UNITS.get(name, ""))
    return table
