"""Optimization shared by the trainers: learning-rate schedules, AdamW, batch prefetch and weight averaging."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import cos, pi
from typing import TypeVar

import torch
from torch import Tensor, nn

from foldmint_maintenance.distributed.process_group import ProcessGroup

T = TypeVar("T")


def learning_rate(step: int, *, peak: float, warmup: int, decay_start: int, steps: int) -> float:
    """The learning rate of a step, counted from 0.

    It rises linearly to `peak` over `warmup` steps, stays there until `decay_start`, and falls by a cosine to zero at
    step `steps`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = max(0, step - decay_start) / max(1, steps - decay_start)
    return peak * 0.5 * (1 + cos(pi * min(1.0, progress)))


def restarted_learning_rate(step: int, *, peak: float, warmup: int, restart: int, steps: int) -> float:
    """Warm-up and cosine decay to zero over the steps before `restart`, and the same again over those from it on."""
    start, end = (0, restart) if step < restart else (restart, steps)
    return learning_rate(step - start, peak=peak, warmup=warmup, decay_start=warmup, steps=end - start)


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Two groups for an optimizer: matrices, with weight decay, then vectors (biases and norms), without.

    Each group keeps the order of `parameters`: checkpoints store the optimizer's state by position.
    """
    own = list(parameters)
    return [
        {"params": [p for p in own if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0},
    ]


def adamw(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float, beta2: float
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, with a first beta of 0.9."""
    return torch.optim.AdamW(parameter_groups(parameters, weight_decay), lr=learning_rate, betas=(0.9, beta2))


def backward(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Replace the gradients by those of the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    *,
    learning_rate: float,
    group: ProcessGroup,
    clip: float | None = None,
) -> None:
    """Average the gradients of `parameters` over the processes, clip them to a total norm of `clip`, and update."""
    group.average_gradients(parameters)
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    for parameter_group in optimizer.param_groups:
        parameter_group["lr"] = learning_rate
    optimizer.step()


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float, step: int) -> None:
    """Move the parameters of `average` towards those of `current`, an exponential moving average.

    The first steps, counted from 0, use a shorter memory: the initial weights do not last.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for mean, now in zip(average.parameters(), current.parameters(), strict=True):
        mean.lerp_(now, weight)


def prefetch(make: Callable[[int], T], steps: range) -> Iterator[tuple[int, T]]:
    """Steps with their batches; a thread makes the next batch while the current one is in use."""
    if not steps:
        return
    with ThreadPoolExecutor(1, "batches") as pool:
        upcoming = pool.submit(make, steps[0])
        for step, following in pairwise(steps):
            batch = upcoming.result()
            upcoming = pool.submit(make, following)
            yield step, batch
        yield steps[-1], upcoming.result()
