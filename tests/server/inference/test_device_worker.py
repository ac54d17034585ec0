"""Calls that a device's thread is to make end with it: none is left waiting."""

import pytest
from prometheus_client import CollectorRegistry

from foldmint_server.errors import Stopping
from foldmint_server.inference.batch_executor import BatchExecutor, DeviceLost
from foldmint_server.inference.device_worker import DeviceWorker, make_calls
from foldmint_server.metrics.registry import create_metrics
from helpers.servers.counting_device import CountingDevice


@pytest.fixture
def worker() -> DeviceWorker:
    device = CountingDevice()
    return DeviceWorker(0, device, BatchExecutor(0, device, 64, create_metrics(CollectorRegistry())))


def lose() -> None:
    raise DeviceLost("the device computes nothing any more")


def test_calls_after_the_one_that_loses_the_device_fail(worker: DeviceWorker) -> None:
    made: list[int] = []
    first, lost, left = (worker.add_call(call) for call in (lambda: made.append(1), lose, lambda: made.append(2)))
    with pytest.raises(DeviceLost):
        make_calls(worker.take_calls())
    assert first.result(0) is None
    assert isinstance(lost.exception(0), Stopping)
    assert isinstance(left.exception(0), Stopping)
    assert made == [1]


def test_a_call_that_fails_does_not_keep_others_from_being_made(worker: DeviceWorker) -> None:
    made: list[int] = []
    failing, good = worker.add_call(lambda: [].pop()), worker.add_call(lambda: made.append(1))
    make_calls(worker.take_calls())
    assert isinstance(failing.exception(0), IndexError)
    assert good.result(0) is None
    assert made == [1]


def test_a_lost_device_takes_no_calls(worker: DeviceWorker) -> None:
    waiting = worker.add_call(lambda: None)
    worker.lost = True
    worker.reject_calls(Stopping("a device of the server failed"))
    assert isinstance(waiting.exception(0), Stopping)
    with pytest.raises(Stopping):
        worker.add_call(lambda: None)
