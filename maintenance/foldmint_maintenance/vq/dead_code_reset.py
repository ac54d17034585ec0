"""Dead-code reset: find dead codes, re-initialize them to vectors of the data, and refine them. Pure functions.

Every process holds all vectors and computes a slice of each sum; random samples are drawn by rank 0 and broadcast. All
processes end with the same bits, which differ from those of a single process only by the order of summation.
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
Report = Callable[[int], None]
"""Called with how much more is done."""

PUBLISHED_STEP = 2**18
"""Residues per step of the published codebook, whose N are hits per step."""


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise `ValueError` if a setting is not one of the choices of a Literal."""
    if value not in get_args(choices):
        raise ValueError(f"{name} is {' or '.join(get_args(choices))}, not {value!r}")


class DeadCodes(NamedTuple):
    """values: (codes,), the measure of each code. dead: (codes,) bool. exposure: residues counted per code."""

    values: Tensor
    dead: Tensor
    exposure: float


def find_dead_codes(counts: Tensor, step: float, exposure: float, threshold: float, measure: Measure) -> DeadCodes:
    """Which codes are dead.

    counts: (codes,), hits, as moving averages or sums. step: residues per step, the unit of N. measure: whether the
    threshold applies to N or to the share of all hits. exposure: residues counted per code; with few, no hits prove
    nothing.
    """
    check_choice("measure", measure, Measure)
    share = counts.double() / counts.double().sum().clamp_min(torch.finfo(torch.float64).tiny)
    values = share if measure == "frequency" else share * step
    return DeadCodes(values, values < threshold, exposure)


def _no_report(done: int) -> None:
    """Ignore progress."""


def sample_vectors(
    z: Tensor, live: Tensor, count: int, strategy: Strategy, seed: int, report: Report = _no_report
) -> Tensor:
    """New vectors (count, out) for dead codes, sampled from z (rows, out).

    batch: uniformly, without replacement if there are enough, as in the published training. kmeans++: one by one, with
    a probability proportional to the squared distance from the nearest of the live codes (codes, out) and the vectors
    sampled before (Arthur & Vassilvitskii 2007).
    """
    check_choice("strategy", strategy, Strategy)
    if strategy == "batch":
        return quantizer.sample_vectors(z, count, seed, 0)
    generator = torch.Generator(z.device).manual_seed(seed)
    error = nearest_code(z, live)[1].square() if len(live) else z.new_ones(len(z))
    square = z.square().sum(1)
    chosen = []
    for _ in range(count):
        cumulative = error.double().cumsum(0)
        # Where all is met exactly, any is as good as another.
        at = torch.rand((), generator=generator, dtype=torch.float64, device=z.device) * cumulative[-1]
        place = int(torch.searchsorted(cumulative, at, right=True).clamp_max(len(z) - 1))
        chosen.append(z[place])
        report(1)
        distance = torch.addmv(square + square[place], z, z[place], alpha=-2).clamp_min(0)
        error = torch.minimum(error, distance)
    return torch.stack(chosen)


def all_reduce_statistics(z: Tensor, codebook: Codebook, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Hits (codes,) and sums (codes, out) of z (rows, out), each process computing its slice."""
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
    report: Report = _no_report,
) -> Codebook:
    """The codebook with its dead codes (codes,) bool re-initialized from z (rows, out); live rows stay bit-identical.

    rounds: of k-means over z that refine the reset codes while the others are fixed; reset codes without a hit are
    sampled again. N and z_avg of reset codes are their hits and sums, scaled to the codebook's residues per step.
    report: called with the number of codes sampled.
    """
    if not bool(dead.any()):
        return codebook
    scale = _step(codebook) / len(z)
    mean = _step(codebook) / len(codebook.N)
    moved = dead
    for attempt in range(max(1, rounds)):
        live = codebook.embeddings[~moved]
        fresh = sample_vectors(z, live, int(moved.sum()), strategy, seed + attempt, report)
        vectors = torch.zeros_like(codebook.embeddings)
        vectors[moved] = group.broadcast(fresh)
        codebook = ema.reset_codes(codebook, moved, vectors, mean)
        hits, sums = all_reduce_statistics(z, codebook, group)
        codebook = _follow_means(codebook, dead, hits, sums, scale, to_means=rounds > 0)
        moved = dead & (hits == 0)
        if not bool(moved.any()):
            break
    for _ in range(rounds - 1):
        hits, sums = all_reduce_statistics(z, codebook, group)
        codebook = _follow_means(codebook, dead, hits, sums, scale, to_means=True)
    return codebook


def finetune(
    codebook: Codebook,
    z: Tensor,
    steps: int,
    batch: int,
    decay: float,
    seed: int,
    group: ProcessGroup,
    report: Report = _no_report,
) -> Codebook:
    """The codebook after `steps` EMA updates of all codes, on random batches of z (rows, out)."""
    scale = _step(codebook) / batch
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        select = torch.randint(len(z), (batch,), generator=generator).to(z.device)
        hits, sums = all_reduce_statistics(z[select], codebook, group)
        codebook = ema.ema_update(codebook, hits * scale, sums * scale, decay)
        report(1)
    return codebook


def _follow_means(
    codebook: Codebook, moving: Tensor, hits: Tensor, sums: Tensor, scale: float, *, to_means: bool
) -> Codebook:
    """Codes in `moving` (codes,) bool with a hit, at the means of their vectors; all others as they were."""
    hit = moving & (hits > 0)
    mask = hit[:, None]
    # With a decay of 0, a moving average is a plain mean.
    means = ema.ema_update(codebook, hits, sums, decay=0.0).embeddings if to_means else codebook.embeddings
    count = hits * scale
    return Codebook(
        torch.where(mask, means, codebook.embeddings),
        torch.where(hit, count, codebook.N),
        torch.where(mask, means * count[:, None], codebook.z_avg),
    )


def _step(codebook: Codebook) -> float:
    """Residues per step, the unit of the codebook's N."""
    return float(codebook.N.sum()) or float(PUBLISHED_STEP)
