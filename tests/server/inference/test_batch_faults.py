"""Batches that fail: what can be computed is, what cannot fails alone, and a device that is lost is told."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import structlog
import torch
from torch import Tensor

from foldmint_server.errors import DeviceFull, Stopping
from foldmint_server.inference.scheduler import Scheduler
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.neighborhoods import Neighborhoods
from helpers.servers.counting_device import CONFIG, EMBEDDINGS, CountingDevice, new_metrics, structure
from helpers.waiting import until, value_of

TWO = [torch.tensor([0.0]), torch.tensor([1000.0])]


class FaultyDevice(CountingDevice):
    """Has memory for so many rows; fails with some codebooks, which stand for structures at fault."""

    memory = 10**9
    broken: float | None = None
    not_finite: float | None = None

    def vectors(self, rows: Neighborhoods) -> Tensor:
        z = super().vectors(rows)
        if len(z) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return z

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        if float(embeddings[0]) == self.broken:
            raise RuntimeError("a product of another shape")
        if float(embeddings[0]) == self.not_finite:
            raise ModelError("the encoder computed a vector that is not finite")
        return super().quantize(z, embeddings)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """What is logged; written out as on a terminal, with the values of variables, a traceback takes seconds."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
def device() -> FaultyDevice:
    return FaultyDevice()


@pytest.fixture
def metrics() -> Metrics:
    return new_metrics()


@pytest.fixture
def scheduler(device: FaultyDevice, metrics: Metrics) -> Iterator[Scheduler]:
    running = Scheduler([device], CONFIG, metrics)
    yield running
    device.go.set()
    running.close()


def failures(metrics: Metrics, reason: str) -> float:
    return value_of(metrics.batch_failures.labels(reason))


async def five(scheduler: Scheduler) -> list[Quantized | BaseException]:
    """Five structures of 20 rows, of codebooks 0, 1000, 2000, ..., in one batch."""
    return await asyncio.gather(
        *(scheduler.compute(structure(20, i), [torch.tensor([1000.0 * i])]) for i in range(5)), return_exceptions=True
    )


def right(result: Quantized | BaseException, number: int) -> bool:
    return isinstance(result, Quantized) and result.codes.tolist() == [1000 * number + row for row in range(20)]


async def test_without_memory_for_a_step_it_is_halved(
    scheduler: Scheduler, device: FaultyDevice, metrics: Metrics
) -> None:
    device.memory = 30
    result = await scheduler.compute(structure(350, 0), EMBEDDINGS)
    assert result.codes.tolist() == list(range(350))
    assert device.batches[:3] == [100, 50, 25]
    # Later batches are small from the start.
    assert max(device.batches[3:]) <= 50
    assert failures(metrics, "out_of_memory") == sum(rows > 30 for rows in device.batches)
    assert device.probes == 0


async def test_steps_grow_again(scheduler: Scheduler, device: FaultyDevice) -> None:
    device.memory = 30
    await scheduler.compute(structure(100, 0), EMBEDDINGS)
    device.memory, device.batches = 10**9, []
    for _ in range(3):
        await scheduler.compute(structure(1000, 0), EMBEDDINGS)
    assert device.batches[0] <= 50
    assert device.batches[-1] == 100


async def test_what_fits_nowhere_is_refused(scheduler: Scheduler, device: FaultyDevice, metrics: Metrics) -> None:
    device.memory = 0
    with pytest.raises(DeviceFull, match="no memory for this structure"):
        await scheduler.compute(structure(100, 0), EMBEDDINGS)
    device.memory = 10**9
    assert len((await scheduler.compute(structure(100, 0), EMBEDDINGS)).codes) == 100
    assert value_of(metrics.queued_residues) == 0


async def test_only_the_structure_at_fault_fails(scheduler: Scheduler, device: FaultyDevice, metrics: Metrics) -> None:
    device.broken = 3000.0
    results = await five(scheduler)
    assert [right(result, number) for number, result in enumerate(results)] == [True, True, True, False, True]
    assert isinstance(results[3], RuntimeError)
    assert failures(metrics, "error") > 0
    assert device.probes > 0


async def test_nan_never_becomes_a_code(scheduler: Scheduler, device: FaultyDevice, metrics: Metrics) -> None:
    device.not_finite = 1000.0
    results = await five(scheduler)
    assert [right(result, number) for number, result in enumerate(results)] == [True, False, True, True, True]
    assert isinstance(results[1], ModelError)
    assert failures(metrics, "not_finite") > 0
    assert failures(metrics, "error") == 0


async def test_a_lost_device_is_told(scheduler: Scheduler, device: FaultyDevice, metrics: Metrics) -> None:
    device.lost, device.broken = True, 0.0
    device.go.clear()
    tasks = [asyncio.create_task(scheduler.compute(structure(300, 0), EMBEDDINGS)) for _ in range(3)]
    tasks.append(asyncio.create_task(scheduler.compute(structure(900, 1), EMBEDDINGS, wait_for_room=True)))
    await asyncio.to_thread(device.entered.wait, 10)
    assert not scheduler.lost
    device.go.set()
    for task in tasks:
        with pytest.raises(Stopping, match="a device of the server failed"):
            await asyncio.wait_for(task, 10)
    assert scheduler.lost
    assert scheduler.hung(60)
    assert failures(metrics, "device_lost") == 1
    with pytest.raises(Stopping):
        await scheduler.compute(structure(1, 0), EMBEDDINGS)


async def test_the_other_devices_go_on() -> None:
    devices = [FaultyDevice(), FaultyDevice()]
    scheduler = Scheduler(devices, CONFIG, new_metrics())
    devices[0].lost, devices[0].broken = True, 0.0
    lost = 0
    for _ in range(200):
        try:
            result = await scheduler.compute(structure(30, 0), TWO)
            assert result.codes.tolist() == [1000 + row for row in range(30)]
        except Stopping:
            lost += 1
        await asyncio.sleep(0)
        if lost and len(devices[1].batches) > 5:
            break
    assert lost == 1
    assert not scheduler.lost
    assert not scheduler.hung(60)
    await asyncio.gather(*(scheduler.compute(structure(100, 0), TWO) for _ in range(10)))
    scheduler.close()


async def test_a_suspected_device_is_tried(scheduler: Scheduler, device: FaultyDevice) -> None:
    scheduler.health_check(EMBEDDINGS)
    await until(lambda: device.probes == 1)
    assert not scheduler.lost
    device.lost = True
    scheduler.health_check(EMBEDDINGS)
    await until(lambda: scheduler.lost)
    scheduler.health_check(EMBEDDINGS)  # of no effect


async def test_a_device_that_does_not_come_back_from_being_tried_is_stuck(metrics: Metrics) -> None:
    now = 0.0
    device = FaultyDevice()
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def probe(embeddings: Tensor) -> None:
        loop.call_soon_threadsafe(held.set)
        assert device.go.wait(10)

    device.probe = probe  # type: ignore[method-assign]
    scheduler = Scheduler([device], CONFIG, metrics, lambda: now)
    device.go.clear()
    scheduler.health_check(EMBEDDINGS)
    await held.wait()
    assert not scheduler.hung(60)
    now = 3.5
    assert scheduler.hung(60)
    device.go.set()
    await until(lambda: not scheduler.hung(60))
    scheduler.close()


async def test_rows_of_one_structure_in_two_halves_are_told_once(scheduler: Scheduler, device: FaultyDevice) -> None:
    device.memory = 60
    result = await scheduler.compute(structure(100, 0), EMBEDDINGS)
    np.testing.assert_array_equal(result.codes, np.arange(100))
