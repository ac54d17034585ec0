"""Trainer on whole chains: encoder, codebook and decoder jointly, or the decoder alone on a frozen codebook.

These are the two stages of the ESM3 paper (appendix A.1.7). In the joint stage the decoder reads the codes' vectors
through a linear projection, so that gradients reach the encoder; the projected codes then become the decoder's
embedding of token ids. In the decoder stage tokens are computed once, and only the decoder is trained, with its
confidence heads.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from foldmint.usage import perplexity
from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ALONE, ProcessGroup
from foldmint_maintenance.training.chain import decoder_init, losses
from foldmint_maintenance.training.chain.batches import AMINO_ACIDS, ChainBatch, ChainBatches
from foldmint_maintenance.training.config import ChainConfig
from foldmint_maintenance.training.optimization import (
    adamw,
    apply_gradients,
    backward,
    learning_rate,
    prefetch,
    restarted_learning_rate,
)
from foldmint_maintenance.training.phases import Phase, silent
from foldmint_maintenance.vq import quantizer
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.decoder import (
    BINNED_LOGITS,
    PAE_LOGITS,
    Decoder,
    Rigids,
    backbone_atoms,
)
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.vocabulary import BOS, EOS

_FIT_BATCH = 4096
_BETA2 = 0.98


class ChainProgress(NamedTuple):
    """Figures of a step: unweighted losses, 0 if unused. reach: the long-range displacement loss."""

    step: int
    loss: float
    step_loss: float
    reach: float
    distance: float
    direction: float
    binned: float
    inverse_folding: float
    confidence: float
    commitment: float
    perplexity: float
    replaced: int


class _Read(NamedTuple):
    """Input of the decoder for a batch.

    embedded: (n, length + 2, width). codebook: updated with the batch; None in the decoder stage.
    """

    embedded: Tensor
    commitment: Tensor
    codebook: Codebook | None
    replaced: int


class ChainTrainer:
    """Trains on whole chains. The batch of a step depends on seed and step number only, as in `Trainer`.

    tokens: (residues,) of the data, for the decoder stage. group: the processes that share a batch. fresh: whether to
    initialize the decoder by `decoder_init`. rows: (vocabulary,) bool, rows of the decoder's embedding that alone are
    trained; None to train all weights. among: numbers of the chains that batches are drawn from; None for all. phase:
    called when a phase without steps begins.
    """

    def __init__(
        self,
        config: ChainConfig,
        data: PreparedSet,
        encoder: Encoder,
        codebook: Codebook,
        decoder: Decoder,
        tokens: NDArray[np.int64] | None = None,
        group: ProcessGroup = ALONE,
        device: torch.device | str = "cpu",
        *,
        fresh: bool = True,
        rows: Tensor | None = None,
        among: NDArray[np.integer] | None = None,
        phase: Phase = silent,
    ) -> None:
        if (tokens is None) != (config.stage == "joint"):
            raise ValueError("the decoder stage needs the data's tokens, and the joint stage computes them")
        torch.manual_seed(config.seed)
        self.config, self.group, self.step, self._phase = config, group, 0, phase
        self.device = torch.device(device)
        self.data_digest = data.digest()
        self._initial_codebook = hashlib.sha256(codebook.embeddings.cpu().numpy().tobytes()).hexdigest()
        self.code_projection = nn.Linear(codebook.embeddings.shape[1], decoder.config.width)
        self.inverse = nn.Linear(decoder.config.width, len(AMINO_ACIDS))
        self._batches = ChainBatches(data, tokens, config.batch, config.pair_rows, config.seed, group, among)
        self._quantizer = quantizer.Quantizer(config.decay, config.dead_share, config.seed, config.estimator)
        if fresh:
            start = torch.Generator().manual_seed(config.seed)
            decoder_init.start(decoder, codebook.embeddings.cpu(), self._batches.mean_motion(), start)
        if config.stage == "joint":
            self._fit_code_projection(codebook.embeddings.cpu(), decoder.embed.weight)
        self.codebook = Codebook(*(part.to(self.device) for part in codebook))
        self.encoder, self.decoder = encoder.to(self.device), decoder.to(self.device).train()
        self.code_projection.to(self.device)
        self.inverse.to(self.device)
        self._rows = None if rows is None else rows.to(self.device)
        self._head_fitted = not (fresh and config.stage == "decoder" and decoder.config.chained)
        self.optimizer = adamw(
            self._parameters(), learning_rate=config.learning_rate, weight_decay=config.weight_decay, beta2=_BETA2
        )

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Trained modules, by their names in a checkpoint."""
        own: dict[str, nn.Module] = {"decoder": self.decoder, "inverse": self.inverse}
        joint: dict[str, nn.Module] = {"encoder": self.encoder, "lift": self.code_projection}
        return own | joint if self.config.stage == "joint" else own

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be resumed."""
        return {
            "model": asdict(self.encoder.config),
            "decoder": asdict(self.decoder.config),
            "config": asdict(self.config),
            "data": self.data_digest,
            "codebook": self._initial_codebook,
        }

    def _parameters(self) -> Iterator[nn.Parameter]:
        if self._rows is not None:
            yield cast(nn.Parameter, self.decoder.embed.weight)
            return
        for module in self.modules.values():
            yield from module.parameters()

    def run(self, report: Callable[[ChainProgress], None]) -> None:
        """Train from the current step to the last, calling `report` after each."""
        if self.step == 0 and not self._head_fitted:
            self._fit_head()
        for step, batch in prefetch(self._batch, range(self.step, self.config.steps)):
            report(self._train(step, batch.to(self.device)))

    def finish(self) -> None:
        """After a joint stage, store the projected codes as the decoder's embedding."""
        if self.config.stage == "joint":
            with torch.no_grad():
                self.decoder.embed.weight[: len(self.codebook.N)] = self.code_projection(self.codebook.embeddings)

    def _fit_code_projection(self, codes: Tensor, embedding: Tensor) -> None:
        """Fit the projection to the decoder's current embedding of the codes, by ridge regression."""
        inputs = torch.cat([codes, torch.ones(len(codes), 1)], 1).double()
        target = embedding[: len(codes)].detach().double()
        ridge = 1e-6 * inputs.square().sum() * torch.eye(inputs.shape[1], dtype=torch.float64)
        with torch.no_grad():
            solution = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ target).float()
            self.code_projection.weight.copy_(solution[:-1].T)
            self.code_projection.bias.copy_(solution[-1])

    def _fit_head(self) -> None:
        """Pretrain the output head to predict the motion to each residue from its token alone."""
        decoder, config = self.decoder, self.config
        modules = (decoder.embed, decoder.decoder_stack.norm, decoder.affine_output_projection)
        head = [parameter for module in modules for parameter in module.parameters()]
        optimizer = adamw(head, learning_rate=config.learning_rate, weight_decay=0.0, beta2=_BETA2)
        advance = self._phase("pretraining the output head", config.head_steps)
        for step in range(config.head_steps):
            ids, motions = self._batches.motions(step, _FIT_BATCH)
            tokens, truth = ids.to(self.device), Rigids(*(part.to(self.device) for part in motions))
            states = decoder.decoder_stack.norm(decoder.embed(tokens))
            guess: Rigids = decoder.affine_output_projection(states)
            rotation = (guess.rotation - truth.rotation).square().sum((-1, -2))
            translation = (guess.origin - truth.origin).square().sum(-1)
            error = ((rotation + 1e-3).sqrt() + 0.3 * (translation + 1e-3).sqrt()).sum()
            backward(optimizer, self.group.mean(error, torch.tensor(float(len(tokens)), device=self.device)))
            rate = learning_rate(step, peak=config.learning_rate, warmup=0, decay_start=0, steps=config.head_steps)
            apply_gradients(optimizer, head, learning_rate=rate, group=self.group)
            advance(1)
        self._head_fitted = True

    def _batch(self, step: int) -> ChainBatch:
        """Crops; in the frozen phase whole chains of up to a batch, because errors grow with the length."""
        config = self.config
        return self._batches.batch(
            step, config.crop if step < config.trainable_steps else max(config.crop, config.batch)
        )

    def _learning_rate(self, step: int) -> float:
        """Warm-up and cosine to zero, and again for the confidence heads."""
        config = self.config
        return restarted_learning_rate(
            step, peak=config.learning_rate, warmup=config.warmup, restart=config.trainable_steps, steps=config.steps
        )

    def _train(self, step: int, batch: ChainBatch) -> ChainProgress:
        if step >= self.config.trainable_steps:
            with torch.no_grad():
                read = self._read(step, batch)
                decoded = self._decoded(read.embedded)
            loss = self._confidence(batch, *decoded)
            parts, replaced = {"confidence": loss}, 0
        else:
            read = self._read(step, batch)
            if read.codebook is not None:
                self.codebook = read.codebook
            parts = {"commitment": read.commitment} | self._losses(step, batch, *self._decoded(read.embedded))
            weights = vars(self.config.weights) | {"step_loss": self.config.weights.step}
            loss = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
            replaced = read.replaced
        backward(self.optimizer, loss)
        if self._rows is not None and self.decoder.embed.weight.grad is not None:
            self.decoder.embed.weight.grad[~self._rows] = 0
        apply_gradients(
            self.optimizer,
            list(self._parameters()),
            learning_rate=self._learning_rate(step),
            group=self.group,
            clip=self.config.clip,
        )
        self.step = step + 1
        names = list(parts)
        values = torch.stack([loss.detach(), *(parts[n].detach() for n in names)])
        figures = dict(zip(["loss", *names], self.group.all_reduce_mean(values).tolist(), strict=True))
        unused = dict.fromkeys(ChainProgress._fields, 0.0)
        return ChainProgress(
            **unused
            | figures
            | {"step": self.step, "perplexity": perplexity(self.codebook.N.cpu().numpy()), "replaced": replaced}
        )

    def _read(self, step: int, batch: ChainBatch) -> _Read:
        ends = self.decoder.embed(torch.tensor([[BOS, EOS]], device=self.device)).expand(
            len(batch.chains.atoms), -1, -1
        )
        if batch.rows is None:
            inner, commitment, codebook, replaced = self.decoder.embed(batch.tokens), ends.new_zeros(()), None, 0
        else:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                z = self.encoder(*batch.rows)
            done = self._quantizer.quantize(z.float(), self.codebook, step, self.group)
            commitment, codebook, replaced = done.commitment, done.codebook, done.replaced
            # All residues without a frame have the same code, that of the encoder's vector for them.
            frameless, _ = nearest_code(self.encoder.without_frame().detach()[None], self.codebook.embeddings)
            vectors = self.codebook.embeddings[frameless].expand(*batch.tokens.shape, -1).clone()
            vectors[batch.chains.exists] = done.vectors
            inner = self.code_projection(vectors)
        return _Read(torch.cat([ends[:, :1], inner, ends[:, 1:]], 1), commitment, codebook, replaced)

    def _decoded(self, embedded: Tensor) -> tuple[Tensor, Rigids]:
        """Last hidden states (n, length, width) and frames (n, length) of the residues."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            states = self.decoder.states(embedded)
        whole = self.decoder.rigids(states)
        return states[:, 1:-1].float(), Rigids(whole.rotation[:, 1:-1], whole.origin[:, 1:-1])

    def _losses(self, step: int, batch: ChainBatch, states: Tensor, guess: Rigids) -> dict[str, Tensor]:
        """Losses by name, each a mean over the batch of all processes, without those of weight 0."""
        config, weights, chains, decoder = self.config, self.config.weights, batch.chains, self.decoder
        mean = self.group.mean
        global_losses = step >= config.coarse_from * config.trainable_steps
        truth, atoms = losses.frames(chains.atoms), backbone_atoms(guess)
        parts: dict[str, Tensor] = {}
        if weights.step:
            parts["step_loss"] = mean(*losses.local_motion_loss(guess, truth, chains))
        if weights.reach and global_losses:
            parts["reach"] = mean(*losses.displacement_loss(guess, truth, chains))
        if weights.distance and global_losses:
            parts["distance"] = mean(*losses.distance_loss(atoms, chains, batch.pair_rows))
        if weights.direction and global_losses:
            parts["direction"] = mean(*losses.direction_loss(atoms, chains, batch.pair_rows))
        if weights.binned:
            logits = decoder.pairwise_classification_head(states, batch.pair_rows, BINNED_LOGITS)
            parts["binned"] = mean(*losses.binned_loss(logits, chains, batch.pair_rows))
        if weights.inverse_folding:
            known = (batch.residue_types >= 0) & chains.exists
            entropy = F.cross_entropy(self.inverse(states)[known], batch.residue_types[known], reduction="sum")
            parts["inverse_folding"] = mean(entropy, known.sum().float())
        if weights.confidence and global_losses:
            parts["confidence"] = self._confidence(batch, states, guess)
        return parts

    def _confidence(self, batch: ChainBatch, states: Tensor, guess: Rigids) -> Tensor:
        """The loss of the confidence heads: predicted lDDT and predicted aligned error."""
        chains, decoder, mean = batch.chains, self.decoder, self.group.mean
        truth, atoms = losses.frames(chains.atoms), backbone_atoms(guess)
        errors = decoder.pairwise_classification_head(states, batch.pair_rows, PAE_LOGITS)
        return mean(*losses.plddt_loss(decoder.plddt_head(states), atoms, chains)) + mean(
            *losses.pae_loss(errors, guess, truth, chains, batch.pair_rows)
        )
