"""The scheduler: nothing lost, nothing mixed up, large requests in turn with small ones, dropped ones let go."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import torch

from foldmint_server.errors import Overloaded, Stopping
from foldmint_server.inference.batch_wait import BatchWait
from foldmint_server.inference.scheduler import Scheduler, SchedulerConfig
from foldmint_server.metrics.registry import Metrics
from helpers.servers.counting_device import CONFIG, EMBEDDINGS, CountingDevice, held_up, new_metrics, started, structure
from helpers.waiting import tasks_began, until, value_of


@pytest.fixture
def device() -> CountingDevice:
    return CountingDevice()


@pytest.fixture
def metrics() -> Metrics:
    return new_metrics()


@pytest.fixture
def scheduler(device: CountingDevice, metrics: Metrics) -> Iterator[Scheduler]:
    running = Scheduler([device], CONFIG, metrics)
    yield running
    device.go.set()
    running.close()


async def test_every_row_comes_back_in_its_place(scheduler: Scheduler, device: CountingDevice) -> None:
    sizes = [1, 250, 99, 100, 101, 7, 30]
    results = await asyncio.gather(*(scheduler.compute(structure(n, i), EMBEDDINGS) for i, n in enumerate(sizes)))
    for size, result in zip(sizes, results, strict=True):
        assert result.codes.tolist() == list(range(size))
    assert sum(device.batches) == sum(sizes)
    assert max(device.batches) <= CONFIG.batch_residues


async def test_each_request_keeps_its_codebook(scheduler: Scheduler, device: CountingDevice) -> None:
    device.go.clear()
    first = asyncio.create_task(scheduler.compute(structure(5, 0), EMBEDDINGS))
    await started(device)
    mixed = [asyncio.create_task(scheduler.compute(structure(25, i), [torch.tensor([100.0 * i])])) for i in range(4)]
    await tasks_began()
    device.go.set()
    await first
    for i, task in enumerate(mixed):
        assert (await task).codes.tolist() == [row + 100 * i for row in range(25)]


async def test_small_requests_do_not_wait_for_a_large_one(scheduler: Scheduler, device: CountingDevice) -> None:
    device.go.clear()
    large = asyncio.create_task(scheduler.compute(structure(900, 0), EMBEDDINGS))
    await started(device)
    small = asyncio.create_task(scheduler.compute(structure(10, 1), EMBEDDINGS))
    await tasks_began()
    device.go.set()
    await asyncio.gather(small, large)
    # The large one began in the batch under way when the small one came, which began in the next.
    assert device.beginnings == [0, 1]
    assert len(device.batches) == 10


async def test_a_full_queue_refuses_and_then_takes_again(
    scheduler: Scheduler, device: CountingDevice, metrics: Metrics
) -> None:
    device.go.clear()
    running = asyncio.create_task(scheduler.compute(structure(100, 0), EMBEDDINGS))
    await started(device)
    queued = asyncio.create_task(scheduler.compute(structure(990, 1), EMBEDDINGS))
    await tasks_began()
    with pytest.raises(Overloaded, match="990 residues are queued"):
        await scheduler.compute(structure(11, 2), EMBEDDINGS)
    assert value_of(metrics.rejects.labels("queue_full")) == 1
    patient = asyncio.create_task(scheduler.compute(structure(11, 3), EMBEDDINGS, wait_for_room=True))
    await tasks_began()
    assert not patient.done()
    device.go.set()
    for task, size in ((running, 100), (queued, 990), (patient, 11)):
        assert (await task).codes.tolist() == list(range(size))
    assert value_of(metrics.queued_residues) == 0


async def test_those_that_wait_for_room_stand_in_line(scheduler: Scheduler, device: CountingDevice) -> None:
    device.go.clear()
    running = asyncio.create_task(scheduler.compute(structure(100, 0), EMBEDDINGS))
    await started(device)
    queued = asyncio.create_task(scheduler.compute(structure(900, 1), EMBEDDINGS))
    await tasks_began()
    # The small ones would fit as soon as a batch is done, the large one long after.
    tasks = []
    for name, size in ((1.0, 950), (2.0, 20), (3.0, 30)):
        waiting = scheduler.compute(structure(size, 2), [torch.tensor([name])], wait_for_room=True)
        tasks.append(asyncio.create_task(waiting))
    await tasks_began()
    device.go.set()
    await asyncio.gather(running, queued, *tasks)
    assert device.seen[1.0] <= device.seen[2.0] <= device.seen[3.0]


async def test_waiting_for_room_misses_no_end_of_a_step(scheduler: Scheduler) -> None:
    """Each of these fills the queue, so that every one waits for the one before."""
    tasks = [scheduler.compute(structure(1000, i), EMBEDDINGS, wait_for_room=True) for i in range(30)]
    results = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert [len(result.codes) for result in results] == [1000] * 30


async def test_one_larger_than_the_queue_goes_alone(scheduler: Scheduler) -> None:
    result = await scheduler.compute(structure(1500, 0), EMBEDDINGS)
    assert len(result.codes) == 1500


async def test_cancelled_rows_are_not_computed(scheduler: Scheduler, device: CountingDevice, metrics: Metrics) -> None:
    device.go.clear()
    running = asyncio.create_task(scheduler.compute(structure(5, 0), EMBEDDINGS))
    await started(device)
    dropped = asyncio.create_task(scheduler.compute(structure(600, 1), EMBEDDINGS))
    await tasks_began()
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    device.go.set()
    await running
    await scheduler.compute(structure(7, 2), EMBEDDINGS)
    assert sum(device.batches) == 12
    assert value_of(metrics.queued_residues) == 0


async def test_a_failed_step_fails_its_requests_and_no_others(
    scheduler: Scheduler, device: CountingDevice, metrics: Metrics
) -> None:
    device.failing = lambda rows: rows == 100
    with pytest.raises(RuntimeError, match="out of memory"):
        await scheduler.compute(structure(350, 0), EMBEDDINGS)
    assert (await scheduler.compute(structure(9, 1), EMBEDDINGS)).codes.tolist() == list(range(9))
    assert value_of(metrics.queued_residues) == 0


async def test_no_rows_need_no_device(scheduler: Scheduler, device: CountingDevice) -> None:
    assert len((await scheduler.compute(structure(0, 0), EMBEDDINGS)).codes) == 0
    assert device.batches == []


async def test_closing_fails_what_is_left(device: CountingDevice, metrics: Metrics) -> None:
    scheduler = Scheduler([device], CONFIG, metrics)
    device.go.clear()
    running = asyncio.create_task(scheduler.compute(structure(300, 0), EMBEDDINGS))
    await started(device)
    waiting = asyncio.create_task(scheduler.compute(structure(1000, 1), EMBEDDINGS, wait_for_room=True))
    await tasks_began()
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    await until(waiting.done)
    device.go.set()
    await closing
    for task in (running, waiting):
        with pytest.raises(Stopping):
            await task
    with pytest.raises(Stopping):
        await scheduler.compute(structure(1, 0), EMBEDDINGS)
    assert value_of(metrics.rejects.labels("stopping")) == 2
    assert scheduler.hung(60)


async def test_a_device_that_was_idle_waits_for_nothing(device: CountingDevice, metrics: Metrics) -> None:
    now = 0.0
    patient = Scheduler([device], SchedulerConfig(100, 10, 60, 1000), metrics, lambda: now)
    for number in range(3):
        now += 1000.0
        await asyncio.wait_for(patient.compute(structure(10, number), EMBEDDINGS), 10)
    assert device.batches == [10, 10, 10]
    patient.close()


def test_waits_that_time_out_become_few() -> None:
    now, waits = 0.0, 0
    wait = BatchWait(100, 0.05, lambda: now)
    for _ in range(60):  # one after another, as fast as the answers come, each nearly a batch
        now += 0.01
        wait.note_arrival(99)
        if wait.deadline(99, idle=False) is not None:
            waits += 1
            wait.finish(timed_out=True)
    assert waits == 5  # after 2, 4, 8, 16 and 32 batches without


async def test_a_step_waits_for_what_is_about_to_fill_it(device: CountingDevice, metrics: Metrics) -> None:
    now, reads = 0.0, 0

    def clock() -> float:
        nonlocal reads
        reads += threading.current_thread().name == "device 0"
        return now

    patient = Scheduler([device], SchedulerConfig(100, 10, 60, 1000), metrics, clock)
    now += 1000.0
    device.go.clear()
    first = asyncio.create_task(patient.compute(structure(60, 0), EMBEDDINGS))
    await started(device)
    second = asyncio.create_task(patient.compute(structure(60, 1), EMBEDDINGS))
    await tasks_began()
    now += 1.0  # 60 residues came in a second; the 40 that are missing will in less than 60 seconds
    before = reads
    device.go.set()
    await first
    # The device's thread reads the clock when it answers, when it decides to wait, and for how long.
    await until(lambda: reads >= before + 3)
    assert device.batches == [60]
    third = asyncio.create_task(patient.compute(structure(40, 2), EMBEDDINGS))
    await asyncio.wait_for(asyncio.gather(second, third), 10)
    assert device.batches == [60, 100]
    patient.close()


async def test_a_step_waits_no_longer_than_its_delay(device: CountingDevice, metrics: Metrics) -> None:
    patient = Scheduler([device], SchedulerConfig(100, 10, 0.2, 1000), metrics)
    device.go.clear()
    tasks = [asyncio.create_task(patient.compute(structure(90, 0), EMBEDDINGS))]
    await started(device)
    tasks.append(asyncio.create_task(patient.compute(structure(90, 1), EMBEDDINGS)))
    await tasks_began()
    device.go.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert device.batches == [90, 90]
    patient.close()


@pytest.mark.parametrize("large", [1, 10, 50])
@pytest.mark.parametrize("rows", [10, 50, 100, 150, 200])
async def test_large_ones_add_two_steps_at_most(
    device: CountingDevice, metrics: Metrics, rows: int, large: int
) -> None:
    scheduler = Scheduler([device], SchedulerConfig(100, 12, 0.0, 1_000_000), metrics)
    running = await held_up(device, scheduler)
    others = [
        asyncio.create_task(scheduler.compute(structure(1000, i), [torch.tensor([1.0 + i])])) for i in range(large)
    ]
    await tasks_began()
    small = asyncio.create_task(scheduler.compute(structure(rows, 60), [torch.tensor([77_000.0])]))
    await tasks_began()
    device.go.set()
    await asyncio.gather(running, small, *others)
    alone = -(-rows // 100)
    assert device.last[77_000.0] <= 0 + alone + 2  # after the batch 0, that was under way
    assert max(device.batches) == 100
    # They go on in turn: the last begins before the first has had many turns.
    assert max(device.seen[1.0 + i] for i in range(large)) <= 4 + large * 12 // 50
    scheduler.close()


async def test_many_small_ones_do_not_starve_a_large_one(device: CountingDevice, metrics: Metrics) -> None:
    scheduler = Scheduler([device], SchedulerConfig(200, 25, 0.0, 100_000), metrics)
    running = await held_up(device, scheduler)
    small = [asyncio.create_task(scheduler.compute(structure(50, i), EMBEDDINGS)) for i in range(100)]
    large = asyncio.create_task(scheduler.compute(structure(500, 101), [torch.tensor([77.0])]))
    await tasks_began()
    device.go.set()
    await large
    assert device.last[77.0] <= 10  # after the batch 0, that was under way: a quarter of each is its own
    await asyncio.gather(running, *small)
    scheduler.close()


async def test_large_ones_delay_a_small_one_by_a_batch_at_most(device: CountingDevice, metrics: Metrics) -> None:
    scheduler = Scheduler([device], SchedulerConfig(200, 25, 0.0, 100_000), metrics)
    running = await held_up(device, scheduler)
    large = [asyncio.create_task(scheduler.compute(structure(1000, i), EMBEDDINGS)) for i in range(50)]
    await tasks_began()
    small = asyncio.create_task(scheduler.compute(structure(400, 51), [torch.tensor([77.0])]))  # two batches' worth
    await tasks_began()
    device.go.set()
    await small
    assert device.last[77.0] <= 3  # after the batch 0, that was under way
    await asyncio.gather(running, *large)
    scheduler.close()


@pytest.mark.parametrize("rows", [50, 500])
async def test_a_caller_with_many_requests_does_not_delay_another(
    device: CountingDevice, metrics: Metrics, rows: int
) -> None:
    scheduler = Scheduler([device], SchedulerConfig(200, 25, 0.0, 100_000), metrics)
    running = await held_up(device, scheduler)
    many = [asyncio.create_task(scheduler.compute(structure(rows, i), EMBEDDINGS, caller="many")) for i in range(50)]
    await tasks_began()
    one = asyncio.create_task(scheduler.compute(structure(50, 51), [torch.tensor([77.0])], caller="one"))
    await tasks_began()
    device.go.set()
    await asyncio.gather(running, one, *many)
    assert device.seen[77.0] == 1
    scheduler.close()


async def test_what_is_dropped_leaves_room_at_once(
    scheduler: Scheduler, device: CountingDevice, metrics: Metrics
) -> None:
    running = await held_up(device, scheduler)
    dropped = asyncio.create_task(scheduler.compute(structure(900, 1), EMBEDDINGS))
    await tasks_began()
    patient = asyncio.create_task(scheduler.compute(structure(950, 2), EMBEDDINGS, wait_for_room=True))
    await tasks_began()
    assert value_of(metrics.queued_residues) == 900
    dropped.cancel()
    await asyncio.wait([dropped])
    assert value_of(metrics.queued_residues) == 950  # no batch has ended since
    device.go.set()
    await asyncio.gather(running, patient)
    assert sum(device.batches) == 951


async def test_a_step_that_never_ends_is_seen(scheduler: Scheduler, device: CountingDevice) -> None:
    assert not scheduler.hung(0)
    device.go.clear()
    task = asyncio.create_task(scheduler.compute(structure(5, 0), EMBEDDINGS))
    await started(device)
    assert scheduler.hung(0)
    assert not scheduler.hung(60)
    device.go.set()
    await task
