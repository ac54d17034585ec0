"""Hyperparameters of the stages of training. Without torch, so that they are checked before it is imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from foldmint_maintenance.vq.estimators import Estimator, check_estimator

if TYPE_CHECKING:
    from foldmint_tokenizer.motion.motion_decoder import MotionDecoderConfig

Stage = Literal["joint", "decoder"]


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters.

    steps: total. batch: residues per step. unquantized: first steps, without a codebook. settling: last steps, with a
    frozen encoder. initial_batches: batches whose vectors make the first codebook, by `initial_rounds` of k-means (0:
    a sample of them). learning_rate: peak, after `warmup` steps; then a cosine decay to zero at the encoder's last
    step. decay: of the codebook's moving averages. commitment: weight of the commitment loss. contacts_weight: weight
    of the contact loss relative to the fragment loss. dead_share: a code is dead if its N is below this share of the
    mean N. estimator: gradient through the quantization, as in `ChainConfig`. bf16: matrix products in bfloat16 (the
    codebook stays in float32). compiled: use torch.compile for the encoder.
    """

    steps: int = 3000
    batch: int = 4096
    unquantized: int = 300
    settling: int = 200
    initial_batches: int = 16
    initial_rounds: int = 10
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    decay: float = 0.99
    commitment: float = 0.25
    contacts_weight: float = 0.1
    dead_share: float = 0.1
    estimator: Estimator = "straight_through"
    bf16: bool = False
    compiled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.unquantized < self.steps - self.settling:
            raise ValueError("steps must exceed unquantized + settling, and unquantized must be positive")
        if min(self.batch, self.initial_batches) < 1 or self.learning_rate <= 0 or not 0 < self.decay < 1:
            raise ValueError("batch, initial_batches and learning_rate must be positive, and decay between 0 and 1")
        check_estimator(self.estimator)


@dataclass(frozen=True)
class MotionConfig:
    """Hyperparameters.

    steps: total. batch: residues per step. lever: lever arm (Å) that scales rotations in the loss and in the vectors.
    environment_weight: weight of the environment loss (nats) relative to the motion loss (Å). blur: noise added to the
    environment features, in their standard deviations; motion_blur: noise added to the motion beside them, Å. noisy:
    share of rows with noise on their coordinates, Gaussian, of up to `noise` Å. learning_rate: after `warmup` steps; in
    the last `cooling` steps it falls to zero by a cosine. averaging: decay of the moving average of the weights, which
    is the result. bf16: matrix products in bfloat16 until the cooling starts. compiled: use torch.compile for the
    encoder.
    """

    steps: int = 1800
    batch: int = 1024
    lever: float = 10.0
    environment_weight: float = 0.1
    blur: float = 0.25
    motion_blur: float = 0.35
    noisy: float = 0.5
    noise: float = 0.04
    learning_rate: float = 2e-3
    warmup: int = 50
    cooling: int = 500
    weight_decay: float = 0.01
    clip: float = 1.0
    averaging: float = 0.998
    bf16: bool = False
    compiled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or min(self.lever, self.learning_rate) <= 0:
            raise ValueError("steps, batch, lever and learning_rate must be positive")
        if not 0 <= self.cooling <= self.steps:
            raise ValueError("cooling must be from 0 to steps")
        if not 0 <= self.noisy <= 1 or not 0 <= self.averaging < 1:
            raise ValueError("noisy and averaging are shares, from 0 to 1")
        if min(self.environment_weight, self.blur, self.motion_blur, self.noise) < 0:
            raise ValueError("environment_weight, blur, motion_blur and noise cannot be negative")


@dataclass(frozen=True)
class MotionCodesConfig:
    """Scales of the vectors, and settings of k-means.

    lever: lever arm of rotations, Å. burial: Å per standard deviation of the direction of the environment features that
    predicts the number of neighbors; environment: the same for the other directions. Directions of scale 0 are dropped.
    residues: size of the random sample for k-means. rounds: of k-means, all but the last three on a part of the sample.
    batch: residues per step, the unit of the codes' N.
    """

    lever: float = 10.0
    burial: float = 1.5
    environment: float = 1.5
    residues: int = 600_000
    rounds: int = 16
    batch: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lever <= 0 or min(self.burial, self.environment) < 0:
            raise ValueError("lever must be positive, and burial and environment cannot be negative")
        if min(self.residues, self.rounds, self.batch) < 1:
            raise ValueError("residues, rounds and batch must be positive")


@dataclass(frozen=True)
class KMeansConfig:
    """How codes are made of vectors whose scale stays as it is; as `MotionCodesConfig` has it."""

    residues: int = 600_000
    rounds: int = 16
    batch: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        self.at(1.0)

    def at(self, lever: float) -> MotionCodesConfig:
        """The same for vectors of a lever arm, Å."""
        return MotionCodesConfig(lever, residues=self.residues, rounds=self.rounds, batch=self.batch, seed=self.seed)


@dataclass(frozen=True)
class MotionDecoderSizes:
    """Sizes of a motion decoder, as in `MotionDecoderConfig`."""

    width: int = 128
    heads: int = 4
    layers: int = 3
    corrections: bool = True

    def config(self, out: int) -> "MotionDecoderConfig":
        """The configuration for vectors of `out` dimensions."""
        from foldmint_tokenizer.motion.motion_decoder import MotionDecoderConfig

        return MotionDecoderConfig(self.width, self.heads, self.layers, out, self.corrections)


@dataclass(frozen=True)
class MotionDecoderTraining:
    """Hyperparameters.

    steps: total. batch: residues per step, in chains of equal length, cropped to `crop` residues. settling: last steps,
    the frozen phase, which trains only the confidence heads, on chains of up to `batch` residues. Without corrections,
    all steps train confidence only. residues: size of the random sample of whole chains that is used. step_weight,
    reach_weight, confidence_weight: of the losses described in `LossWeights`. learning_rate: peak, after `warmup`
    steps; then a cosine decay to zero.
    """

    steps: int = 1200
    batch: int = 1024
    crop: int = 256
    settling: int = 200
    residues: int = 400_000
    pair_rows: int = 16
    learning_rate: float = 1e-3
    warmup: int = 30
    weight_decay: float = 0.01
    clip: float = 1.0
    step_weight: float = 30.0
    reach_weight: float = 1.0
    confidence_weight: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.pair_rows, self.residues) < 1 or self.crop < 2:
            raise ValueError("steps, batch, residues and pair_rows must be positive, and crop at least 2")
        if not 0 <= self.settling < self.steps or self.learning_rate <= 0:
            raise ValueError("settling must be 0 or more, steps exceed it, and learning_rate be positive")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 disables one.

    step: motion from residue to residue. reach: long-range displacement. distance, direction, binned, inverse_folding:
    as in the ESM3 paper. confidence: of the confidence heads, before the frozen phase, so that the blocks learn what
    those need. The global losses (reach, distance, direction, confidence) start at `coarse_from`, when the local shape
    is learned. commitment: in the joint stage.
    """

    step: float = 30.0
    reach: float = 1.0
    distance: float = 0.1
    direction: float = 0.1
    binned: float = 0.0
    inverse_folding: float = 0.0
    confidence: float = 0.05
    commitment: float = 0.25


@dataclass(frozen=True)
class ChainConfig:
    """Hyperparameters.

    steps: total. batch: residues per step, in chains of equal length, cropped to `crop` residues. head_steps: steps
    that pretrain the output head on the embeddings alone (decoder stage, chained). settling: last steps, the frozen
    phase, which trains only the confidence heads, on chains of up to `batch` residues. coarse_from: start of the global
    losses, as a share of the steps before the frozen phase. pair_rows: residues per chain whose pairs with all others
    are compared. learning_rate: peak, after `warmup` steps; then a cosine decay to zero. decay, dead_share: of the
    codebook, as in `TrainConfig`. estimator: gradient through the quantization (`straight_through`, or `rotation`,
    Fifty et al. 2024, arXiv 2410.06424).
    """

    stage: Stage = "decoder"
    steps: int = 10_000
    batch: int = 1024
    crop: int = 256
    head_steps: int = 1000
    coarse_from: float = 0.4
    settling: int = 600
    pair_rows: int = 32
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    decay: float = 0.99
    dead_share: float = 0.1
    estimator: Estimator = "straight_through"
    weights: LossWeights = LossWeights()
    bf16: bool = False
    seed: int = 0

    @property
    def trainable_steps(self) -> int:
        """Steps before the frozen phase, which trains only the confidence heads."""
        return self.steps - self.settling

    def __post_init__(self) -> None:
        if self.stage not in ("joint", "decoder"):
            raise ValueError(f"stage is joint or decoder, not {self.stage!r}")
        if min(self.steps, self.batch, self.crop, self.pair_rows) < 1 or self.crop < 2:
            raise ValueError("steps, batch and pair_rows must be positive, and crop at least 2")
        if not 0 <= self.settling < self.steps:
            raise ValueError("settling must be 0 or more, and steps exceed it")
        if self.learning_rate <= 0 or not 0 < self.decay < 1 or not 0 <= self.coarse_from <= 1:
            raise ValueError("learning_rate must be positive, decay and coarse_from between 0 and 1")
        check_estimator(self.estimator)
