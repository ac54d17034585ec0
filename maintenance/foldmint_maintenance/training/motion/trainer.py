"""Trainer of an encoder whose vectors hold the motion to the next residue, and the environment.

It trains without a codebook, which k-means of the final vectors makes (`codes`). Noise is added to the coordinates of
some inputs while the targets stay exact, so that codes do not encode noise.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.config import MotionConfig
from foldmint_maintenance.training.motion.objective import (
    MOTION,
    EnvironmentPredictor,
    Targets,
    TargetTable,
    environment_loss,
    motion_loss,
)
from foldmint_maintenance.training.motion.warm_start import SMALLEST, WarmStart
from foldmint_maintenance.training.optimization import (
    adamw,
    apply_gradients,
    backward,
    learning_rate,
    prefetch,
    update_average,
)
from foldmint_maintenance.training.phases import Phase, silent
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import ModelConfig


class Progress(NamedTuple):
    """Figures of a step. motion_loss: Å. angle: RMS rotation error, degrees. The rest: cross-entropies, nats."""

    step: int
    loss: float
    motion_loss: float
    angle: float
    letter: float
    neighbors: float
    above: float
    order: float


class Batch(NamedTuple):
    """Neighborhoods, the encoder's input, and their targets."""

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    truth: Targets


class MotionTrainer:
    """Trains encoder and predictor.

    Batch and noise of a step depend on seed and step number only, so that resuming is bit-exact. group: the processes
    that share a batch. start: the encoder to start from; random weights by default. averaged: the encoder with the
    moving average of its weights. phase: called when a phase without steps begins.
    """

    codebook: Codebook | None = None

    def __init__(
        self,
        model: ModelConfig,
        config: MotionConfig,
        data: PreparedSet,
        group: ProcessGroup = ALONE,
        device: torch.device | str = "cpu",
        start: WarmStart | None = None,
        phase: Phase = silent,
    ) -> None:
        if model.out < SMALLEST:
            raise ValueError(f"vectors of {model.out} numbers hold no motion and environment: {SMALLEST} do")
        torch.manual_seed(config.seed)
        self.config, self.data, self.group = config, data, group
        self.device = torch.device(device)
        self.data_digest = data.digest()
        self._share = group.even_slice(config.batch)
        self._table = TargetTable(data, phase)
        self.encoder = Encoder(model).to(self.device)
        self._start = None if start is None else start.digest
        if start is not None:
            start.load(self.encoder, config.lever)
        self.predictor = EnvironmentPredictor(model.out - MOTION, config.lever, config.blur, config.motion_blur)
        self.predictor.to(self.device)
        self.averaged = copy.deepcopy(self.encoder).requires_grad_(False)
        self.step = 0
        self.optimizer = adamw(
            [*self.encoder.parameters(), *self.predictor.parameters()],
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            beta2=0.95,
        )
        self._encode: Callable[..., Tensor] = (
            torch.compile(self.encoder, dynamic=False) if config.compiled else self.encoder
        )

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Trained modules, by their names in a checkpoint."""
        return {"encoder": self.encoder, "predictor": self.predictor, "averaged": self.averaged}

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be resumed."""
        identity = {"model": asdict(self.encoder.config), "config": asdict(self.config), "data": self.data_digest}
        return identity if self._start is None else identity | {"start": self._start}

    def run(self, report: Callable[[Progress], None]) -> None:
        """Train from the current step to the last, calling `report` after each."""
        for step, batch in prefetch(self._batch, range(self.step, self.config.steps)):
            report(self._train(step, batch))

    def _batch(self, step: int) -> Batch:
        config = self.config
        random = np.random.default_rng([config.seed, step])
        select = random.integers(0, len(self.data), config.batch)
        errors = np.where(random.random(config.batch) < config.noisy, random.random(config.batch) * config.noise, 0)
        select, errors = select[self._share], errors[self._share]
        noise = np.random.default_rng([config.seed, step, self.group.rank])
        rows = self.data.noisy_rows(select, errors, noise)
        rotation, origin, offset, exists = (torch.from_numpy(part).to(self.device) for part in rows)
        return Batch((rotation, origin, offset, exists), self._table.rows(select).to(self.device))

    def _learning_rate(self, step: int) -> float:
        config = self.config
        return learning_rate(
            step,
            peak=config.learning_rate,
            warmup=config.warmup,
            decay_start=config.steps - config.cooling,
            steps=config.steps,
        )

    def _train(self, step: int, batch: Batch) -> Progress:
        config = self.config
        half = config.bf16 and step < config.steps - config.cooling
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            z = self._encode(*batch.inputs)
        z = z.float()
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * self.group.size + self.group.rank)
        motion, square = motion_loss(z, batch.truth, config.lever)
        around, each = environment_loss(self.predictor(z, generator), batch.truth)
        moves = batch.truth.moves.sum().float()
        mean = self.group.mean(motion.sum(), moves)
        loss = mean + config.environment_weight * around
        backward(self.optimizer, loss)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        apply_gradients(
            self.optimizer, trained, learning_rate=self._learning_rate(step), group=self.group, clip=config.clip
        )
        update_average(self.averaged, self.encoder, config.averaging, step)
        self.step = step + 1
        turned = self.group.mean(square.sum(), moves)
        values = torch.cat([torch.stack([loss.detach(), mean.detach(), turned]), each])
        figures = self.group.all_reduce_mean(values).tolist()
        return Progress(self.step, figures[0], figures[1], float(np.degrees(figures[2] ** 0.5)), *figures[3:])
