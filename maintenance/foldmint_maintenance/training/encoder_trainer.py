"""Trainer of an encoder and its codebook by the local objective.

It has three phases. The first trains without quantization. The second starts with a codebook made by k-means, which
moving averages update while the encoder is trained. In the last, the frozen phase, only the codebook is updated.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foldmint.usage import perplexity
from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.config import TrainConfig
from foldmint_maintenance.training.local_objective import LocalPredictor, Targets, local_loss, targets
from foldmint_maintenance.training.optimization import (
    adamw,
    apply_gradients,
    backward,
    learning_rate,
    prefetch,
)
from foldmint_maintenance.training.phases import Phase, silent
from foldmint_maintenance.vq import quantizer
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import ModelConfig

# Residues whose backbone fragments determine the principal components.
_BASIS_SAMPLE = 50_000


class Progress(NamedTuple):
    """Figures of a step: fragment RMS error (Å), mean distance of z to its code, perplexity of the moving averages."""

    step: int
    loss: float
    window_error: float
    distance: float
    perplexity: float
    replaced: int


class Batch(NamedTuple):
    """Neighborhoods, the encoder's input, and the targets predicted from them."""

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    truth: Targets


class Trainer:
    """Trains encoder, predictor and codebook.

    The batch of a step depends on seed and step number only, so that resuming is bit-exact. group: the processes that
    share a batch. phase: called when a phase without steps begins.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainConfig,
        data: PreparedSet,
        group: ProcessGroup = ALONE,
        device: torch.device | str = "cpu",
        phase: Phase = silent,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data, self.group, self._phase = config, data, group, phase
        self.device = torch.device(device)
        self.data_digest = data.digest()
        self._share = group.even_slice(config.batch)
        self.encoder = Encoder(model)
        self.predictor = LocalPredictor(model.out)
        self.codebook = Codebook(
            torch.zeros(model.codes, model.out, device=self.device),
            torch.zeros(model.codes, device=self.device),
            torch.zeros(model.codes, model.out, device=self.device),
        )
        self._quantizer = quantizer.Quantizer(config.decay, config.dead_share, config.seed, config.estimator)
        self.step = 0
        sample = np.random.default_rng(config.seed).integers(0, len(data), _BASIS_SAMPLE)
        self.predictor.fit(data.windows(sample))
        self.encoder.to(self.device)
        self.predictor.to(self.device)
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
        return {"encoder": self.encoder, "predictor": self.predictor}

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be resumed."""
        return {"model": asdict(self.encoder.config), "config": asdict(self.config), "data": self.data_digest}

    def run(self, report: Callable[[Progress], None]) -> None:
        """Train from the current step to the last, calling `report` after each."""
        for step, batch in prefetch(self._batch, range(self.step, self.config.steps)):
            report(self._train(step, batch))

    def _batch(self, step: int) -> Batch:
        random = np.random.default_rng([self.config.seed, step])
        select = random.integers(0, len(self.data), self.config.batch)[self._share]
        rows = self.data.rows(select)
        rotation, origin, offset, exists = (torch.from_numpy(part).to(self.device) for part in rows)
        truth = targets(self.data.windows(select), rows)
        return Batch((rotation, origin, offset, exists), Targets(*(part.to(self.device) for part in truth)))

    def _learning_rate(self, step: int) -> float:
        config = self.config
        return learning_rate(
            step,
            peak=config.learning_rate,
            warmup=config.warmup,
            decay_start=config.warmup,
            steps=config.steps - config.settling,
        )

    def _train(self, step: int, batch: Batch) -> Progress:
        config = self.config
        if step == config.unquantized:
            self.codebook = self._first_codebook(step)
        frozen = step >= config.steps - config.settling
        with torch.set_grad_enabled(not frozen):
            z = self._vectors(batch)
            quantized, commitment, distance, replaced = z, z.new_zeros(()), z.new_zeros(()), 0
            if step >= config.unquantized:
                done = self._quantizer.quantize(
                    z, self.codebook, step, self.group, decay=self._decay(step), reset_dead=not frozen
                )
                quantized, commitment, distance, replaced = done.vectors, done.commitment, done.distance, done.replaced
                self.codebook = done.codebook
            window, contacts = self.predictor(quantized)
            weight = config.contacts_weight if step >= config.unquantized else 0.0
            loss, error = local_loss(window, contacts, batch.truth, weight)
            loss = loss + config.commitment * commitment
        if not frozen:
            backward(self.optimizer, loss)
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            apply_gradients(
                self.optimizer, trained, learning_rate=self._learning_rate(step), group=self.group, clip=config.clip
            )
        self.step = step + 1
        # All processes have equally many rows: the mean of their means is the batch's.
        values = torch.stack([loss.detach(), error.square(), distance.detach()])
        figures = self.group.all_reduce_mean(values).tolist()
        return Progress(
            self.step, figures[0], figures[1] ** 0.5, figures[2], perplexity(self.codebook.N.cpu().numpy()), replaced
        )

    def _decay(self, step: int) -> float:
        """In the frozen phase, averages extend over the whole phase, so that codes converge to plain means."""
        since = step - (self.config.steps - self.config.settling)
        return self.config.decay if since < 0 else max(self.config.decay, 1 - 1 / (100 + since))

    def _vectors(self, batch: Batch) -> Tensor:
        """Vectors z (rows, out) of a batch, float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            z = self._encode(*batch.inputs)
        return z.float()

    def _first_codebook(self, step: int) -> Codebook:
        """Codebook from the vectors of several batches, by k-means (Lloyd) started from a random sample."""
        config = self.config
        advance, parts = self._phase("computing vectors", config.initial_batches * config.batch), []
        with torch.no_grad():
            for i in range(config.initial_batches):
                parts.append(self.group.all_gather(self._vectors(self._batch(step + i))))
                advance(config.batch)
        z = torch.cat(parts)
        advance = self._phase("k-means", max(1, config.initial_rounds) * len(z))
        made = quantizer.first_codebook(
            z, len(self.codebook.N), config.initial_rounds, config.seed, step, config.batch, advance
        )
        return Codebook(*(self.group.broadcast(part) for part in made))
