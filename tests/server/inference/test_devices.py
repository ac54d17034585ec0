"""Several devices: one queue, whose rows go to whichever is free; and what becomes of requests when one dies."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from foldmint_server.errors import Stopping
from foldmint_server.inference.batch_executor import BatchTimes
from foldmint_server.inference.devices import devices_of, engines_of, scheduling
from foldmint_server.inference.scheduler import Scheduler, SchedulerConfig
from foldmint_server.settings import Settings
from foldmint_tokenizer import Backbone, ModelError, StructureTokenizer
from foldmint_tokenizer.store.model_store import load_model
from helpers.chains import RealChain
from helpers.servers.counting_device import CONFIG, CountingDevice, held_up, new_metrics, started, structure
from helpers.support import request_of, running_server, stub_of
from helpers.waiting import tasks_began, until, value_of

TWO = [torch.tensor([0.0]), torch.tensor([1000.0])]
"""Embeddings on two devices, which tell in the codes on which one they were computed: they differ here alone."""


@pytest.fixture
def devices() -> list[CountingDevice]:
    return [CountingDevice(), CountingDevice()]


@pytest.fixture
def scheduler(devices: list[CountingDevice]) -> Iterator[Scheduler]:
    running = Scheduler(devices, replace(CONFIG, min_split_residues=100), new_metrics())
    yield running
    for device in devices:
        device.go.set()
    running.close()


async def test_a_device_that_is_free_takes_what_waits(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    for device in devices:
        device.go.clear()
    tasks = [asyncio.create_task(scheduler.compute(structure(100, 0), TWO))]
    await until(lambda: any(device.entered.is_set() for device in devices))
    busy, free = devices if devices[0].entered.is_set() else devices[::-1]
    tasks.append(asyncio.create_task(scheduler.compute(structure(30, 1), TWO)))
    await started(free)
    free.go.set()
    codes = (await tasks[1]).codes
    assert codes.tolist() == [1000 * devices.index(free) + row for row in range(30)]
    assert busy.batches == []  # it is still at its first
    busy.go.set()
    await tasks[0]


async def test_a_large_one_is_computed_by_all(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    for device in devices:
        device.go.clear()
    task = asyncio.create_task(scheduler.compute(structure(250, 0), TWO))
    for device in devices:
        await started(device)
    devices[1].go.set()  # which is done with its slices first, and must wait for the other's
    await until(lambda: devices[1].batches)
    assert not task.done()
    devices[0].go.set()
    codes = (await task).codes
    assert (codes % 1000).tolist() == list(range(250))
    assert set(codes // 1000) == {0, 1}
    assert sum(devices[0].batches) + sum(devices[1].batches) == 250


@pytest.mark.parametrize(("rows", "most"), [(80, 40), (81, 41), (30, 20), (20, 20), (300, 100)])
async def test_what_waits_is_shared_among_the_free(devices: list[CountingDevice], rows: int, most: int) -> None:
    metrics = new_metrics()
    scheduler = Scheduler(devices, replace(CONFIG, min_split_residues=20), metrics)
    await until(lambda: scheduler.idle == 2)
    for device in devices:
        device.go.clear()
    task = asyncio.create_task(scheduler.compute(structure(rows, 0), TWO))
    await tasks_began()
    taken = lambda: value_of(metrics.queued_residues) == 0 or all(device.entered.is_set() for device in devices)  # noqa: E731
    await until(taken)
    for device in devices:
        device.go.set()
    codes = (await task).codes
    assert (codes % 1000).tolist() == list(range(rows))
    batches = devices[0].batches + devices[1].batches
    assert max(batches) == most
    assert sum(batches) == rows
    scheduler.close()


async def test_a_device_settles_in_its_thread(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    await scheduler.warm_up(TWO)
    assert [device.thread for device in devices] == ["device 0", "device 1"]


async def test_each_is_warmed_up_in_its_own_thread(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    await scheduler.warm_up(TWO)
    assert [device.warmed for device in devices] == [[("device 0", 0.0)], [("device 1", 1000.0)]]


async def test_what_a_warm_up_raises_is_raised(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    devices[1].failing = lambda _: True
    with pytest.raises(RuntimeError, match="no memory"):
        await scheduler.warm_up(TWO)
    devices[1].failing = lambda _: False
    await scheduler.warm_up(TWO)


async def test_steps_are_told_to_whom_asks(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    both: list[BatchTimes] = []
    late: list[BatchTimes] = []
    before = time.time_ns()
    await asyncio.gather(
        scheduler.compute(structure(150, 0), TWO, batch_times=both),
        scheduler.compute(structure(20, 1), TWO, batch_times=late),
    )
    assert len(both) >= 2
    assert len(late) == 1
    for batch in both + late:
        assert before <= batch.began <= batch.computed <= batch.quantized <= time.time_ns()
    assert sum(len(device.batches) for device in devices) >= len(both)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_dead_device_leaves_nobody_waiting(scheduler: Scheduler, devices: list[CountingDevice]) -> None:
    def dies(_: int) -> bool:
        raise SystemExit("as an interpreter that ends would")

    for device in devices:
        device.go.clear()
        device.failing = dies
    running = asyncio.create_task(scheduler.compute(structure(300, 0), TWO))
    for device in devices:
        await started(device)
    queued = asyncio.create_task(scheduler.compute(structure(100, 1), TWO))
    in_line = asyncio.create_task(scheduler.compute(structure(1000, 2), TWO, wait_for_room=True))
    await tasks_began()
    assert not scheduler.hung(60)
    devices[0].go.set()
    await until(lambda: scheduler.devices_left == 1)
    assert not scheduler.hung(60)  # the other goes on
    devices[1].go.set()
    for task in (running, queued, in_line):
        with pytest.raises(Stopping, match="a device of the server failed"):
            await asyncio.wait_for(task, 10)
    for ask in (scheduler.compute(structure(1, 3), TWO), scheduler.warm_up(TWO)):
        with pytest.raises(Stopping, match="a device of the server failed"):
            await ask
    await until(lambda: scheduler.hung(60))


async def test_callers_take_turns_in_line(devices: list[CountingDevice]) -> None:
    scheduler = Scheduler(devices[:1], SchedulerConfig(100, 10, 0.0, 100), new_metrics())
    running = await held_up(devices[0], scheduler)
    tasks = []
    for number, caller in enumerate(["many"] * 20 + ["one"]):
        names = [torch.tensor([1000.0 * (number + 1)])]
        waiting = scheduler.compute(structure(100, number), names, caller=caller, wait_for_room=True)
        tasks.append(asyncio.create_task(waiting))
    await tasks_began()
    devices[0].go.set()
    await asyncio.gather(running, *tasks)
    order = sorted(devices[0].seen, key=lambda name: devices[0].seen[name])
    assert order.index(21_000.0) <= 3  # after the batch that was under way, and what was admitted before it came
    scheduler.close()


def test_devices_have_names() -> None:
    assert devices_of("cpu, cpu") == [torch.device("cpu")] * 2
    assert len(devices_of("auto")) == 1
    for wrong, reason in (("gpu", "'gpu' is not a device"), ("cpu,", "'' is not a device"), ("cuda:99", "cuda:99")):
        with pytest.raises(ModelError, match=reason):
            devices_of(wrong)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="torch finds none"):
            devices_of("cuda:all")


@pytest.mark.parametrize(
    ("asked", "precision", "engines"), [("cpu", "float32", 4), ("cpu,cpu", "float32", 4), ("cpu", "bf16", 4)]
)
def test_each_thread_of_a_cpu_has_an_engine(asked: str, precision: str, engines: int) -> None:
    settings = Settings.model_validate({"device": asked, "precision": precision})
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = engines_of(load_model(), settings)
    finally:
        torch.set_num_threads(before)
    assert len(found) == engines
    sizes = scheduling(settings, found)
    assert sizes.batch_residues == found[0].step_rows
    assert 1 <= sizes.min_split_residues <= sizes.batch_residues


@pytest.mark.slow
def test_a_server_on_two_devices_gives_the_same_tokens(chains: list[RealChain]) -> None:
    tokenizer = StructureTokenizer.load()
    with running_server("--device", "cpu,cpu") as server, stub_of(server) as stub:
        answers = [stub.Tokenize.future(request_of(chain), timeout=60) for chain in chains]
        for chain, answer in zip(chains, answers, strict=True):
            (wanted,) = tokenizer.tokenize(Backbone("A", chain.sequence, chain.residue_index, chain.coordinates))
            np.testing.assert_array_equal(answer.result().chains[0].tokens, wanted.tokens)
