"""A training job: runs the stages of a recipe one after another; it can be stopped and resumed.

OUT/STAGE/training/checkpoint.safetensors   the latest checkpoint of a stage
OUT/STAGE/training/log.csv                  one row per step
OUT/decoder_stage/training/tokens.safetensors   the tokens of all residues, computed once
OUT/STAGE/model/                            the model after the stage, complete before its name appears
OUT/model/                                  the model after the last stage
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foldmint_maintenance.datasets.loading import Digest, read_set
from foldmint_maintenance.datasets.records import PreparedSet, prepared
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe
from foldmint_maintenance.training.loop import Report
from foldmint_maintenance.training.phases import Phase, counted, silent
from foldmint_maintenance.training.recipe import Recipe
from foldmint_maintenance.training.stages import SIZES, STAGES, Log, StageContext, StageState
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import Store, create_store, load_model


@dataclass(frozen=True)
class TrainJob:
    """What to train, and where.

    data: a set, of any kind that `read_set` reads. out: the job's folder, shared by all processes. model: the initial
    model; None to train from scratch. checkpoint_every: steps. resume: continue from what the folder holds of the
    stages, which is removed first otherwise. windows_residues: drawn for the codes' mean fragments.
    """

    data: Path
    out: Path
    recipe: Recipe
    model: Path | None = None
    checkpoint_every: int = 100
    resume: bool = True
    windows_residues: int = 400_000
    device: str = "cpu"
    group: ProcessGroup = field(default=ALONE, compare=False)

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1 or self.windows_residues < 1:
            raise ValueError("checkpoint_every and windows_residues must be positive")
        if not self.recipe.name:
            raise ValueError("a model needs a name")

    @property
    def finished(self) -> Path:
        """The folder of the finished model."""
        return self.out / "model"


class _Data(NamedTuple):
    prepared: PreparedSet
    about: dict[str, object]


def train(job: TrainJob, report: Report, log: Log, phase: Phase = silent) -> Model:
    """Run the stages of the recipe that are not done yet, and write the model.

    report: called after each step. log: called with lines of text. phase: called when a phase without steps begins.
    SIGINT and SIGTERM leave a checkpoint after the current step, and raise `TrainingStopped`. Raises
    `CheckpointMismatch` if the folder holds another job or a finished one, `InvalidRecipe` if a stage lacks what it
    starts from.
    """
    if job.finished.exists():
        raise CheckpointMismatch(f"{job.finished} is there already: choose another folder, or remove it")
    stages = [name for name in STAGES if getattr(job.recipe, name)]
    if not stages:
        raise InvalidRecipe("the recipe has no stage")
    state = StageState() if job.model is None else StageState.of(load_model(job.model))
    data = _read(job, log, phase)
    if not job.resume:
        if job.group.rank == 0:
            for name in STAGES:
                shutil.rmtree(job.out / name, ignore_errors=True)
        job.group.barrier()
    for name in stages:
        model = job.out / name / "model"
        if model.exists():
            _check_done(job, name, model, data)
            log(f"{name} is done")
            state = StageState.of(load_model(model))
            continue
        log(f"stage {name}")
        state = STAGES[name](_context(job, name, data, report, log, phase), state)
        if job.group.rank == 0:
            _write(job, model, state, data)
        job.group.barrier()
    if job.group.rank == 0:
        part = job.out / "model.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(job.out / stages[-1] / "model", part)
        part.rename(job.finished)
    job.group.barrier()
    return load_model(job.finished)


def _context(job: TrainJob, stage: str, data: _Data, report: Report, log: Log, phase: Phase) -> StageContext:
    return StageContext(
        recipe=job.recipe,
        data_path=job.data,
        data=data.prepared,
        folder=job.out / stage / "training",
        checkpoint_every=job.checkpoint_every,
        resume=job.resume,
        fragment_residues=job.windows_residues,
        device=job.device,
        group=job.group,
        report=report,
        log=log,
        phase=phase,
    )


def _read(job: TrainJob, log: Log, phase: Phase) -> _Data:
    log(f"reading {job.data}")
    digest = Digest()
    records = read_set(job.data, lambda path, reason: log(f"passed over {path}: {reason}"))
    data = prepared(digest.through(counted(records, phase("reading chains", None))))
    log(f"{len(data)} residues of {digest.chains} chains")
    about: dict[str, object] = {
        "name": job.data.name,
        "sha256": digest.sha256(),
        "chains": digest.chains,
        "residues": digest.residues,
        "residues_with_frame": len(data),
    }
    return _Data(data, about)


def _check_done(job: TrainJob, stage: str, model: Path, data: _Data) -> None:
    """Raise `CheckpointMismatch` if a stage's model was trained with other settings or other data."""
    about = json.loads((model / "model.json").read_text(encoding="utf-8"))["about"]
    # Through JSON, which has lists for tuples.
    recipe = json.loads(json.dumps(job.recipe.as_json()))
    begun_with = None if job.model is None else job.model.name
    different = [key for key in (stage, *SIZES.get(stage, ())) if about["recipe"].get(key) != recipe[key]]
    different += ["data"] if about["data"]["sha256"] != data.about["sha256"] else []
    different += ["model"] if about["begun_with"] != begun_with else []
    if different:
        raise CheckpointMismatch(f"{model} is of another training: {', '.join(different)} differ")


def _write(job: TrainJob, folder: Path, state: StageState, data: _Data) -> None:
    assert state.encoder is not None and state.codebook is not None  # noqa: S101, PT018 (every stage sets them)
    about: dict[str, Any] = {
        "data": data.about,
        "recipe": job.recipe.as_json(),
        "begun_with": None if job.model is None else job.model.name,
        "figures": dict(state.figures),
        "processes": job.group.size,
        "torch": torch.__version__,
    }
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    create_store(
        part,
        name=job.recipe.name,
        encoder=state.encoder,
        codebook=state.codebook,
        decoder=state.decoder,
        windows=state.windows,
        lever=state.lever,
        reading=None if job.model is None else Store(job.model).about().get("reading"),
        about=about,
    )
    part.rename(folder)
