"""Learning-rate schedules, parameter groups, clipping, weight averages, and batches made ahead."""

import threading
from itertools import pairwise

import pytest
import torch
from torch import nn

from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.training.optimization import (
    adamw,
    apply_gradients,
    backward,
    learning_rate,
    parameter_groups,
    prefetch,
    restarted_learning_rate,
    update_average,
)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=4, decay_start=10, steps=20) for step in range(21)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4:11] == [2.0] * 7
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[15] == pytest.approx(1.0)
    assert rates[20] == 0


def test_the_learning_rate_stays_at_zero_after_the_last_step() -> None:
    assert learning_rate(25, peak=2.0, warmup=4, decay_start=10, steps=20) == 0


def test_without_warm_up_it_begins_at_the_peak() -> None:
    assert learning_rate(0, peak=2.0, warmup=0, decay_start=0, steps=10) == 2.0


def test_a_restart_repeats_the_schedule_over_the_steps_that_are_left() -> None:
    rates = [restarted_learning_rate(step, peak=1.0, warmup=2, restart=8, steps=14) for step in range(14)]
    assert rates[:8] == [learning_rate(step, peak=1.0, warmup=2, decay_start=2, steps=8) for step in range(8)]
    assert rates[8:] == [learning_rate(step, peak=1.0, warmup=2, decay_start=2, steps=6) for step in range(6)]


def test_matrices_alone_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    matrices, vectors = parameter_groups(module.parameters(), 0.1)
    assert matrices == {"params": [module[0].weight], "weight_decay": 0.1}
    assert vectors == {"params": [module[0].bias, module[1].weight, module[1].bias], "weight_decay": 0.0}


@pytest.mark.parametrize(("clip", "factor"), [(None, 1.0), (100.0, 1.0), (0.5, 0.1)])
def test_gradients_are_clipped_by_their_total_norm(clip: float | None, factor: float) -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, 1))]
    optimizer = adamw(parameters, learning_rate=1.0, weight_decay=0.0, beta2=0.95)
    backward(optimizer, 3 * parameters[0].sum() + 4 * parameters[1].sum())
    apply_gradients(optimizer, parameters, learning_rate=0.25, group=ALONE, clip=clip)
    gradients = [parameter.grad.item() for parameter in parameters if parameter.grad is not None]
    assert gradients == pytest.approx([3 * factor, 4 * factor], rel=1e-5)
    # The first step of Adam is as long as the learning rate.
    assert [parameter.item() for parameter in parameters] == pytest.approx([-0.25, -0.25], rel=1e-5)


def test_each_loss_replaces_the_gradients_of_the_one_before() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = adamw([parameter], learning_rate=1.0, weight_decay=0.0, beta2=0.95)
    for slope in (3.0, 5.0):
        backward(optimizer, slope * parameter.sum())
    assert parameter.grad is not None
    assert parameter.grad.item() == 5.0


def test_an_average_of_weights_has_a_short_memory_at_first() -> None:
    average, current = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for step, weight in ((0, 0.9), (90, 0.09), (100_000, 0.01)):
        nn.init.zeros_(average.weight)
        nn.init.ones_(current.weight)
        update_average(average, current, decay=0.99, step=step)
        assert average.weight.item() == pytest.approx(weight)


def test_batches_come_in_order_and_none_beyond_the_last_step() -> None:
    made = []

    def make(step: int) -> str:
        made.append(step)
        return f"batch {step}"

    assert list(prefetch(make, range(3, 6))) == [(3, "batch 3"), (4, "batch 4"), (5, "batch 5")]
    assert made == [3, 4, 5]
    assert list(prefetch(make, range(6, 6))) == []


def test_the_next_batch_is_made_while_one_is_in_use() -> None:
    started = [threading.Event() for _ in range(3)]

    def make(step: int) -> int:
        started[step].set()
        return step

    for step, _ in prefetch(make, range(3)):
        if step < 2:
            assert started[step + 1].wait(10)
        if step < 1:
            assert not started[step + 2].is_set()


def test_an_error_of_a_batch_arrives_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise OSError("disk")
        return step

    batches = prefetch(make, range(5))
    assert [next(batches), next(batches)] == [(0, 0), (1, 1)]
    with pytest.raises(OSError, match="disk"):
        next(batches)


def test_no_thread_outlives_a_loop_that_is_left() -> None:
    before = threading.active_count()

    def leave() -> None:
        for step, _ in prefetch(lambda step: step, range(100)):
            if step == 3:
                raise KeyError(step)

    with pytest.raises(KeyError) as caught:
        leave()
    assert threading.active_count() == before
    assert caught.value.args == (3,)
