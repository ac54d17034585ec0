"""Quantization within a training: codes, the codebook's next state, and gradients past the codes."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.vq import ema
from foldmint_tokenizer.codebook import Codebook, nearest_code

Estimator = Literal["straight_through", "rotation"]


def check_estimator(name: str) -> None:
    """Raise ValueError if there is no such estimator."""
    if name not in get_args(Estimator):
        raise ValueError(f"estimator is {' or '.join(get_args(Estimator))}, not {name!r}")


class Quantized(NamedTuple):
    """vectors: (rows, out), of the codes, through which gradients reach z. commitment: mean squared distance a
    dimension. distance: mean distance of z from its code. codebook: its state after the step. replaced: dead codes that
    were put elsewhere.
    """

    vectors: Tensor
    commitment: Tensor
    distance: Tensor
    codebook: Codebook
    replaced: int


@dataclass(frozen=True)
class Quantizer:
    """How codes are found, followed and replaced; decay, dead_share, seed: as in `TrainConfig`."""

    decay: float
    dead_share: float
    seed: int
    estimator: Estimator = "straight_through"

    def __post_init__(self) -> None:
        check_estimator(self.estimator)

    def quantize(
        self,
        z: Tensor,
        codebook: Codebook,
        step: int,
        group: ProcessGroup,
        *,
        decay: float | None = None,
        replace: bool = True,
    ) -> Quantized:
        """Codes of this process's z (rows, out), float32, and the codebook after the hits of all processes.

        decay: another than usual. replace: whether dead codes are re-initialized from the z of all processes.
        """
        held = z.detach()
        code, apart = nearest_code(held, codebook.embeddings)
        found = codebook.embeddings[code]
        rows = torch.tensor(float(len(z)), device=z.device)
        commitment = group.mean((z - found).square().mean(1).sum(), rows)
        distance = group.mean(apart.sum(), rows)
        size = len(codebook.N)
        hits, sums = ema.batch_statistics(held, code, size)
        updated = ema.ema_update(
            codebook, group.all_reduce_sum(hits), group.all_reduce_sum(sums), self.decay if decay is None else decay
        )
        mean = float(group.all_reduce_sum(rows)) / size
        dead = ema.dead_codes(updated, self.dead_share * mean)
        replaced = int(dead.sum())
        if replaced and replace:
            fresh = group.broadcast(sample_vectors(group.all_gather(held), size, self.seed, step))
            updated = ema.reset_codes(updated, dead, fresh, mean)
        vectors = past_the_code(z, found, self.estimator)
        return Quantized(vectors, commitment, distance, updated, replaced if replace else 0)


def past_the_code(z: Tensor, found: Tensor, estimator: Estimator) -> Tensor:
    """The codes' vectors `found` (rows, out), with a gradient with respect to z (rows, out).

    straight_through: as if they were z (van den Oord et al. 2017). rotation: as if z had been turned and scaled onto
    them, with the motion held fixed (Fifty et al. 2024, arXiv 2410.06424): the gradient keeps its angle to the vector.
    """
    if estimator == "straight_through":
        return z + (found - z).detach()
    held = z.detach()
    length = held.norm(dim=1, keepdim=True).clamp_min(1e-6)
    wanted = found.norm(dim=1, keepdim=True)
    here, there = held / length, found / wanted.clamp_min(1e-6)
    middle = F.normalize(here + there, dim=1)
    turned = z - 2 * (z * middle).sum(1, keepdim=True) * middle + 2 * (z * here).sum(1, keepdim=True) * there
    scaled: Tensor = turned * (wanted / length)
    return scaled


def sample_vectors(z: Tensor, size: int, seed: int, step: int) -> Tensor:
    """Vectors (size, out) of z (rows, out) at random, each at most once where there are enough."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    repeats = -(-size // len(z))
    order = torch.cat([torch.randperm(len(z), generator=generator) for _ in range(repeats)])
    return z[order[:size].to(z.device)]


def first_codebook(z: Tensor, size: int, rounds: int, seed: int, step: int, batch: int) -> Codebook:
    """Codes among z (rows, out): a sample of them, moved by `rounds` of k-means (Lloyd); none leaves the sample.

    batch: residues a step, which N counts hits of.
    """
    vectors = sample_vectors(z, size, seed, step)
    codebook = Codebook(vectors, vectors.new_zeros(size), torch.zeros_like(vectors))
    for _ in range(max(1, rounds)):
        code, _ = nearest_code(z, codebook.embeddings)
        # Without memory of earlier rounds, a moving average is a plain mean.
        means = ema.ema_update(codebook, *ema.batch_statistics(z, code, size), decay=0.0)
        codebook = means if rounds else Codebook(vectors, means.N, vectors * means.N[:, None])
    scale = batch / len(z)
    return Codebook(codebook.embeddings, codebook.N * scale, codebook.z_avg * scale)
