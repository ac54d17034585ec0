"""What would be computed after its caller's deadline is refused at once, and nothing else is."""

import asyncio
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from torch import Tensor

from benchmarks.stress.overload import counted, retry_after
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_server.errors import Overloaded
from foldmint_server.inference.deadlines import Throughput, check_in_time
from foldmint_server.inference.fair_queue import FairQueue, Request
from foldmint_server.inference.scheduler import Scheduler
from foldmint_server.metrics.registry import Metrics
from foldmint_tokenizer.neighborhoods import Neighborhoods
from helpers.servers.counting_device import CONFIG, EMBEDDINGS, CountingDevice, held_up, new_metrics, structure
from helpers.support import RunningServer, metrics_of, running_server
from helpers.waiting import tasks_began, value_of, wait_until

PACE = 0.01  # seconds a residue


class TimedDevice(CountingDevice):
    """Takes so long for a residue, by its own clock."""

    now = 0.0

    def vectors(self, rows: Neighborhoods) -> Tensor:
        z = super().vectors(rows)
        self.now += PACE * len(rows.offset)
        return z


def queue_of(*requests: Request) -> FairQueue[Request]:
    queue: FairQueue[Request] = FairQueue(100, 10, 10_000)
    assert all(queue.admit(request) for request in requests)
    return queue


def throughput(pace: float = PACE) -> Throughput:
    found = Throughput()
    found.record(100, 100 * pace)
    return found


@pytest.mark.parametrize(
    ("queued", "ahead"),
    [
        ([], 50),
        ([("a", 70), ("a", 80)], 200),  # the caller's own
        ([("b", 70), ("c", 20)], 50 + 50 + 20),  # others have as much of a turn
        ([("b", 900), ("c", 20)], 70 + 24),  # of a long one, a third of what is computed of short ones
        ([("b", 201), ("c", 20)], 70 + 24),
    ],
)
def test_what_is_computed_until_the_end_of_a_short_request(queued: list[tuple[str, int]], ahead: int) -> None:
    queue = queue_of(*(Request(caller, residues) for caller, residues in queued))
    assert queue.residues_until(Request("a", 50)) == ahead


@pytest.mark.parametrize(
    ("queued", "ahead"),
    [
        ([], 300),
        ([("b", 900)], 600),  # turn by turn
        ([("b", 100)], 400),  # all short ones, if they are few
        ([("b", 200)] * 10, 4 * 300),  # else three quarters of each batch
    ],
)
def test_what_is_computed_until_the_end_of_a_long_request(queued: list[tuple[str, int]], ahead: int) -> None:
    queue = queue_of(*(Request(caller, residues) for caller, residues in queued))
    assert queue.residues_until(Request("a", 300)) == ahead


def test_long_requests_are_assumed_to_get_what_they_got_recently() -> None:
    """However few short ones are queued: as many may go on to arrive."""
    queue = queue_of(Request("a", 5000))
    assert queue.residues_until(Request("a", 300)) == 600
    for _ in range(300):  # a batch each, of which short ones take half
        assert queue.admit(Request("b", 50))
        assert sum(part.stop - part.start for _, part in queue.next_batch(100)) == 100
        if not queue.queued:
            assert queue.admit(Request("a", 5000))
    assert queue.residues_until(Request("a", 300)) == pytest.approx(2 * 600, rel=0.02)
    for _ in range(300):  # and no more arrive
        queue.next_batch(100)
        if not queue.queued:
            assert queue.admit(Request("a", 5000))
    assert queue.residues_until(Request("a", 300)) == pytest.approx(600, rel=0.02)


def test_what_is_dispatched_or_removed_is_not_before_a_request() -> None:
    _, second, third = requests = [Request("a", residues) for residues in (60, 90, 300)]
    queue = queue_of(*requests)
    assert sum(part.stop - part.start for _, part in queue.next_batch(100)) == 100  # 25 of the long one
    assert queue.residues_until(Request("a", 50)) == 125 + 42
    assert queue.residues_until(Request("a", 201)) == 2 * 201 + 75
    queue.remove(second)
    assert queue.residues_until(Request("a", 50)) == 50 + 17
    queue.remove(third)
    assert queue.residues_until(Request("a", 50)) == 50
    assert queue.residues_until(Request("a", 201)) == pytest.approx(201, rel=0.02)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_time_is_that_of_what_comes_before(devices: int) -> None:
    queue = queue_of(Request("a", 150), Request("b", 1000))
    needed = (200 + 67) * PACE / devices
    check_in_time(queue, Request("a", 50), needed / 0.79, throughput(), devices)
    with pytest.raises(
        Overloaded, match=rf"1150 residues are queued: .* about {needed:.1f} s, and .* in 1.0 s"
    ) as error:
        check_in_time(queue, Request("a", 50), 1.0, throughput(), devices)
    assert error.value.seconds == pytest.approx(needed - 0.8)


def test_nothing_is_refused_without_a_queue_or_an_observation() -> None:
    check_in_time(queue_of(), Request("a", 5000), 0.001, throughput(), 1)
    check_in_time(queue_of(Request("a", 5000)), Request("a", 50), 0.001, Throughput(), 1)


def test_full_batches_and_recent_ones_decide() -> None:
    found = throughput(1.0)
    for _ in range(60):
        found.record(100, 1.0)
        found.record(1, 0.1)
    assert found.seconds_for(100, 1) == pytest.approx(1.0, rel=0.1)


@pytest.fixture
def device() -> TimedDevice:
    return TimedDevice()


@pytest.fixture
def metrics() -> Metrics:
    return new_metrics()


@pytest.fixture
def scheduler(device: TimedDevice, metrics: Metrics) -> Iterator[Scheduler]:
    running = Scheduler([device], CONFIG, metrics, clock=lambda: device.now)
    yield running
    device.go.set()
    running.close()


async def test_the_scheduler_refuses_what_would_be_late(
    scheduler: Scheduler, device: TimedDevice, metrics: Metrics
) -> None:
    await scheduler.compute(structure(100, 0), EMBEDDINGS)
    running = await held_up(device, scheduler)
    patient = [asyncio.create_task(scheduler.compute(structure(190, i), EMBEDDINGS)) for i in range(4)]
    await tasks_began()
    with pytest.raises(Overloaded, match=r"760 residues are queued: the answer would take about 7.7 s"):
        await scheduler.compute(structure(10, 5), EMBEDDINGS, seconds_left=5.0)
    assert value_of(metrics.rejects.labels("deadline")) == 1
    in_time = asyncio.create_task(scheduler.compute(structure(10, 6), EMBEDDINGS, seconds_left=10.0))
    other = asyncio.create_task(scheduler.compute(structure(10, 7), EMBEDDINGS, caller="other", seconds_left=1.0))
    await tasks_began()
    device.go.set()
    assert [len((await task).codes) for task in (*patient, in_time, other)] == [190] * 4 + [10, 10]
    await running
    assert value_of(metrics.rejects.labels("deadline")) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def test_a_server_refuses_at_once_what_it_would_answer_too_late(server: RunningServer) -> None:
    """With half a minute of work queued, a call that has ten seconds is refused, and a short one is answered."""
    random = np.random.default_rng(0)

    def request(residues: int) -> pb.TokenizeRequest:
        coordinates = (random.normal(size=(residues, 3, 3)) * 30).astype("<f4")
        chain = pb.Backbone(chain="A", coordinates=coordinates.tobytes(), residue_index=range(residues))
        return pb.TokenizeRequest(backbones=pb.Backbones(chains=[chain]))

    long, short = request(4500), request(100)
    with grpc.insecure_channel(server.address) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        patient = [stub.Tokenize.future(long, timeout=600) for _ in range(100)]
        try:
            wait_until(lambda: metrics_of(server)["foldmint_batches_total"] >= 10)
            wait_until(lambda: metrics_of(server)["foldmint_queued_residues"] >= 300_000)
            refused = stub.Tokenize.future(long, timeout=10)
            assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "its deadline is in" in refused.details()
            assert (retry_after(refused) or 0) > 0
            assert counted(server.metrics, "foldmint_rejects_total")["deadline"] == 1
            assert len(stub.Tokenize(short, timeout=60).chains[0].tokens) == 100
        finally:
            for call in patient:
                call.cancel()
        wait_until(lambda: metrics_of(server)["foldmint_queued_residues"] == 0)
        assert len(stub.Tokenize(short, timeout=60).chains[0].tokens) == 100
