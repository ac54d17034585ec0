"""What a caller may send, how much of it, and how long it may send or read nothing."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_client import Backbone, Client, Tokens
from foldmint_server.errors import Stopping, StreamLimitReached
from foldmint_server.rpc.stream_limits import Requests, StreamLimits
from helpers.support import RunningServer, metrics_of, running_server, stub_of
from helpers.waiting import until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # and empty SETTINGS
PING = b"\0\0\x08\x06\0\0\0\0\0" + b"\0" * 8
GOAWAY = 7


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningServer]:
    """A server that expects haste."""
    limits = {
        "stream-idle-seconds": 1,
        "send-timeout-seconds": 1.5,
        "max-stream-structures": 5,
        "max-streams-per-caller": 3,
        "max-metadata-bytes": 4096,
        "min-ping-seconds": 60,
        "max-connection-idle-seconds": 3,
    }
    with running_server(*(text for name, value in limits.items() for text in (f"--{name}", str(value)))) as server:
        yield server


@pytest.fixture
def stub(strict: RunningServer) -> Iterator[rpc.TokenizerServiceStub]:
    with stub_of(strict) as one:
        yield one


def item(number: int, residues: int = 5) -> pb.TokenizeStreamRequest:
    """A structure without frames, whose tokens take next to no time."""
    coordinates = np.full((residues, 3, 3), np.nan, "<f4").tobytes()
    request = pb.TokenizeRequest(backbones=pb.Backbones(chains=[pb.Backbone(chain="A", coordinates=coordinates)]))
    request.options.distances = True
    return pb.TokenizeStreamRequest(id=number, request=request)


def ended(server: RunningServer, reason: str) -> float:
    return metrics_of(server)[f'foldmint_calls_ended_total{{reason="{reason}"}}']


class Open:
    """A stream that is kept open."""

    def __init__(self, stub: rpc.TokenizerServiceStub, *items: pb.TokenizeStreamRequest) -> None:
        self._items = list(items)
        self._close = False
        self.call = stub.TokenizeStream(self._requests(), timeout=60)

    def _requests(self) -> Iterator[pb.TokenizeStreamRequest]:
        yield from self._items
        while not self._close:
            time.sleep(0.02)

    def close(self) -> None:
        self._close = True
        self.call.cancel()

    def failure(self) -> tuple[grpc.StatusCode, str]:
        """What it ends with, once all answers are taken."""
        with pytest.raises(grpc.RpcError) as caught:
            for _ in self.call:
                pass
        self._close = True
        assert isinstance(caught.value, grpc.Call)
        return caught.value.code(), caught.value.details() or ""


def test_metadata_is_bounded(stub: rpc.TokenizerServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(pb.GetModelRequest(), metadata=(("x-large", "y" * 10_000),), timeout=30)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.GetModel(pb.GetModelRequest(), metadata=(("x-small", "y" * 1_000),), timeout=30).model


def test_a_stream_that_sends_nothing_is_ended(strict: RunningServer, stub: rpc.TokenizerServiceStub) -> None:
    before = ended(strict, "idle")
    stream = Open(stub, item(1))
    assert next(stream.call).id == 1
    assert stream.failure() == (grpc.StatusCode.UNAVAILABLE, "nothing was sent for 1 seconds")
    assert ended(strict, "idle") == before + 1


def test_a_stream_that_reads_nothing_is_ended(strict: RunningServer) -> None:
    """Its windows are as small as HTTP/2 has them from the start, and its answers larger."""
    before = ended(strict, "not_read")
    options = [("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(strict.address, options=options) as channel:
        stream = Open(rpc.TokenizerServiceStub(channel), *(item(number, 20_000) for number in range(5)))
        assert next(stream.call).response.chains
        until = time.monotonic() + 60
        while ended(strict, "not_read") == before and time.monotonic() < until:
            time.sleep(0.1)
        assert ended(strict, "not_read") == before + 1
        assert metrics_of(strict)["foldmint_requests_in_flight"] == 0
        code, details = stream.failure()
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "answers were not taken for 1.5 seconds")


def test_a_stream_has_so_many_structures(strict: RunningServer, stub: rpc.TokenizerServiceStub) -> None:
    call = stub.TokenizeStream(item(number) for number in range(8))
    got: list[int] = []
    with pytest.raises(grpc.RpcError) as caught:
        got.extend(answer.id for answer in call)
    assert sorted(got) == [0, 1, 2, 3, 4]
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "had its 5 structures" in (caught.value.details() or "")
    # A client opens another for the rest, and its caller does not see it.
    structures = [Backbone(np.full((length, 3, 3), np.nan)) for length in range(1, 13)]
    with Client(strict.address) as client:
        results = [result for _, result in client.tokenize_many(structures)]
    lengths = [len(result.chains[0].tokens) for result in results if isinstance(result, Tokens)]
    assert lengths == list(range(1, 13))


def test_a_caller_has_so_many_streams(strict: RunningServer, stub: rpc.TokenizerServiceStub) -> None:
    streams = [Open(stub, item(number)) for number in range(3)]
    assert [next(stream.call).id for stream in streams] == [0, 1, 2]
    code, details = Open(stub, item(3)).failure()
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "3 streams are open" in details
    assert ended(strict, "too_many_streams") >= 1
    for stream in streams:
        stream.close()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            assert next(stub.TokenizeStream(iter([item(9)]), timeout=30)).id == 9
            break
        except grpc.RpcError:
            time.sleep(0.1)
    else:
        pytest.fail("the streams that were closed still count")


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Type and content of each frame that comes, until the connection ends."""
    data = b""
    while part := connection.recv(65536):
        data += part
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            end = 9 + int.from_bytes(data[:3], "big")
            yield data[3], data[9:end]
            data = data[end:]


def connected(server: RunningServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(PREFACE)
    return connection


def test_who_pings_without_pause_is_sent_away(strict: RunningServer) -> None:
    with connected(strict) as connection:
        connection.sendall(PING * 20)
        (reason,) = [content for kind, content in frames(connection) if kind == GOAWAY]
    assert b"too_many_pings" in reason


def test_a_connection_without_calls_is_closed(strict: RunningServer) -> None:
    with connected(strict) as connection:
        kinds = [kind for kind, _ in frames(connection)]  # to the end of the connection
    assert GOAWAY in kinds


async def test_a_stream_that_is_worked_on_is_not_idle() -> None:
    working = True
    reasons: list[str] = []
    looks: list[bool] = []

    def is_working() -> bool:
        looks.append(working)
        return working

    async def nothing() -> AsyncIterator[pb.TokenizeStreamRequest]:
        await asyncio.sleep(60)
        yield item(1)

    requests = Requests(nothing(), asyncio.Event(), StreamLimits(1, idle_seconds=0.05), is_working, reasons.append)

    async def read() -> list[int]:
        return [one.id async for one in requests]

    reading = asyncio.create_task(read())
    await until(lambda: len(looks) > 3)
    assert not reading.done()
    working = False
    assert await asyncio.wait_for(reading, 10) == []
    assert isinstance(requests.over, StreamLimitReached)
    assert reasons == ["idle"]


async def test_a_request_in_time_renews_the_wait() -> None:
    reasons: list[str] = []

    async def slowly() -> AsyncIterator[pb.TokenizeStreamRequest]:
        for number in range(8):
            await asyncio.sleep(0.15)
            yield item(number)
        await asyncio.sleep(600)

    requests = Requests(slowly(), asyncio.Event(), StreamLimits(1, idle_seconds=1.0), lambda: False, reasons.append)
    began = time.monotonic()
    assert [one.id async for one in requests] == [*range(8)]
    assert time.monotonic() - began > 2
    assert isinstance(requests.over, StreamLimitReached)
    assert reasons == ["idle"]


async def test_a_server_that_stops_waits_for_no_more_requests() -> None:
    stop, asked = asyncio.Event(), asyncio.Event()

    async def one_request() -> AsyncIterator[pb.TokenizeStreamRequest]:
        yield item(1)
        asked.set()
        await asyncio.sleep(600)

    requests = Requests(one_request(), stop, StreamLimits(1), lambda: True, lambda _: None)

    async def read() -> list[int]:
        return [one.id async for one in requests]

    reading = asyncio.create_task(read())
    await asyncio.wait_for(asked.wait(), 10)
    stop.set()
    assert await asyncio.wait_for(reading, 10) == [1]
    assert isinstance(requests.over, Stopping)
    # Nor for those that wait already.
    requests = Requests(one_request(), stop, StreamLimits(1), lambda: True, lambda _: None)
    assert await asyncio.wait_for(read(), 10) == []
    assert isinstance(requests.over, Stopping)
