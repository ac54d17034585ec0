"""What the scheduler keeps of each device and its thread: whether it hangs or is lost, and the calls it is to make."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from foldmint_server.errors import Stopping
from foldmint_server.inference.batch_executor import BatchExecutor, Device
from foldmint_server.inference.futures import LOST, run

# How long a computation of next to nothing may take.
_PROBE_SECONDS = 3.0
Call = tuple[Callable[[], None], "Future[None]"]


@dataclass(eq=False)
class DeviceWorker:
    """A device and its thread.

    calls: to be made in the thread before the next batch. began: when its batch did, None between batches. lost: the
    thread ended before the scheduler was closed. name: of the device, which several workers of a CPU share.
    """

    number: int
    device: Device
    executor: BatchExecutor
    calls: deque[Call] = field(default_factory=deque)
    began: float | None = None
    lost: bool = False
    name: str = ""

    def hung(self, now: float, seconds: float) -> bool:
        """Whether one batch takes longer than this, or a probe of the device too long."""

        def late(since: float | None, limit: float) -> bool:
            return since is not None and now - since > limit

        return late(self.began, seconds) or late(self.executor.probing_since, _PROBE_SECONDS)

    def add_call(self, call: Callable[[], None]) -> "Future[None]":
        """Have the thread make a call before its next batch. Raises Stopping if the device is lost."""
        if self.lost:
            raise Stopping(LOST)
        future: Future[None] = Future()
        self.calls.append((call, future))
        return future

    def take_calls(self) -> list[Call]:
        """The calls to make now."""
        calls = list(self.calls)
        self.calls.clear()
        return calls

    def reject_calls(self, error: Exception) -> None:
        """Fail the calls that were not made."""
        for _, future in self.take_calls():
            future.set_exception(error)


def make_calls(calls: Sequence[Call]) -> None:
    """Make calls in the present thread. Raises DeviceLost, and what is not an Exception; the calls after it fail."""
    for number, (call, future) in enumerate(calls, 1):
        try:
            run(call, future)
        except BaseException:
            for _, left in calls[number:]:
                left.set_exception(Stopping(LOST))
            raise
