"""Dead codes put to use again: found, moved to where vectors are, and settled; pure functions on one encoder's vectors.

Every process holds all vectors and takes a share of each sum; what is drawn at random is drawn by rank 0 and sent to
the others. So all end with the same bits, and with what one process has, but for the order of sums.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.vq import ema, quantizer
from foldmint_tokenizer.codebook import Codebook, nearest_code

Strategy = Literal["batch", "kmeans++"]
Measure = Literal["count", "frequency"]
Watch = Callable[[int], None]
"""Told how much more is done."""

PUBLISHED_STEP = 2**18
"""Residues a step of the published codebook, whose N are hits a step."""


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError if a setting is none of its choices, a Literal."""
    if value not in get_args(choices):
        raise ValueError(f"{name} is {' or '.join(get_args(choices))}, not {value!r}")


class DeadCodes(NamedTuple):
    """What was measured of each code (codes,), and which are dead (codes,) bool. exposure: residues seen a code."""

    values: Tensor
    dead: Tensor
    exposure: float


def find_dead_codes(counts: Tensor, step: float, exposure: float, threshold: float, measure: Measure) -> DeadCodes:
    """Which codes are dead.

    counts: (codes,), hits of any kind, moving averages or sums. step: residues that a count is told for: N is hits in
    so many residues. measure: whether the threshold is for N, or for the share of all hits. exposure: residues seen, a
    code; dead means little where it is small.
    """
    check_choice("measure", measure, Measure)
    share = counts.double() / counts.double().sum().clamp_min(torch.finfo(torch.float64).tiny)
    values = share if measure == "frequency" else share * step
    return DeadCodes(values, values < threshold, exposure)


def _unwatched(done: int) -> None:
    """Whoever does not want to know how much is done."""


def sample_vectors(
    z: Tensor, live: Tensor, count: int, strategy: Strategy, seed: int, watch: Watch = _unwatched
) -> Tensor:
    """Vectors (count, out) for dead codes, among z (rows, out).

    batch: uniformly, each at most once where there are enough; as the published training does. kmeans++: one after
    another, each with a chance in proportion to its squared distance from the nearest of the live codes (codes, out)
    and of those drawn before (Arthur & Vassilvitskii 2007).
    """
    check_choice("strategy", strategy, Strategy)
    if strategy == "batch":
        return quantizer.sample_vectors(z, count, seed, 0)
    generator = torch.Generator(z.device).manual_seed(seed)
    error = nearest_code(z, live)[1].square() if len(live) else z.new_ones(len(z))
    square = z.square().sum(1)
    chosen = []
    for _ in range(count):
        cumulated = error.double().cumsum(0)
        # Where all is met exactly, any is as good as another.
        at = torch.rand((), generator=generator, dtype=torch.float64, device=z.device) * cumulated[-1]
        place = int(torch.searchsorted(cumulated, at, right=True).clamp_max(len(z) - 1))
        chosen.append(z[place])
        watch(1)
        apart = torch.addmv(square + square[place], z, z[place], alpha=-2).clamp_min(0)
        error = torch.minimum(error, apart)
    return torch.stack(chosen)


def all_reduce_statistics(z: Tensor, codebook: Codebook, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Hits (codes,) and sums (codes, out) of z (rows, out), each process counting its share."""
    own = z[group.slice_of(len(z))]
    hits, sums = ema.batch_statistics(own, nearest_code(own, codebook.embeddings)[0], len(codebook.N))
    return group.all_reduce_sum(hits), group.all_reduce_sum(sums)


def reset_dead_codes(
    codebook: Codebook,
    dead: Tensor,
    z: Tensor,
    strategy: Strategy,
    rounds: int,
    seed: int,
    group: ProcessGroup,
    watch: Watch = _unwatched,
) -> Codebook:
    """The codebook with its dead codes (codes,) bool among z (rows, out); live rows stay bit for bit.

    rounds: of k-means over z that the replaced codes then follow, while the others stand; whoever is left without a hit
    is drawn anew. N and z_avg of the replaced codes are hits and sums in as many residues as the codebook counts for.
    watch: told how many codes were drawn.
    """
    if not bool(dead.any()):
        return codebook
    scale = _step(codebook) / len(z)
    mean = _step(codebook) / len(codebook.N)
    moved = dead
    for attempt in range(max(1, rounds)):
        live = codebook.embeddings[~moved]
        fresh = sample_vectors(z, live, int(moved.sum()), strategy, seed + attempt, watch)
        vectors = torch.zeros_like(codebook.embeddings)
        vectors[moved] = group.broadcast(fresh)
        codebook = ema.reset_codes(codebook, moved, vectors, mean)
        hits, sums = all_reduce_statistics(z, codebook, group)
        codebook = _follow_means(codebook, dead, hits, sums, scale, settle=rounds > 0)
        moved = dead & (hits == 0)
        if not bool(moved.any()):
            break
    for _ in range(rounds - 1):
        hits, sums = all_reduce_statistics(z, codebook, group)
        codebook = _follow_means(codebook, dead, hits, sums, scale, settle=True)
    return codebook


def finetune(
    codebook: Codebook,
    z: Tensor,
    steps: int,
    batch: int,
    decay: float,
    seed: int,
    group: ProcessGroup,
    watch: Watch = _unwatched,
) -> Codebook:
    """The codebook after so many steps of moving averages over batches of z (rows, out); all rows move."""
    scale = _step(codebook) / batch
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        select = torch.randint(len(z), (batch,), generator=generator).to(z.device)
        hits, sums = all_reduce_statistics(z[select], codebook, group)
        codebook = ema.ema_update(codebook, hits * scale, sums * scale, decay)
        watch(1)
    return codebook


def _follow_means(
    codebook: Codebook, moving: Tensor, hits: Tensor, sums: Tensor, scale: float, *, settle: bool
) -> Codebook:
    """Where moving, the means of what was hit, with N and sums of a step; elsewhere, and without a hit, as it was."""
    hit = moving & (hits > 0)
    mask = hit[:, None]
    # Without memory of earlier rounds, a moving average is a plain mean.
    means = ema.ema_update(codebook, hits, sums, decay=0.0).embeddings if settle else codebook.embeddings
    count = hits * scale
    return Codebook(
        torch.where(mask, means, codebook.embeddings),
        torch.where(hit, count, codebook.N),
        torch.where(mask, means * count[:, None], codebook.z_avg),
    )


def _step(codebook: Codebook) -> float:
    """Residues that the codebook's N count for."""
    return float(codebook.N.sum()) or float(PUBLISHED_STEP)
