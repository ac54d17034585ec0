"""The decoder's rows of replaced codes, retrained while all else is frozen.

A decoder reads token ids: a code whose vector changed means something else to it until its row says so too.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.training.chain.trainer import ChainProgress, ChainTrainer
from foldmint_maintenance.training.config import ChainConfig, LossWeights
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.model import DecoderRows, Model
from foldmint_tokenizer.vocabulary import SIZE


@dataclass(frozen=True)
class RowConfig:
    """steps: of `batch` residues, in chains cut to `crop`; none leaves what `first_rows` gives. learning_rate: the
    peak; then a cosine to zero.
    """

    steps: int = 150
    batch: int = 1024
    crop: int = 256
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or self.crop < 2 or self.learning_rate <= 0:
            raise ValueError("row_steps must be 0 or more, and batch, crop and learning rate positive")


def first_rows(embedding: Tensor, replaced: Tensor, before: NDArray[np.int64], after: NDArray[np.int64]) -> Tensor:
    """The embedding (vocabulary, width) with a beginning for replaced codes (codes,) bool.

    A code's row is the mean of the rows that its residues had: before, after: (residues,), tokens of the same residues
    with the old codebook and the new. A code without residues keeps its row.
    """
    old, new = torch.from_numpy(before), torch.from_numpy(after)
    mine = replaced[new]
    hits = torch.bincount(new[mine], minlength=len(embedding)).to(embedding.dtype)
    sums = torch.zeros_like(embedding).index_add_(0, new[mine], embedding[old[mine]])
    return torch.where((hits > 0)[:, None], sums / hits.clamp_min(1)[:, None], embedding)


def finetune_rows(
    model: Model,
    data: PreparedSet,
    replaced: Tensor,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    config: RowConfig,
    group: ProcessGroup,
    device: str = "cpu",
    *,
    trained: Tensor | None = None,
    report: Callable[[ChainProgress], None] | None = None,
) -> DecoderRows:
    """Rows of the replaced codes (codes,) bool, together with those that the model's codebook had already.

    data: chains to train on; before, after: (residues,), their tokens with the old codebook and the new. trained:
    (codes,) bool, whose rows are trained; the replaced ones by default. Only chains with such a code count. Raises
    ValueError if the model has no decoder.
    """
    if not isinstance(model.decoder, Decoder):
        raise ValueError(f"the model {model.name} has no decoder that reads token ids")  # noqa: TRY004 (of a model)
    decoder = deepcopy(model.decoder)
    own = replaced if trained is None else trained
    decoder.embed.weight.data = first_rows(model.codebook.embedding(model.decoder), _of_all(replaced), before, after)
    met = own.numpy()[after]
    if config.steps and met.any():
        chains = ChainConfig(
            steps=config.steps,
            batch=config.batch,
            crop=config.crop,
            settling=0,
            coarse_from=0.0,
            learning_rate=config.learning_rate,
            warmup=min(10, config.steps),
            weight_decay=0.0,
            weights=LossWeights(confidence=0.0),
            seed=config.seed,
        )
        of_interest = np.unique(data.chain[met])
        trainer = ChainTrainer(
            *(chains, data, model.encoder, model.codebook.codebook, decoder, after, group, device),
            fresh=False,
            rows=_of_all(own),
            among=of_interest,
        )
        trainer.run(report or (lambda _: None))
    codes = own.clone()
    if model.codebook.decoder_rows is not None:
        codes[model.codebook.decoder_rows.codes] = True
    kept = torch.nonzero(codes).flatten()
    return DecoderRows(kept, decoder.embed.weight.detach().cpu()[kept].clone())


def _of_all(codes: Tensor) -> Tensor:
    """A mask of codes (codes,) as one of the whole vocabulary."""
    whole = torch.zeros(SIZE, dtype=torch.bool)
    whole[: len(codes)] = codes
    return whole
