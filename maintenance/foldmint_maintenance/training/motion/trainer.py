"""Training of an encoder whose vectors state motions and environments, with checkpoints that resume.

No codebook takes part: k-means of the finished vectors makes one (`motion_codes`). Some of the inputs are blurred by
small errors of the coordinates, and the motion wanted is that without them: what noise adds to a motion is not worth a
code.
"""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import cos, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.motion.objective import (
    MOTION,
    EnvironmentPredictor,
    Targets,
    TargetTable,
    environment_loss,
    motion_loss,
)
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder, ModelConfig


@dataclass(frozen=True)
class MotionConfig:
    """How to train.

    steps: in all. batch: residues a step. lever: Å, that rotations are multiplied with in the loss and in the vectors.
    environment_weight: of the environment's loss, nats, against the motion's, Å. blur: noise that the environment
    passes, in standard deviations; motion_blur: noise on the motion that goes with it, Å. noisy: share of the rows
    whose coordinates are moved, by normal errors of up to `noise` Å. learning_rate: after a warm-up of `warmup` steps;
    in the last `cooling` steps it falls to zero, by a cosine. averaging: decay of the moving average of the weights,
    which is the result. bf16: products in bfloat16 until the cooling begins. compiled: run the encoder through
    torch.compile.
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


class Progress(NamedTuple):
    """What a step tells. motion_loss: Å. angle: RMS error of rotations, degrees. The rest: cross-entropies, nats."""

    step: int
    loss: float
    motion_loss: float
    angle: float
    letter: float
    neighbors: float
    above: float
    order: float


class Batch(NamedTuple):
    """Rows for the encoder and what they should state."""

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    truth: Targets


class MotionTrainer:
    """Encoder, predictor and optimizer, a step at a time. Batch and noise of a step depend on seed and step number
    alone, so that a resumed training does what an unbroken one does. group: the processes that share a batch.
    averaged: the encoder with the moving average of its weights.
    """

    codebook: Codebook | None = None

    def __init__(
        self,
        model: ModelConfig,
        config: MotionConfig,
        data: PreparedSet,
        group: ProcessGroup = ALONE,
        device: torch.device | str = "cpu",
    ) -> None:
        if model.out <= MOTION + 1:
            raise ValueError(f"vectors of {model.out} numbers hold no motion and environment: {MOTION + 2} do")
        torch.manual_seed(config.seed)
        self.config, self.data, self.group = config, data, group
        self.device = torch.device(device)
        self.data_digest = data.digest()
        self._share = group.even_slice(config.batch)
        self._table = TargetTable(data)
        self.encoder = Encoder(model).to(self.device)
        self.predictor = EnvironmentPredictor(model.out - MOTION, config.lever, config.blur, config.motion_blur)
        self.predictor.to(self.device)
        self.averaged = copy.deepcopy(self.encoder).requires_grad_(False)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self._parameters(matrices=True)), "weight_decay": config.weight_decay},
                {"params": list(self._parameters(matrices=False)), "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            lr=config.learning_rate,
        )
        self._encode: Callable[..., Tensor] = (
            torch.compile(self.encoder, dynamic=False) if config.compiled else self.encoder
        )

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the names that a checkpoint gives it."""
        return {"encoder": self.encoder, "predictor": self.predictor, "averaged": self.averaged}

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with this training."""
        return {"model": asdict(self.encoder.config), "config": asdict(self.config), "data": self.data_digest}

    def _parameters(self, matrices: bool) -> Iterator[nn.Parameter]:
        for module in (self.encoder, self.predictor):
            for parameter in module.parameters():
                if (parameter.ndim > 1) == matrices:
                    yield parameter

    def run(self, watch: Callable[[Progress], None]) -> None:
        """Train from the present step to the last, telling each step to `watch`."""
        steps = range(self.step, self.config.steps)
        if not steps:
            return
        with ThreadPoolExecutor(1, "batches") as pool:
            following = pool.submit(self._batch, steps.start)
            for step in steps:
                batch = following.result()
                following = pool.submit(self._batch, step + 1)
                watch(self._train(step, batch))

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

    def _rate(self, step: int) -> float:
        config = self.config
        if step < config.warmup:
            return config.learning_rate * (step + 1) / config.warmup
        cooled = max(0, step - (config.steps - config.cooling)) / max(1, config.cooling)
        return config.learning_rate * 0.5 * (1 + cos(pi * cooled))

    def _train(self, step: int, batch: Batch) -> Progress:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        coarse = config.bf16 and step < config.steps - config.cooling
        with torch.autocast(self.device.type, torch.bfloat16, enabled=coarse):
            z = self._encode(*batch.inputs)
        z = z.float()
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * self.group.size + self.group.rank)
        motion, square = motion_loss(z, batch.truth, config.lever)
        around, each = environment_loss(self.predictor(z, generator), batch.truth)
        moves = batch.truth.moves.sum().float()
        mean = self.group.mean(motion.sum(), moves)
        loss = mean + config.environment_weight * around
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        everything = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.group.average_gradients(everything)
        nn.utils.clip_grad_norm_(everything, config.clip)
        self.optimizer.step()
        self._average(step)
        self.step = step + 1
        turned = self.group.mean(square.sum(), moves)
        told = torch.cat([torch.stack([loss.detach(), mean.detach(), turned]), each])
        figures = (self.group.all_reduce_sum(told) / self.group.size).tolist()
        return Progress(self.step, figures[0], figures[1], float(np.degrees(figures[2] ** 0.5)), *figures[3:])

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # A young average follows faster: the first weights are not worth remembering.
        rest = 1 - min(self.config.averaging, (1 + step) / (10 + step))
        for mean, now in zip(self.averaged.parameters(), self.encoder.parameters(), strict=True):
            mean.lerp_(now, rest)
