"""Hyperparameters of training on whole chains."""

from dataclasses import dataclass
from typing import Literal

from foldmint_maintenance.vq import quantizer

Stage = Literal["joint", "decoder"]


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
    estimator: quantizer.Estimator = "straight_through"
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
        quantizer.check_estimator(self.estimator)
