"""The training loop of a stage: logs steps, writes checkpoints, stops on signals, and resumes."""

import csv
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import torch

from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.errors import TrainingStopped
from foldmint_maintenance.training import checkpoint

Report = Callable[[Any, int], None]
"""Called after each step, with a NamedTuple of its figures and the number of steps of the stage."""


class Steps(checkpoint.Resumable, Protocol):
    """A trainer that reports each step."""

    def run(self, report: Callable[[Any], None]) -> None:
        """Train from the current step to the last."""
        ...


class CheckpointSettings(Protocol):
    """When to write checkpoints, and whether to resume from one."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        ...

    @property
    def resume(self) -> bool:
        """Whether to resume from a checkpoint if there is one."""
        ...

    @property
    def group(self) -> ProcessGroup:
        """The processes that train together."""
        ...


def run_steps(
    trainer: Steps,
    folder: Path,
    settings: CheckpointSettings,
    steps: int,
    report: Report,
    log_line: Callable[[str], None],
) -> dict[str, float]:
    """Train to the last step, and return its figures.

    Only rank 0 writes checkpoint and log. SIGINT or SIGTERM to any process leaves a checkpoint after the current step,
    and raises `TrainingStopped` in all. Raises `CheckpointMismatch` if the folder's checkpoint belongs to another
    training.
    """
    group = settings.group
    if settings.resume and (folder / checkpoint.NAME).exists():
        checkpoint.restore(trainer, folder)
        log_line(f"going on after step {trainer.step}")
    folder.mkdir(parents=True, exist_ok=True)
    writes = group.rank == 0
    with StepLog(folder / "log.csv", trainer.step, writes) as log, _stop_signals() as stop_requested:

        def finish_step(progress: Any) -> None:  # noqa: ANN401 (as in `Report`)
            log.write(progress)
            report(progress, steps)
            stop = bool(group.all_reduce_sum(torch.tensor(float(stop_requested()))))
            due = progress.step == steps or progress.step % settings.checkpoint_every == 0
            if writes and (due or stop):
                checkpoint.save(trainer, folder)
            if stop:
                # torchrun kills the others once one has exited: none may exit before the checkpoint is complete.
                group.barrier()
                raise TrainingStopped(f"stopped after step {progress.step}; the same command goes on from there")

        trainer.run(finish_step)
        return log.last


class StepLog:
    """A CSV file with one row per step. On resuming, rows of steps that will be repeated are dropped."""

    def __init__(self, path: Path, step: int, writes: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.last: dict[str, float] = {}
        self._path, self._step, self._writes, self._clock = path, step, writes, clock
        self._started = clock()
        self._kept: list[dict[str, str]] = []
        self._writer: csv.DictWriter[str] | None = None

    def __enter__(self) -> Self:
        if self._path.exists():
            with self._path.open(newline="", encoding="ascii") as file:
                # A row truncated by a crash lacks its last field.
                rows = [row for row in csv.DictReader(file) if row["seconds"] and int(row["step"]) <= self._step]
            self._kept = rows
        self.last = {name: float(value) for name, value in self._kept[-1].items()} if self._kept else {}
        if self._writes:
            part = self._path.with_name(self._path.name + ".part")
            self._file = part.open("w", newline="", encoding="ascii")
            if self._kept:
                self._begin(self._kept[0])
            # Complete before it replaces the old file: a crash now loses no row.
            self._file.flush()
            part.replace(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writes:
            self._file.close()

    def _begin(self, columns: Mapping[str, object]) -> "csv.DictWriter[str]":
        self._writer = csv.DictWriter(self._file, list(columns))
        self._writer.writeheader()
        self._writer.writerows(self._kept)
        return self._writer

    def write(self, progress: Any) -> None:  # noqa: ANN401
        """Add a row for a step, a NamedTuple of figures; `seconds` count from the start of this run."""
        self.last = progress._asdict() | {"seconds": round(self._clock() - self._started, 1)}
        if self._writes:
            (self._writer or self._begin(self.last)).writerow(self.last)
            self._file.flush()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function: whether SIGINT or SIGTERM has arrived. A second signal has its previous effect."""
    requested = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a handler's signature)
        nonlocal requested
        requested = True
        signal.signal(number, before[signal.Signals(number)])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup and background jobs of scripts ask for
            signal.signal(number, request)
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
