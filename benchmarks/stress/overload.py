"""More calls than a server accepts: many concurrent ones, health watches, silent streams; and probes meanwhile."""

import itertools
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc

_SECONDS = 120.0
_OWN = ("grpc.use_local_subchannel_pool", 1)  # a connection of its own for each channel


@contextmanager
def channels(address: str, count: int) -> Iterator[list[grpc.Channel]]:
    """Channels of one connection each."""
    with ExitStack() as open_:
        yield [open_.enter_context(grpc.insecure_channel(address, [_OWN])) for _ in range(count)]


def structure(residues: int = 8) -> pb.TokenizeRequest:
    """A request for tokens."""
    x = np.cumsum(np.random.default_rng(0).normal(size=(residues, 3, 3)) * 2, 0).astype("<f4")
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=[pb.Backbone(coordinates=x.tobytes())]))


@dataclass
class Outcomes:
    """What became of calls. statuses: how many had each. told: refusals that said when to try again."""

    statuses: Counter[str] = field(default_factory=Counter)
    told: int = 0
    texts: Counter[str] = field(default_factory=Counter)

    def count(self, call: Any) -> None:  # noqa: ANN401 (gRPC's class of it is private)
        """Wait for a unary call, and count it."""
        self.statuses[call.code().name] += 1
        if call.code() is not grpc.StatusCode.OK:
            self.told += retry_after(call) is not None
            self.texts[call.details() or ""] += 1


def retry_after(call: Any) -> float | None:  # noqa: ANN401
    """Seconds after which a refusal asks to come again."""
    status = rpc_status.from_call(call)
    delay = error_details_pb2.RetryInfo()
    if status is None or not any(detail.Unpack(delay) for detail in status.details):
        return None
    return float(delay.retry_delay.ToMilliseconds() / 1000)


def burst(address: str, calls: int, connections: int = 4, residues: int = 8) -> Outcomes:
    """So many unary calls at once, once each."""
    outcomes, request = Outcomes(), structure(residues)
    with channels(address, connections) as open_:
        for channel in open_:
            grpc.channel_ready_future(channel).result(_SECONDS)
        stubs = itertools.cycle([rpc.TokenizerServiceStub(channel) for channel in open_])
        started = [next(stubs).Tokenize.future(request, timeout=_SECONDS) for _ in range(calls)]
        for call in started:
            outcomes.count(call)
    return outcomes


@dataclass
class Watches:
    """Health watches that are open until the end. refused: how many ended with RESOURCE_EXHAUSTED; told: and said when
    to try again.
    """

    open: int = 0
    refused: int = 0
    told: int = 0
    others: Counter[str] = field(default_factory=Counter)


@contextmanager
def watching(address: str, watches: int, connections: int = 3) -> Iterator[Watches]:
    """So many health watches, spread over connections; entered once each was answered or refused."""
    found, answered, lock = Watches(), threading.Semaphore(0), threading.Lock()

    def read(call: Any) -> None:  # noqa: ANN401
        try:
            next(call)
            with lock:
                found.open += 1
            answered.release()
            for _ in call:
                pass
        except grpc.RpcError:
            with lock:
                code = call.code()
                if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    found.refused += 1
                    found.told += retry_after(call) is not None
                elif code is not grpc.StatusCode.CANCELLED:
                    found.others[code.name] += 1
            answered.release()

    with channels(address, connections) as open_:
        stubs = itertools.cycle([health_pb2_grpc.HealthStub(channel) for channel in open_])
        calls = [next(stubs).Watch(health_pb2.HealthCheckRequest()) for _ in range(watches)]  # type: ignore[attr-defined]
        readers = [threading.Thread(target=read, args=(call,), daemon=True) for call in calls]
        for reader in readers:
            reader.start()
        for _ in calls:
            answered.acquire(timeout=_SECONDS)
        try:
            yield found
        finally:
            for call in calls:
                call.cancel()
            for reader in readers:
                reader.join(_SECONDS)


class Prober:
    """Asks a server for its health again and again, each time over a new connection, as Kubernetes does.

    failed: what went wrong. seconds: that each took.
    """

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        self.failed: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._address, self._timeout = address, timeout
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            began = time.monotonic()
            try:
                with grpc.insecure_channel(self._address, [_OWN]) as channel:
                    answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                        health_pb2.HealthCheckRequest(), timeout=self._timeout
                    )
                if answer.status != health_pb2.HealthCheckResponse.SERVING:
                    self.failed["not serving"] += 1
            except grpc.RpcError as error:
                self.failed[f"{error.code().name}: {error.details()}"] += 1
            self.seconds.append(time.monotonic() - began)


def counted(metrics: str, name: str) -> dict[str, float]:
    """The series of a counter with one label, by the label's value."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as page:
        lines = page.read().decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith(f"{name}{{")]
    return {series.split('"')[1]: float(value) for series, _, value in found}
