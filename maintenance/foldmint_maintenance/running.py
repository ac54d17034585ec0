"""A training as a job: its data, log, checkpoints and the model it ends with; it may be stopped and started again.

OUT/training/checkpoint.safetensors   the last checkpoint
OUT/training/log.csv                  a row a step
OUT/model/                            the finished model, complete before its name appears
"""

import csv
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from foldmint_maintenance import checkpoints
from foldmint_maintenance.corpus import PreparedSet, prepared
from foldmint_maintenance.errors import OtherTraining, TrainingStopped
from foldmint_maintenance.evaluation import windows_of_codes
from foldmint_maintenance.sources import Digest, read_set
from foldmint_maintenance.training import Progress, TrainConfig, Trainer
from foldmint_tokenizer.encoder import ModelConfig
from foldmint_tokenizer.store import Model, create_store, load_model


@dataclass(frozen=True)
class TrainJob:
    """What to train, and where.

    data: a set, of any kind that `read_set` takes. out: the folder of the job. name: of the model. checkpoint_every:
    steps. resume: go on from a checkpoint where there is one. windows_residues: drawn for the codes' mean windows.
    """

    data: Path
    out: Path
    name: str
    model: ModelConfig
    config: TrainConfig
    checkpoint_every: int = 100
    resume: bool = True
    windows_residues: int = 400_000

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1 or self.windows_residues < 1:
            raise ValueError("checkpoint_every and windows_residues must be positive")
        if not self.name:
            raise ValueError("a model needs a name")

    @property
    def training(self) -> Path:
        """The folder of checkpoint and log."""
        return self.out / "training"

    @property
    def finished(self) -> Path:
        """The folder of the finished model."""
        return self.out / "model"


def train(job: TrainJob, watch: Callable[[Progress], None], tell: Callable[[str], None]) -> Model:
    """Train, or go on training, and write the model.

    watch: told of each step. tell: told what goes on otherwise. SIGINT and SIGTERM leave a checkpoint after the step
    under way, and raise TrainingStopped. Raises OtherTraining where the folder holds another job or a finished one.
    """
    if job.finished.exists():
        raise OtherTraining(f"{job.finished} is there already: choose another folder, or remove it")
    tell(f"reading {job.data}")
    digest = Digest()
    data = prepared(digest.through(read_set(job.data, lambda path, reason: tell(f"passed over {path}: {reason}"))))
    tell(f"{len(data)} residues of {digest.chains} chains")
    trainer = Trainer(job.model, job.config, data)
    if job.resume and (job.training / checkpoints.NAME).exists():
        checkpoints.restore(trainer, job.training)
        tell(f"going on after step {trainer.step}")
    job.training.mkdir(parents=True, exist_ok=True)
    with Log(job.training / "log.csv", trainer.step) as log, _stop_signals() as stopping:

        def each(progress: Progress) -> None:
            log.write(progress)
            watch(progress)
            last = progress.step == job.config.steps
            if last or stopping() or progress.step % job.checkpoint_every == 0:
                checkpoints.save(trainer, job.training)
            if stopping():
                raise TrainingStopped(f"stopped after step {progress.step}; the same command goes on from there")

        trainer.run(each)
        figures = log.last
    tell("measuring what the codes stand for")
    return _finish(job, trainer, data, digest, figures)


def _finish(job: TrainJob, trainer: Trainer, data: PreparedSet, digest: Digest, figures: dict[str, float]) -> Model:
    windows = windows_of_codes(
        trainer.encoder, trainer.codebook.embeddings, data, job.windows_residues, job.config.seed
    )
    about: dict[str, object] = {
        "data": {
            "name": job.data.name,
            "sha256": digest.sha256(),
            "chains": digest.chains,
            "residues": digest.residues,
            "residues_with_frame": len(data),
        },
        "training": asdict(job.config),
        "figures": figures,
        "torch": torch.__version__,
    }
    part = job.out / (job.finished.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    create_store(
        part,
        name=job.name,
        encoder=trainer.encoder.eval(),
        codebook=trainer.codebook,
        windows=torch.from_numpy(windows),
        about=about,
    )
    part.rename(job.finished)
    return load_model(job.finished)


class Log:
    """A row a step in a CSV file; rows of steps that will be done again are dropped when a training goes on."""

    def __init__(self, path: Path, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.last: dict[str, float] = {}
        self._path, self._step, self._clock = path, step, clock
        self._started = clock()

    def __enter__(self) -> Self:
        kept: list[dict[str, Any]] = []
        if self._path.exists():
            with self._path.open(newline="", encoding="ascii") as file:
                # A row cut short by a crash has no last field.
                kept = [row for row in csv.DictReader(file) if row["seconds"] and int(row["step"]) <= self._step]
        self._file = self._path.open("w", newline="", encoding="ascii")
        self._writer = csv.DictWriter(self._file, [*Progress._fields, "seconds"])
        self._writer.writeheader()
        self._writer.writerows(kept)
        self.last = {name: float(value) for name, value in kept[-1].items()} if kept else {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, progress: Progress) -> None:
        """Add a step; `seconds` count from the start of this run."""
        self.last = progress._asdict() | {"seconds": round(self._clock() - self._started, 1)}
        self._writer.writerow(self.last)
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
