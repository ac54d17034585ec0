"""The progress of the command `foldmint`, on standard error, and its reports of what failed."""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import typer

_SHOWN = 10  # failures that are reported one by one
_NAMED = 5  # inputs that a summary names of each cause
_RATE_PERIOD = 30.0  # seconds that rates and the time to come are judged by


class Reporter:
    """A progress bar while it is entered, where standard error is a terminal, and messages above it.

    total: how many there are, None if that is not known. verb, unit: what is done, and to what. shown: whether a bar is
    wanted. There is none if standard output goes to the same terminal, for both would mix. failures: a file that gets
    a JSON object a line for each failure, at once; the terminal gets a summary then, and otherwise the first ten.
    quiet: the terminal gets nothing.
    """

    def __init__(
        self,
        total: int | None,
        *,
        shown: bool,
        verb: str = "tokenizing",
        unit: str = "files",
        failures: Path | None = None,
        quiet: bool = False,
    ) -> None:
        self._unit = unit
        self.failed = self.succeeded = self.residues = 0
        self.causes: dict[str, list[str]] = defaultdict(list)  # kind of error: the inputs
        self._path, self._quiet = failures, quiet
        self._log: IO[str] | None = None
        self._open = ExitStack()
        self._bar = None
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
            TextColumn("[red]{task.fields[failed]}"),
            console=Console(stderr=True),
            redirect_stdout=False,
            speed_estimate_period=_RATE_PERIOD,
        )
        self._task = self._bar.add_task("", total=total, rate="", failed="")
        self._residues_task = self._bar.add_task("", total=None, rate="", failed="", visible=False)

    def __enter__(self) -> Self:
        if self._path is not None:
            self._log = self._open.enter_context(self._path.open("w", encoding="utf-8"))
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._open.close()

    def done(self, residues: int = 0) -> None:
        """One more is done. residues: of it."""
        self.succeeded += 1
        self.residues += residues
        self._advance(residues)

    def failure(self, source: str, reason: str, error: Exception | None = None, *, counted: bool = True) -> None:
        """Say why there is no result. error: that it failed with. counted: whether it is one of the total."""
        self.failed += 1
        kind = type(error).__name__ if error is not None else "UnreadableInput"
        self.causes[kind].append(source)
        if self._log is not None:
            _log(self._log, source, kind, reason, error)
        elif self.failed <= _SHOWN:
            self.note(f"{source}: {reason}")
        elif self.failed == _SHOWN + 1:
            self.note("more failures are counted; --failures FILE lists them")
        if counted:
            self._advance(0)

    def note(self, message: str) -> None:
        """Say something on a line of its own, unless quiet."""
        message = " ".join(message.split())
        if self._quiet:
            return
        if self._bar is None:
            typer.echo(message, err=True)
        else:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def summary(self) -> list[str]:
        """A line for each cause of failures, the most frequent first: how often, its kind, and some of the inputs."""
        lines = []
        for kind, sources in sorted(self.causes.items(), key=lambda item: -len(item[1])):
            more = f" and {len(sources) - _NAMED} more" if len(sources) > _NAMED else ""
            lines.append(f"  {len(sources)} {kind}: {', '.join(sources[:_NAMED])}{more}")
        return lines

    def counts(self) -> Mapping[str, int]:
        """How often each kind of error came."""
        return {kind: len(sources) for kind, sources in self.causes.items()}

    def _advance(self, residues: int) -> None:
        if self._bar is None:
            return
        self._bar.advance(self._residues_task, residues)
        speeds = [(self._bar.tasks[0].speed, self._unit), (self._bar.tasks[1].speed, "residues")]
        rate = ", ".join(f"{speed:,.{1 if speed < 100 else 0}f} {unit}/s" for speed, unit in speeds if speed)
        failed = f"{self.failed} failed" if self.failed else ""
        self._bar.update(self._task, advance=1, rate=rate, failed=failed)


def _log(stream: IO[str], source: str, kind: str, reason: str, error: Exception | None) -> None:
    violations = getattr(error, "violations", ())
    entry: dict[str, object] = {"source": source, "kind": kind, "message": " ".join(reason.split())}
    if violations:
        entry["violations"] = [vars(violation) for violation in violations]
    stream.write(json.dumps(entry) + "\n")
    stream.flush()
