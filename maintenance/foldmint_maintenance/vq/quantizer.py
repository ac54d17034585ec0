"""Vector quantization in training: nearest codes, EMA codebook updates, and gradient estimators."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.vq import ema
from foldmint_maintenance.vq.estimators import Estimator, check_estimator
from foldmint_tokenizer.codebook import Codebook, nearest_code

_ASSIGNED = 65_536  # vectors between two reports


class Quantized(NamedTuple):
    """vectors: (rows, out), of the selected codes, with a gradient to z. commitment: mean squared distance per
    dimension. distance: mean distance of z from its code. codebook: after the update. replaced: number of dead codes
    that were reset.
    """

    vectors: Tensor
    commitment: Tensor
    distance: Tensor
    codebook: Codebook
    replaced: int


@dataclass(frozen=True)
class Quantizer:
    """Quantizes with EMA updates and dead-code reset. decay, dead_share, seed: as in `TrainConfig`."""

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
        reset_dead: bool = True,
    ) -> Quantized:
        """Quantize this process's z (rows, out), float32, and update the codebook with the hits of all processes.

        decay: overrides that of the quantizer. reset_dead: whether to reset dead codes to vectors of all processes.
        """
        detached = z.detach()
        code, distances = nearest_code(detached, codebook.embeddings)
        selected = codebook.embeddings[code]
        rows = torch.tensor(float(len(z)), device=z.device)
        commitment = group.mean((z - selected).square().mean(1).sum(), rows)
        distance = group.mean(distances.sum(), rows)
        size = len(codebook.N)
        hits, sums = ema.batch_statistics(detached, code, size)
        updated = ema.ema_update(
            codebook, group.all_reduce_sum(hits), group.all_reduce_sum(sums), self.decay if decay is None else decay
        )
        mean = float(group.all_reduce_sum(rows)) / size
        dead = ema.dead_codes(updated, self.dead_share * mean)
        replaced = int(dead.sum())
        if replaced and reset_dead:
            fresh = group.broadcast(sample_vectors(group.all_gather(detached), size, self.seed, step))
            updated = ema.reset_codes(updated, dead, fresh, mean)
        vectors = attach_gradient(z, selected, self.estimator)
        return Quantized(vectors, commitment, distance, updated, replaced if reset_dead else 0)


def attach_gradient(z: Tensor, selected: Tensor, estimator: Estimator) -> Tensor:
    """The vectors `selected` (rows, out) of the codes, with a gradient with respect to z (rows, out).

    straight_through: the gradient is copied to z (van den Oord et al. 2017). rotation: z is rotated and scaled onto the
    code by a constant transformation (Fifty et al. 2024, arXiv 2410.06424), which keeps the gradient's angle to the
    vector.
    """
    if estimator == "straight_through":
        return z + (selected - z).detach()
    detached = z.detach()
    length = detached.norm(dim=1, keepdim=True).clamp_min(1e-6)
    target_length = selected.norm(dim=1, keepdim=True)
    source, target = detached / length, selected / target_length.clamp_min(1e-6)
    middle = F.normalize(source + target, dim=1)
    rotated = z - 2 * (z * middle).sum(1, keepdim=True) * middle + 2 * (z * source).sum(1, keepdim=True) * target
    scaled: Tensor = rotated * (target_length / length)
    return scaled


def sample_vectors(z: Tensor, size: int, seed: int, step: int) -> Tensor:
    """Random vectors (size, out) of z (rows, out), without replacement if there are enough."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    repeats = -(-size // len(z))
    order = torch.cat([torch.randperm(len(z), generator=generator) for _ in range(repeats)])
    return z[order[:size].to(z.device)]


def assigned(z: Tensor, embeddings: Tensor, advance: Callable[[int], None]) -> Tensor:
    """The nearest codes (rows,) int64 of vectors z (rows, out). advance: called with how many more are assigned."""
    codes = []
    for start in range(0, len(z), _ASSIGNED):
        part = z[start : start + _ASSIGNED]
        codes.append(nearest_code(part, embeddings)[0])
        advance(len(part))
    return torch.cat(codes)


def first_codebook(
    z: Tensor,
    size: int,
    rounds: int,
    seed: int,
    step: int,
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Codebook:
    """A codebook for z (rows, out): a random sample, refined by `rounds` of k-means (Lloyd).

    batch: residues per step, the unit of N. advance: called with how many more vectors are assigned; each is once in
    each round, and in one round if there are none.
    """
    vectors = sample_vectors(z, size, seed, step)
    codebook = Codebook(vectors, vectors.new_zeros(size), torch.zeros_like(vectors))
    for _ in range(max(1, rounds)):
        code = assigned(z, codebook.embeddings, advance)
        # With a decay of 0, a moving average is a plain mean.
        means = ema.ema_update(codebook, *ema.batch_statistics(z, code, size), decay=0.0)
        codebook = means if rounds else Codebook(vectors, means.N, vectors * means.N[:, None])
    scale = batch / len(z)
    return Codebook(codebook.embeddings, codebook.N * scale, codebook.z_avg * scale)
