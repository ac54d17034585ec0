"""Trainer of a motion decoder on a frozen codebook: small corrections of independent tokens, and confidence.

Steps alternate between independent tokens, on which corrections and confidence are trained, and tracking tokens, on
which only confidence is, because their motions are composed without corrections.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.chain import losses
from foldmint_maintenance.training.chain.batches import ChainBatch, ChainBatches
from foldmint_maintenance.training.config import MotionDecoderTraining
from foldmint_maintenance.training.optimization import (
    adamw,
    apply_gradients,
    backward,
    prefetch,
    restarted_learning_rate,
)
from foldmint_maintenance.training.phases import Advance, ignored
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import PAE_LOGITS, Rigids, backbone_atoms, composed
from foldmint_tokenizer.motion.assignment import Assignment, CodeTable, assign, chain_segments
from foldmint_tokenizer.motion.motion_decoder import MotionDecoder
from foldmint_tokenizer.motion.motions import MOTION, code_motions
from foldmint_tokenizer.vocabulary import BOS, EOS


class Progress(NamedTuple):
    """Figures of a step: unweighted losses. tracking: 1 for a step on tracking tokens, else 0."""

    step: int
    loss: float
    step_loss: float
    reach: float
    confidence: float
    tracking: int


class MotionDecoderTrainer:
    """Trains a motion decoder. The batch of a step depends on seed and step number only.

    data: the chains to train on. tokens, tracking_tokens: (residues,), their independent and tracking tokens.
    """

    codebook: Codebook | None = None

    def __init__(
        self,
        config: MotionDecoderTraining,
        data: PreparedSet,
        codebook: Codebook,
        lever: float,
        decoder: MotionDecoder,
        tokens: NDArray[np.int64],
        tracking_tokens: NDArray[np.int64],
        group: ProcessGroup = ALONE,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.group, self.step = config, group, 0
        self.device = torch.device(device)
        self.data_digest = data.digest()
        self._batches = [
            ChainBatches(data, own, config.batch, config.pair_rows, config.seed, group)
            for own in (tokens, tracking_tokens)
        ]
        self._embeddings = codebook.embeddings.to(self.device)
        self._motions = Rigids(*(part.to(self.device) for part in code_motions(codebook.embeddings, lever)))
        self.decoder = decoder.to(self.device).train()
        self.optimizer = adamw(
            self.decoder.parameters(),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            beta2=0.98,
        )

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Trained modules, by their names in a checkpoint."""
        return {"decoder": self.decoder}

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be resumed."""
        return {"decoder": asdict(self.decoder.config), "config": asdict(self.config), "data": self.data_digest}

    def run(self, report: Callable[[Progress], None]) -> None:
        """Train from the current step to the last, calling `report` after each."""
        for step, batch in prefetch(self._batch, range(self.step, self.config.steps)):
            report(self._train(step, batch.to(self.device)))

    def _is_frozen_phase(self, step: int) -> bool:
        return step >= self.config.steps - self.config.settling

    def _batch(self, step: int) -> ChainBatch:
        """Crops; in the frozen phase whole chains of up to a batch, because errors grow with the length."""
        config = self.config
        longest = max(config.crop, config.batch) if self._is_frozen_phase(step) else config.crop
        return self._batches[step % 2].batch(step, longest)

    def _learning_rate(self, step: int) -> float:
        """Warm-up and cosine to zero, and again for the confidence heads."""
        config = self.config
        return restarted_learning_rate(
            step,
            peak=config.learning_rate,
            warmup=config.warmup,
            restart=config.steps - config.settling,
            steps=config.steps,
        )

    def _train(self, step: int, batch: ChainBatch) -> Progress:
        config, tracking, chains = self.config, step % 2 == 1, batch.chains
        with torch.set_grad_enabled(not self._is_frozen_phase(step)):
            states, guess = self._decoded(batch.tokens, tracking)
        truth, mean = losses.frames(chains.atoms), self.group.mean
        nothing = states.new_zeros(())
        step_loss = reach = nothing
        if not tracking and self.decoder.config.corrections:
            step_loss = mean(*losses.local_motion_loss(guess, truth, chains))
            reach = mean(*losses.displacement_loss(guess, truth, chains))
        errors = self.decoder.pairwise_classification_head(states, batch.pair_rows, PAE_LOGITS)
        atoms = backbone_atoms(guess)
        confidence = mean(*losses.plddt_loss(self.decoder.plddt_head(states), atoms, chains)) + mean(
            *losses.pae_loss(errors, guess, truth, chains, batch.pair_rows)
        )
        loss = config.step_weight * step_loss + config.reach_weight * reach + config.confidence_weight * confidence
        backward(self.optimizer, loss)
        apply_gradients(
            self.optimizer,
            list(self.decoder.parameters()),
            learning_rate=self._learning_rate(step),
            group=self.group,
            clip=config.clip,
        )
        self.step = step + 1
        values = torch.stack([part.detach() for part in (loss, step_loss, reach, confidence)])
        figures = self.group.all_reduce_mean(values).tolist()
        return Progress(self.step, figures[0], figures[1], figures[2], figures[3], int(tracking))

    def _decoded(self, tokens: Tensor, tracking: bool) -> tuple[Tensor, Rigids]:
        """Last states (n, length, width) and frames (n, length) of tokens (n, length)."""
        ends = torch.tensor([[BOS, EOS]], device=self.device).expand(len(tokens), -1)
        ids = torch.cat([ends[:, :1], tokens, ends[:, 1:]], 1)
        embedded = nn.functional.embedding(ids, self.decoder.embedding(self._embeddings))
        states = self.decoder.states(embedded, assigned=tracking)[:, 1:-1]
        motions = Rigids(*(part[tokens] for part in self._motions))
        if self.decoder.config.corrections and not tracking:
            motions = self.decoder.corrected(motions, states)
        count = len(tokens)
        first = torch.eye(3, device=self.device).expand(count, 1, 3, 3)
        rotation = torch.cat([first, motions.rotation[:, :-1]], 1)
        origin = torch.cat([motions.origin.new_zeros(count, 1, 3), motions.origin[:, :-1]], 1)
        return states, composed(Rigids(rotation, origin))


def tracking_tokens(
    data: PreparedSet,
    codebook: Codebook,
    lever: float,
    tokens: NDArray[np.int64],
    z: Tensor,
    advance: Advance = ignored,
) -> NDArray[np.int64]:
    """Tracking tokens (residues,) of a set.

    tokens: (residues,), its independent tokens; z: (rows, out), vectors of the residues with a frame. advance: called
    with how many more residues are done.
    """
    table = CodeTable.of(codebook.embeddings, lever)
    environment = np.zeros((len(tokens), z.shape[1] - MOTION), np.float32)
    environment[data.shape.queries] = z[:, MOTION:].numpy()
    tracking = tokens.copy()
    starts = np.flatnonzero(np.diff(data.chain, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(data.chain)], strict=True):
        part = slice(int(start), int(stop))
        frames = data.shape.frames.part(part)
        goes_on, segments = chain_segments(frames, data.shape.residue_index[part], data.backbone[part])
        own = assign(table, Assignment.TRACKING, frames, goes_on, segments, tokens[part], environment[part])
        tracking[part] = own.codes
        advance(int(stop - start))
    return tracking
