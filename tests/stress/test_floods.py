"""Floods of a real server: it answers meanwhile or right after, and holds nothing of them when they are over."""

import itertools
import socket
import struct
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from benchmarks.stress.servers import KillableServer
from benchmarks.stress.wire import memory
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_client import Backbone, Client, Retry
from helpers.forking import ForkedKillableServer

CONNECTIONS, STREAMS = 200, 300
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GARBAGE = {
    "noise": bytes(np.random.default_rng(0).integers(0, 256, 4096, np.uint8)),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 200,
    "a preface and noise": PREFACE + bytes(range(256)) * 16,
    "frames of no length": PREFACE + struct.pack(">I", 0)[1:] + b"\x04\x00\x00\x00\x00\x00" + b"\xff\xff\xff\xff" * 64,
    "pings": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh" * 2000,
    "settings": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 5000,
    "half a preface": PREFACE[:10],
}
# POST over http, without Huffman coding, of a unary call.
HEADERS = b"\x83\x86\x04\x26/foldmint.v1.TokenizerService/Tokenize\x01\x01x" + b"".join(
    b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
    for name, value in ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
)
FLOODING, FLOODED_BYTES = 64, 3 * 2**28


@pytest.fixture(scope="module")
def server() -> Iterator[KillableServer]:
    with ForkedKillableServer() as running:
        assert ask(running) == 8
        yield running


def walk() -> np.ndarray:
    """Coordinates of 8 residues, (8, 3, 3)."""
    return np.cumsum(np.random.default_rng(0).normal(size=(8, 3, 3)) * 2, 0).astype("<f4")


def good() -> pb.TokenizeRequest:
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=[pb.Backbone(coordinates=walk().tobytes())]))


def ask(server: KillableServer) -> int:
    """Ask over a connection of its own: tokens in the answer."""
    with grpc.insecure_channel(server.address) as channel:
        return len(rpc.TokenizerServiceStub(channel).Tokenize(good(), timeout=60).chains[0].tokens)


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def descriptors(server: KillableServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def settle(server: KillableServer, before: int, slack: int = 10) -> None:
    """Wait until the server has let go of what came."""
    until = time.monotonic() + 90
    while descriptors(server) > before + slack:
        assert time.monotonic() < until, f"{descriptors(server)} descriptors, {before} before"
        time.sleep(0.1)


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_no_grpc(server: KillableServer, kind: str) -> None:
    before, bytes_before = descriptors(server), memory(server.pid)
    with ExitStack() as open_:
        for _ in range(CONNECTIONS // 4):
            one = open_.enter_context(connected(server.address))
            with suppress(OSError):  # the server may hang up meanwhile
                one.sendall(GARBAGE[kind])
        assert ask(server) == 8
    settle(server, before)
    assert memory(server.pid) - bytes_before < 2**28


def test_calls_that_are_opened_and_reset_at_once(server: KillableServer) -> None:
    """Over many connections, each with no more open at a time than it may have: memory is bounded for all together."""
    before, bytes_before = descriptors(server), memory(server.pid)
    opened = b"".join(
        frame(1, 4, number, HEADERS) + frame(3, 0, number, struct.pack(">I", 8)) for number in range(1, 4001, 2)
    )
    with ExitStack() as open_, ThreadPoolExecutor(FLOODING) as pool:
        connections = [open_.enter_context(connected(server.address)) for _ in range(FLOODING)]

        def flood(one: socket.socket) -> None:
            with suppress(OSError):  # the server may hang up meanwhile
                one.sendall(PREFACE + frame(4, 0, 0) + frame(4, 1, 0) + opened)

        list(pool.map(flood, connections))
        # gRPC drops calls while those of the flood wait to be taken; a client makes them again.
        with Client(server.address, timeout=300, retry=Retry(refused_attempts=300)) as client:
            assert len(client.tokenize(Backbone(walk())).chains[0].tokens) == 8
        assert memory(server.pid) - bytes_before < FLOODED_BYTES
    settle(server, before)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@pytest.mark.parametrize("listener", ["address", "metrics", "admin"])
def test_connections_that_say_nothing(server: KillableServer, listener: str) -> None:
    before = descriptors(server)
    with ExitStack() as open_:
        for _ in range(CONNECTIONS):
            open_.enter_context(connected(getattr(server, listener)))
        assert ask(server) == 8
    settle(server, before)


def test_connections_that_are_reset(server: KillableServer) -> None:
    before = descriptors(server)
    for address in (server.address, server.metrics, server.admin):
        for _ in range(CONNECTIONS // 4):
            with connected(address) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.sendall(PREFACE)
    assert ask(server) == 8
    settle(server, before)


@pytest.mark.parametrize("kind", [*GARBAGE, "a head without end", "a method of no name"])
def test_what_is_no_http_on_the_metrics_port(server: KillableServer, kind: str) -> None:
    odd = {
        "a head without end": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
        "a method of no name": b"\x00\xff / HTTP/1.1\r\n\r\n",
    }
    with ExitStack() as open_:
        for _ in range(16):
            one = open_.enter_context(connected(server.metrics))
            with suppress(OSError):  # the server may hang up meanwhile
                one.sendall((GARBAGE | odd)[kind])
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=60) as answer:
            assert b"foldmint_ready 1" in answer.read()


def test_metadata_without_end(server: KillableServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        for _ in range(20):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Tokenize(good(), metadata=(("x-long", "y" * 1_000_000),), timeout=60)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        assert len(stub.Tokenize(good(), timeout=60).chains[0].tokens) == 8


def test_streams_that_are_opened_and_left(server: KillableServer) -> None:
    """More than a caller may have: each sends, none is read; then they are gone, in the middle of it."""
    before, bytes_before = descriptors(server), memory(server.pid)
    with grpc.insecure_channel(server.address, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        item = pb.TokenizeStreamRequest(id=1, request=good())
        calls = [stub.TokenizeStream(itertools.repeat(item, 20), timeout=120) for _ in range(STREAMS)]
        assert ask(server) == 8
        for call in calls:
            call.cancel()
    settle(server, before)
    until = time.monotonic() + 90
    while in_flight(server):
        assert time.monotonic() < until, "structures of streams that are gone are still worked on"
        time.sleep(0.1)
    assert ask(server) == 8
    assert memory(server.pid) - bytes_before < 2**29


def in_flight(server: KillableServer) -> float:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=60) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("foldmint_requests_in_flight "))


def test_senders_that_stop_within_a_message(server: KillableServer, data: Path) -> None:
    """A request whose end never comes holds nobody up, nor do a hundred."""
    before = descriptors(server)
    with ExitStack() as open_:
        for _ in range(CONNECTIONS // 2):
            one = open_.enter_context(connected(server.address))
            # A client's preface and settings, and the beginning of a frame of headers.
            one.sendall(
                PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x10\x00\x01\x04\x00\x00\x00\x01" + b"\x82"
            )
        assert ask(server) == 8
    settle(server, before)
