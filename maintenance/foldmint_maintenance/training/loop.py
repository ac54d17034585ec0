"""The steps of a stage: logged, with checkpoints, stopped by signals and taken up again."""

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

Watch = Callable[[Any, int], None]
"""Told of each step, a NamedTuple of figures, and of how many steps the stage has."""


class _Steps(checkpoint.Resumable, Protocol):
    """A training that goes a step at a time, and tells each."""

    def run(self, watch: Callable[[Any], None]) -> None:
        """Train from the present step to the last."""
        ...


class Keeping(Protocol):
    """How a stage is kept: a checkpoint every so many steps, and whether to go on from one."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        ...

    @property
    def resume(self) -> bool:
        """Whether to go on from a checkpoint where there is one."""
        ...

    @property
    def group(self) -> ProcessGroup:
        """The processes that train together."""
        ...


def run_steps(
    trainer: _Steps, folder: Path, keeping: Keeping, steps: int, watch: Watch, tell: Callable[[str], None]
) -> dict[str, float]:
    """Train to the last step, and return its figures.

    Rank 0 alone writes checkpoint and log. SIGINT and SIGTERM, to whichever process, leave a checkpoint after the step
    under way, and raise TrainingStopped in all. Raises CheckpointMismatch if the folder's checkpoint is another
    training's.
    """
    group = keeping.group
    if keeping.resume and (folder / checkpoint.NAME).exists():
        checkpoint.restore(trainer, folder)
        tell(f"going on after step {trainer.step}")
    folder.mkdir(parents=True, exist_ok=True)
    writes = group.rank == 0
    with Log(folder / "log.csv", trainer.step, writes) as log, _stop_signals() as stopping:

        def each(progress: Any) -> None:  # noqa: ANN401 (as `Watch` has it)
            log.write(progress)
            watch(progress, steps)
            stop = bool(group.all_reduce_sum(torch.tensor(float(stopping()))))
            due = progress.step == steps or progress.step % keeping.checkpoint_every == 0
            if writes and (due or stop):
                checkpoint.save(trainer, folder)
            if stop:
                # torchrun ends the others as soon as one is gone: none may go before the checkpoint is whole.
                group.barrier()
                raise TrainingStopped(f"stopped after step {progress.step}; the same command goes on from there")

        trainer.run(each)
        return log.last


class Log:
    """A row a step in a CSV file; rows of steps that will be done again are dropped when a training goes on."""

    def __init__(self, path: Path, step: int, writes: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.last: dict[str, float] = {}
        self._path, self._step, self._writes, self._clock = path, step, writes, clock
        self._started = clock()
        self._kept: list[dict[str, str]] = []
        self._writer: csv.DictWriter[str] | None = None

    def __enter__(self) -> Self:
        if self._path.exists():
            with self._path.open(newline="", encoding="ascii") as file:
                # A row cut short by a crash has no last field.
                rows = [row for row in csv.DictReader(file) if row["seconds"] and int(row["step"]) <= self._step]
            self._kept = rows
        self.last = {name: float(value) for name, value in self._kept[-1].items()} if self._kept else {}
        if self._writes:
            part = self._path.with_name(self._path.name + ".part")
            self._file = part.open("w", newline="", encoding="ascii")
            if self._kept:
                self._begin(self._kept[0])
            # Whole before it takes the old one's place: a crash now costs no row.
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
        """Add a step, a NamedTuple of figures; `seconds` count from the start of this run."""
        self.last = progress._asdict() | {"seconds": round(self._clock() - self._started, 1)}
        if self._writes:
            (self._writer or self._begin(self.last)).writerow(self.last)
            self._file.flush()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second one does what it did before."""
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a handler's signature)
        nonlocal asked
        asked = True
        signal.signal(number, before[signal.Signals(number)])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup and background jobs of scripts ask for
            signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
