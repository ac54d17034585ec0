"""The stages of a recipe: each takes a model's parts as the stage before left them, and returns them improved."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.datasets.records import PreparedSet, prepared
from foldmint_maintenance.datasets.sampling import drawn_chains
from foldmint_maintenance.datasets.surroundings import surroundings
from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.errors import InvalidRecipe
from foldmint_maintenance.evaluation.encoding import windows_of_codes
from foldmint_maintenance.evaluation.fragment_metrics import WindowMeans
from foldmint_maintenance.training.chain.trainer import ChainTrainer
from foldmint_maintenance.training.config import ChainConfig, MotionCodesConfig
from foldmint_maintenance.training.encoder_trainer import Trainer
from foldmint_maintenance.training.latents import kept_tokens, vectors_of
from foldmint_maintenance.training.loop import Report, Steps, run_steps
from foldmint_maintenance.training.motion.codes import VectorSpace, motion_codebook
from foldmint_maintenance.training.motion.decoder_trainer import MotionDecoderTrainer, tracking_tokens
from foldmint_maintenance.training.motion.trainer import MotionTrainer
from foldmint_maintenance.training.motion.warm_start import WarmStart
from foldmint_maintenance.training.phases import Phase, counted, silent
from foldmint_maintenance.training.recipe import Recipe
from foldmint_maintenance.vq.quantizer import assigned
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder

Log = Callable[[str], None]

_FRAGMENTS = 65_536  # averaged at a time, which bounds memory


@dataclass(frozen=True)
class StageContext:
    """What a stage works with, besides the model's parts.

    data_path: the set's file; data: the same, prepared. folder: for checkpoint and log. checkpoint_every, resume: as in
    `TrainJob`. fragment_residues: drawn for the codes' mean fragments. report: called after each step. log: called with
    a line of text. phase: called when a phase without steps begins.
    """

    recipe: Recipe
    data_path: Path
    data: PreparedSet
    folder: Path
    checkpoint_every: int
    resume: bool
    fragment_residues: int
    device: str
    group: ProcessGroup
    report: Report
    log: Log
    phase: Phase = silent

    def vectors(self, encoder: Encoder, data: PreparedSet, select: NDArray[np.integer]) -> Tensor:
        """Vectors z (rows, out) of the rows `select` of a set, on the CPU."""
        return vectors_of(encoder, data, select, self.group, self.device, self.phase("computing vectors", len(select)))

    def run(self, trainer: Steps, steps: int) -> dict[str, float]:
        """Train to the last step, and return its figures."""
        return run_steps(trainer, self.folder, self, steps, self.report, self.log)

    def draw(self, residues: int, seed: int) -> NDArray[np.int64]:
        """Numbers of so many rows of the data at random, ascending; all if there are fewer."""
        count = min(residues, len(self.data))
        self.log(f"vectors of {count} residues")
        return np.sort(np.random.default_rng(seed).choice(len(self.data), count, replace=False))

    def check_batch(self, stage: str, batch: int) -> None:
        """Raise `InvalidRecipe` if a batch does not divide evenly among the processes."""
        if batch % self.group.size:
            raise InvalidRecipe(f"{stage}: a batch of {batch} cannot be shared by {self.group.size} processes")


class StageState(NamedTuple):
    """A model's parts between stages; figures: of the last step."""

    encoder: Encoder | None = None
    codebook: Codebook | None = None
    windows: Tensor | None = None
    decoder: AnyDecoder | None = None
    lever: float | None = None
    figures: Mapping[str, float] = MappingProxyType({})

    @classmethod
    def of(cls, model: Model) -> "StageState":
        """The parts of a model; its decoder's embedding gets the rows of its codebook's version."""
        if isinstance(model.decoder, Decoder):
            model.decoder.embed.weight.data = model.codebook.embedding(model.decoder)
        return cls(model.encoder, model.codebook.codebook, model.codebook.windows, model.decoder, model.lever)


Stage = Callable[[StageContext, StageState], StageState]


def _train_motion_encoder(context: StageContext, state: StageState) -> StageState:
    """From the initial model's encoder, if it encodes motions: lever arm and scale as configured, or the model's."""
    config, sizes = context.recipe.encoder, context.recipe.sizes
    start = None if state.encoder is None or state.lever is None else WarmStart(state.encoder, state.lever)
    asked = sizes if start is None else start.sizes(sizes)
    if config is None or asked is None:
        raise InvalidRecipe("encoder: the recipe has no sizes")
    context.check_batch("encoder", config.batch)
    context.log("from random weights" if start is None else "from the model's encoder")
    trainer = MotionTrainer(asked, config, context.data, context.group, context.device, start, context.phase)
    figures = context.run(trainer, config.steps)
    encoder = trainer.averaged.cpu().eval()
    # Good enough for a store; the stages `vectors` and `kmeans` compute better codes.
    codes = MotionCodesConfig(config.lever, residues=16 * asked.codes, rounds=2)
    drawn, z = _draw_vectors(context, encoder, codes)
    if start is not None and (sizes is None or sizes.out == start.encoder.config.out):
        before = context.vectors(start.encoder, context.data, drawn)
        space = VectorSpace.like(z, before)
    else:
        space = _configured_space(context, drawn, z, config.lever, codes)
    return _cluster(context, space.encoder(encoder), drawn, space(z), codes, figures)


def _scale_vectors(context: StageContext, state: StageState) -> StageState:
    config = context.recipe.vectors
    if config is None or state.encoder is None or state.lever is None:
        raise InvalidRecipe("vectors: there is no encoder of motions; give a model, or the stage encoder")
    drawn, z = _draw_vectors(context, state.encoder, config)
    space = _configured_space(context, drawn, z, state.lever, config)
    return _cluster(context, space.encoder(state.encoder), drawn, space(z), config, {})


def _renew_codes(context: StageContext, state: StageState) -> StageState:
    if context.recipe.kmeans is None or state.encoder is None or state.lever is None:
        raise InvalidRecipe("kmeans: there is no encoder of motions; give a model, or the stage encoder")
    config = context.recipe.kmeans.at(state.lever)
    drawn, z = _draw_vectors(context, state.encoder, config)
    return _cluster(context, state.encoder, drawn, z, config, {})


def _draw_vectors(
    context: StageContext, encoder: Encoder, config: MotionCodesConfig
) -> tuple[NDArray[np.int64], Tensor]:
    """Numbers of rows (drawn,) of the data, and their vectors (drawn, out)."""
    drawn = context.draw(config.residues, config.seed)
    return drawn, context.vectors(encoder, context.data, drawn)


def _configured_space(
    context: StageContext, drawn: NDArray[np.int64], z: Tensor, lever: float, config: MotionCodesConfig
) -> VectorSpace:
    data = context.data
    around = surroundings(data, context.phase("measuring surroundings", len(data.chain)))
    neighbors = around.neighbors[data.shape.queries[drawn]]
    return VectorSpace.of(z, torch.from_numpy(neighbors), lever, config)


def _cluster(
    context: StageContext,
    encoder: Encoder,
    drawn: NDArray[np.int64],
    z: Tensor,
    config: MotionCodesConfig,
    figures: Mapping[str, float],
) -> StageState:
    """A codebook by k-means of the encoder's vectors z (drawn, out), with the mean fragment of each code."""
    context.log("codes")
    codebook = _broadcast(motion_codebook(z, encoder.config.codes, config, context.phase), context.group)
    means = WindowMeans(encoder.config.codes)
    codes = assigned(z, codebook.embeddings, context.phase("assigning codes", len(z))).numpy()
    advance = context.phase("averaging fragments", len(drawn))
    for start in range(0, len(drawn), _FRAGMENTS):
        fragments = context.data.windows(drawn[start : start + _FRAGMENTS])
        complete = fragments.exists.all(1)
        means.add(fragments.positions[complete], codes[start : start + _FRAGMENTS][complete])
        advance(len(fragments.positions))
    return StageState(encoder, codebook, torch.from_numpy(means.windows()), None, config.lever, figures)


def _train_motion_decoder(context: StageContext, state: StageState) -> StageState:
    config, sizes = context.recipe.motion_decoder_stage, context.recipe.motion_decoder
    encoder, codebook, lever = state.encoder, state.codebook, state.lever
    if config is None or encoder is None or codebook is None or lever is None:
        raise InvalidRecipe("motion_decoder_stage: there are no codes that encode motions; give a model, or stages")
    if sizes is None:
        raise InvalidRecipe("motion_decoder_stage: the recipe has no motion_decoder")
    torch.manual_seed(config.seed)
    decoder = MotionDecoder(sizes.config(encoder.config.out))
    decoder.normalize_to(codebook.embeddings)
    records = counted(read_set(context.data_path), context.phase("reading chains", None))
    data = prepared(drawn_chains(records, config.residues, config.seed))
    context.log(f"tokens of {len(data)} residues")
    z = context.vectors(encoder, data, np.arange(len(data)))
    tokens = np.zeros(len(data.chain), np.int64)
    tokens[data.shape.queries] = assigned(z, codebook.embeddings, context.phase("assigning codes", len(z))).numpy()
    tracking = tracking_tokens(data, codebook, lever, tokens, z, context.phase("tracking tokens", len(tokens)))
    trainer = MotionDecoderTrainer(
        config, data, codebook, lever, decoder, tokens, tracking, context.group, context.device
    )
    figures = context.run(trainer, config.steps)
    return state._replace(encoder=encoder.cpu(), decoder=decoder.cpu().eval(), figures=figures)


def _train_encoder(context: StageContext, state: StageState) -> StageState:  # noqa: ARG001 (starts from scratch)
    config, sizes = context.recipe.codes, context.recipe.sizes
    if config is None or sizes is None:
        raise InvalidRecipe("codes: the recipe has no sizes")
    context.check_batch("codes", config.batch)
    trainer = Trainer(sizes, config, context.data, context.group, context.device, context.phase)
    figures = context.run(trainer, config.steps)
    # A decoder of other codes cannot read these.
    return _with_fragments(context, trainer.encoder.cpu().eval(), trainer.codebook, None, figures)


def _train_jointly(context: StageContext, state: StageState) -> StageState:
    return _train_on_chains("joint_stage", context.recipe.joint_stage, context, state)


def _train_decoder(context: StageContext, state: StageState) -> StageState:
    return _train_on_chains("decoder_stage", context.recipe.decoder_stage, context, state)


def _train_on_chains(name: str, config: ChainConfig | None, context: StageContext, state: StageState) -> StageState:
    data, group, device, phase = context.data, context.group, context.device, context.phase
    encoder, codebook = state.encoder, state.codebook
    if config is None or encoder is None or codebook is None:
        raise InvalidRecipe(f"{name}: there is no encoder to begin with; give a model, or the stage codes")
    torch.manual_seed(config.seed)
    decoder = state.decoder
    if decoder is None:
        if context.recipe.decoder is None:
            raise InvalidRecipe(f"{name}: the recipe has no decoder")
        decoder = Decoder(context.recipe.decoder)
    if not isinstance(decoder, Decoder):
        raise InvalidRecipe(f"{name}: the model's decoder reads vectors, and this stage trains those of token ids")
    tokens = None
    if config.stage == "decoder":
        context.log("tokens of all residues")
        advance = phase("computing tokens", len(data))
        tokens = kept_tokens(context.folder / "tokens.safetensors", encoder, codebook, data, group, device, advance)
    fresh = state.decoder is None
    trainer = ChainTrainer(config, data, encoder, codebook, decoder, tokens, group, device, fresh=fresh, phase=phase)
    figures = context.run(trainer, config.steps)
    trainer.finish()
    decoder = decoder.cpu().eval()
    if config.stage == "joint":
        return _with_fragments(context, trainer.encoder.cpu().eval(), trainer.codebook, decoder, figures)
    return state._replace(encoder=encoder.cpu(), decoder=decoder, figures=figures)


def _broadcast(codebook: Codebook, group: ProcessGroup) -> Codebook:
    return Codebook(*(group.broadcast(part) for part in codebook))


def _with_fragments(
    context: StageContext,
    encoder: Encoder,
    codebook: Codebook,
    decoder: AnyDecoder | None,
    figures: Mapping[str, float],
) -> StageState:
    """The parts, with the mean fragment of each code."""
    context.log("measuring what the codes stand for")
    codebook = Codebook(*(part.cpu() for part in codebook))
    residues = min(context.fragment_residues, len(context.data))
    advance = context.phase("measuring fragments", residues)
    windows = windows_of_codes(encoder, codebook.embeddings, context.data, residues, report=advance)
    return StageState(encoder, codebook, torch.from_numpy(windows), decoder, None, figures)


STAGES: dict[str, Stage] = {
    "encoder": _train_motion_encoder,
    "vectors": _scale_vectors,
    "kmeans": _renew_codes,
    "motion_decoder_stage": _train_motion_decoder,
    "codes": _train_encoder,
    "joint_stage": _train_jointly,
    "decoder_stage": _train_decoder,
}
"""By their tables in a recipe, in the order in which they run."""

SIZES = {
    "encoder": ("sizes",),
    "motion_decoder_stage": ("motion_decoder",),
    "codes": ("sizes",),
    "joint_stage": ("decoder",),
    "decoder_stage": ("decoder",),
}
"""Other tables of the recipe that a stage's result depends on."""
