"""The progress of the command `foldmint`, on standard error, and its reports of what failed."""

import sys
from types import TracebackType
from typing import Self

import typer


class Reporter:
    """A progress bar while it is entered, where standard error is a terminal, and messages above it.

    total: how many there are, None if that is not known. verb, unit: what is done, and to what. shown: whether a bar is
    wanted. There is none if standard output goes to the same terminal, for both would mix.
    """

    def __init__(self, total: int | None, *, shown: bool, verb: str = "tokenizing", unit: str = "files") -> None:
        self._unit = unit
        self.failed = 0
        self._bar = None
        self._task = None
        if not shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn(verb),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            redirect_stdout=False,
        )
        self._task = self._bar.add_task("", total=total, rate="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def done(self) -> None:
        """One more is done, or failed."""
        if self._bar is None or self._task is None:
            return
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=1, rate=f"{speed:.1f} {self._unit}/s" if speed else "")

    def failure(self, source: str, reason: str) -> None:
        """Say why there is no result."""
        self.failed += 1
        message = " ".join(f"{source}: {reason}".split())
        if self._bar is None:
            typer.echo(message, err=True)
        else:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
