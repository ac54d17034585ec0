"""A training as a job: the stages of a recipe, one after another; it may be stopped and started again.

OUT/STAGE/training/checkpoint.safetensors   the last checkpoint of a stage
OUT/STAGE/training/log.csv                  a row a step
OUT/decoder_stage/training/tokens.safetensors   the tokens of all residues, computed once
OUT/STAGE/model/                            the model after the stage, complete before its name appears
OUT/model/                                  the model after the last stage
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foldmint_maintenance.datasets.loading import Digest, read_set
from foldmint_maintenance.datasets.records import PreparedSet, prepared
from foldmint_maintenance.datasets.surroundings import surroundings
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe
from foldmint_maintenance.evaluation.evaluate import drawn_chains, windows_of_codes
from foldmint_maintenance.evaluation.fragment_metrics import WindowMeans
from foldmint_maintenance.training.chain_config import ChainConfig
from foldmint_maintenance.training.chain_trainer import ChainTrainer
from foldmint_maintenance.training.encoder_trainer import Trainer
from foldmint_maintenance.training.latents import kept_tokens, vectors_of
from foldmint_maintenance.training.loop import Watch, run_steps
from foldmint_maintenance.training.motion.codes import MotionCodesConfig, VectorSpace, motion_codebook
from foldmint_maintenance.training.motion.decoder_trainer import MotionDecoderTrainer, tracking_tokens
from foldmint_maintenance.training.motion.trainer import MotionTrainer
from foldmint_maintenance.training.projection_refit import refitted
from foldmint_maintenance.training.recipe import Recipe
from foldmint_maintenance.vq import quantizer
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder
from foldmint_tokenizer.store.model_store import Store, create_store, load_model

Tell = Callable[[str], None]

_WINDOWS = 65_536  # at a time: bounds the memory


@dataclass(frozen=True)
class TrainJob:
    """What to train, and where.

    data: a set, of any kind that `read_set` takes. out: the folder of the job; several processes must all see it.
    model: to begin with, if not from scratch. checkpoint_every: steps. resume: go on from what stages left in the
    folder; otherwise that is removed first.
    windows_residues: drawn for the codes' mean windows.
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


class _State(NamedTuple):
    """What the stages hand on; figures: of the last step."""

    encoder: Encoder | None = None
    codebook: Codebook | None = None
    windows: Tensor | None = None
    decoder: AnyDecoder | None = None
    lever: float | None = None
    figures: Mapping[str, float] = MappingProxyType({})


class _Data(NamedTuple):
    prepared: PreparedSet
    about: dict[str, object]


def train(job: TrainJob, watch: Watch, tell: Tell) -> Model:
    """Do the stages of the recipe that are not done yet, and write the model.

    watch: told of each step. tell: told what goes on otherwise. SIGINT and SIGTERM leave a checkpoint after the step
    under way, and raise TrainingStopped. Raises CheckpointMismatch where the folder holds another job or a finished
    one, InvalidRecipe where a stage lacks what it begins with.
    """
    if job.finished.exists():
        raise CheckpointMismatch(f"{job.finished} is there already: choose another folder, or remove it")
    stages = [name for name in _STAGES if getattr(job.recipe, name)]
    if not stages:
        raise InvalidRecipe("the recipe has no stage")
    state = _State() if job.model is None else _of(load_model(job.model))
    data = _read(job, tell)
    if not job.resume:
        if job.group.rank == 0:
            for name in _STAGES:
                shutil.rmtree(job.out / name, ignore_errors=True)
        job.group.barrier()
    for name in stages:
        folder = job.out / name
        if (folder / "model").exists():
            _check_done(job, name, folder / "model", data)
            tell(f"{name} is done")
            state = _of(load_model(folder / "model"))
            continue
        tell(f"stage {name}")
        state = _STAGES[name](job, folder, data, state, watch, tell)
        if job.group.rank == 0:
            _write(job, folder / "model", state, data)
        job.group.barrier()
    if job.group.rank == 0:
        part = job.out / "model.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(job.out / stages[-1] / "model", part)
        part.rename(job.finished)
    job.group.barrier()
    return load_model(job.finished)


def _read(job: TrainJob, tell: Tell) -> _Data:
    tell(f"reading {job.data}")
    digest = Digest()
    data = prepared(digest.through(read_set(job.data, lambda path, reason: tell(f"passed over {path}: {reason}"))))
    tell(f"{len(data)} residues of {digest.chains} chains")
    about: dict[str, object] = {
        "name": job.data.name,
        "sha256": digest.sha256(),
        "chains": digest.chains,
        "residues": digest.residues,
        "residues_with_frame": len(data),
    }
    return _Data(data, about)


def _check_done(job: TrainJob, stage: str, model: Path, data: _Data) -> None:
    """Raise CheckpointMismatch if the model of a stage was made with other settings or other data."""
    about = json.loads((model / "model.json").read_text(encoding="utf-8"))["about"]
    # As JSON has it: lists for tuples.
    recipe = json.loads(json.dumps(job.recipe.as_json()))
    begun_with = None if job.model is None else job.model.name
    different = [key for key in (stage, *_SIZES.get(stage, ())) if about["recipe"].get(key) != recipe[key]]
    different += ["data"] if about["data"]["sha256"] != data.about["sha256"] else []
    different += ["model"] if about["begun_with"] != begun_with else []
    if different:
        raise CheckpointMismatch(f"{model} is of another training: {', '.join(different)} differ")


def _of(model: Model) -> _State:
    if isinstance(model.decoder, Decoder):
        model.decoder.embed.weight.data = model.codebook.embedding(model.decoder)
    return _State(model.encoder, model.codebook.codebook, model.codebook.windows, model.decoder, model.lever)


def _encoder(job: TrainJob, folder: Path, data: _Data, state: _State, watch: Watch, tell: Tell) -> _State:  # noqa: ARG001
    config, sizes = job.recipe.encoder, job.recipe.sizes
    if config is None or sizes is None:
        raise InvalidRecipe("encoder: the recipe has no sizes")
    if config.batch % job.group.size:
        raise InvalidRecipe(f"encoder: a batch of {config.batch} cannot be shared by {job.group.size} processes")
    trainer = MotionTrainer(sizes, config, data.prepared, job.group, job.device)
    figures = run_steps(trainer, folder / "training", job, config.steps, watch, tell)
    # Codes that are good enough for a store; the stage `vectors` makes better ones.
    codes = MotionCodesConfig(config.lever, residues=16 * sizes.codes, rounds=2)
    return _with_codes(job, data, trainer.averaged.cpu().eval(), config.lever, codes, figures, tell)


def _vectors(job: TrainJob, folder: Path, data: _Data, state: _State, watch: Watch, tell: Tell) -> _State:  # noqa: ARG001
    config = job.recipe.vectors
    if config is None or state.encoder is None or state.lever is None:
        raise InvalidRecipe("vectors: there is no encoder of motions; give a model, or the stage encoder")
    return _with_codes(job, data, state.encoder, state.lever, config, {}, tell)


def _with_codes(
    job: TrainJob,
    data: _Data,
    encoder: Encoder,
    lever: float,
    config: MotionCodesConfig,
    figures: Mapping[str, float],
    tell: Tell,
) -> _State:
    count = min(config.residues, len(data.prepared))
    drawn = np.sort(np.random.default_rng(config.seed).choice(len(data.prepared), count, replace=False))
    tell(f"vectors of {count} residues")
    z = vectors_of(encoder, data.prepared, drawn, job.group, job.device)
    neighbors = surroundings(data.prepared).neighbors[data.prepared.shape.queries[drawn]]
    space = VectorSpace.of(z, torch.from_numpy(neighbors), lever, config)
    renewed = space.encoder(encoder)
    tell("codes")
    made = motion_codebook(space(z), encoder.config.codes, config)
    codebook = Codebook(*(job.group.broadcast(part) for part in made))
    windows = WindowMeans(encoder.config.codes)
    codes = nearest_code(space(z), codebook.embeddings)[0].numpy()
    for start in range(0, len(drawn), _WINDOWS):
        some = data.prepared.windows(drawn[start : start + _WINDOWS])
        whole = some.exists.all(1)
        windows.add(some.positions[whole], codes[start : start + _WINDOWS][whole])
    return _State(renewed, codebook, torch.from_numpy(windows.windows()), None, config.lever, figures)


def _motion_decoder(job: TrainJob, folder: Path, data: _Data, state: _State, watch: Watch, tell: Tell) -> _State:  # noqa: ARG001
    config, sizes = job.recipe.motion_decoder_stage, job.recipe.motion_decoder
    if config is None or state.encoder is None or state.codebook is None or state.lever is None:
        raise InvalidRecipe("motion_decoder_stage: there are no codes that state motions; give a model, or stages")
    if sizes is None:
        raise InvalidRecipe("motion_decoder_stage: the recipe has no motion_decoder")
    torch.manual_seed(config.seed)
    decoder = MotionDecoder(sizes.config(state.encoder.config.out))
    decoder.normalize_to(state.codebook.embeddings)
    some = prepared(drawn_chains(read_set(job.data), config.residues, config.seed))
    tell(f"tokens of {len(some)} residues")
    z = vectors_of(state.encoder, some, np.arange(len(some)), job.group, job.device)
    tokens = np.zeros(len(some.chain), np.int64)
    tokens[some.shape.queries] = nearest_code(z, state.codebook.embeddings)[0].numpy()
    tracked = tracking_tokens(some, state.codebook, state.lever, tokens, z)
    trainer = MotionDecoderTrainer(
        config, some, state.codebook, state.lever, decoder, tokens, tracked, job.group, job.device
    )
    figures = run_steps(trainer, folder / "training", job, config.steps, watch, tell)
    return state._replace(encoder=state.encoder.cpu(), decoder=decoder.cpu().eval(), figures=figures)


def _codes(job: TrainJob, folder: Path, data: _Data, state: _State, watch: Watch, tell: Tell) -> _State:  # noqa: ARG001
    config, sizes = job.recipe.codes, job.recipe.sizes
    if config is None or sizes is None:
        raise InvalidRecipe("codes: the recipe has no sizes")
    if config.batch % job.group.size:
        raise InvalidRecipe(f"codes: a batch of {config.batch} cannot be shared by {job.group.size} processes")
    trainer = Trainer(sizes, config, data.prepared, job.group, job.device)
    figures = run_steps(trainer, folder / "training", job, config.steps, watch, tell)
    # A decoder of other codes is of no use to these.
    return _measured(job, data, trainer.encoder.cpu().eval(), trainer.codebook, None, figures, tell)


def _refit(job: TrainJob, folder: Path, data: _Data, state: _State, watch: Watch, tell: Tell) -> _State:  # noqa: ARG001
    config = job.recipe.refit
    if config is None or state.encoder is None or state.codebook is None:
        raise InvalidRecipe("refit: there is no encoder to begin with; give a model, or the stage codes")
    count = min(config.residues, len(data.prepared))
    drawn = np.sort(np.random.default_rng(0).choice(len(data.prepared), count, replace=False))
    tell(f"vectors of {count} residues")
    z = vectors_of(state.encoder, data.prepared, drawn, job.group, job.device)
    windows = data.prepared.windows(drawn)
    whole = torch.from_numpy(windows.exists.all(1))
    encoder = refitted(state.encoder, z[whole], torch.from_numpy(windows.positions)[whole], config)
    tell("new codes")
    batch = job.recipe.codes.batch if job.recipe.codes else 4096
    renewed = vectors_of(encoder, data.prepared, drawn, job.group, job.device)
    made = quantizer.first_codebook(renewed, len(state.codebook.N), config.rounds, 0, 0, batch)
    codebook = Codebook(*(job.group.broadcast(part) for part in made))
    return _measured(job, data, encoder, codebook, None, {}, tell)


def _chains(stage: str) -> Callable[[TrainJob, Path, _Data, _State, Watch, Tell], _State]:
    def run(job: TrainJob, folder: Path, data: _Data, state: _State, watch: Watch, tell: Tell) -> _State:
        config: ChainConfig | None = getattr(job.recipe, stage)
        if config is None or state.encoder is None or state.codebook is None:
            raise InvalidRecipe(f"{stage}: there is no encoder to begin with; give a model, or the stage codes")
        fresh = state.decoder is None
        if fresh and job.recipe.decoder is None:
            raise InvalidRecipe(f"{stage}: the recipe has no decoder")
        torch.manual_seed(config.seed)
        decoder = state.decoder if job.recipe.decoder is None else state.decoder or Decoder(job.recipe.decoder)
        if not isinstance(decoder, Decoder):
            raise InvalidRecipe(f"{stage}: the model's decoder reads vectors, and this stage trains those of token ids")
        tokens = None
        if config.stage == "decoder":
            tell("tokens of all residues")
            path = folder / "training" / "tokens.safetensors"
            tokens = kept_tokens(path, state.encoder, state.codebook, data.prepared, job.group, job.device)
        trainer = ChainTrainer(
            config, data.prepared, state.encoder, state.codebook, decoder, tokens, job.group, job.device, fresh=fresh
        )
        figures = run_steps(trainer, folder / "training", job, config.steps, watch, tell)
        trainer.finish()
        done = decoder.cpu().eval()
        if config.stage == "joint":
            return _measured(job, data, trainer.encoder.cpu().eval(), trainer.codebook, done, figures, tell)
        return state._replace(encoder=state.encoder.cpu(), decoder=done, figures=figures)

    return run


_STAGES: dict[str, Callable[[TrainJob, Path, _Data, _State, Watch, Tell], _State]] = {
    "encoder": _encoder,
    "vectors": _vectors,
    "motion_decoder_stage": _motion_decoder,
    "codes": _codes,
    "refit": _refit,
    "joint_stage": _chains("joint_stage"),
    "decoder_stage": _chains("decoder_stage"),
}
# What else of the recipe a stage's model depends on.
_SIZES = {
    "encoder": ("sizes",),
    "motion_decoder_stage": ("motion_decoder",),
    "codes": ("sizes",),
    "joint_stage": ("decoder",),
    "decoder_stage": ("decoder",),
}


def _measured(
    job: TrainJob,
    data: _Data,
    encoder: Encoder,
    codebook: Codebook,
    decoder: AnyDecoder | None,
    figures: Mapping[str, float],
    tell: Tell,
) -> _State:
    """With the windows that the codes stand for."""
    tell("measuring what the codes stand for")
    held = Codebook(*(part.cpu() for part in codebook))
    windows = windows_of_codes(encoder, held.embeddings, data.prepared, job.windows_residues)
    return _State(encoder, held, torch.from_numpy(windows), decoder, None, figures)


def _write(job: TrainJob, folder: Path, state: _State, data: _Data) -> None:
    assert state.encoder is not None and state.codebook is not None  # noqa: S101, PT018 (every stage makes them)
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
