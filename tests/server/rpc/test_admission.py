"""How many calls, health watches and connections a server takes, and what it tells those that it refuses."""

import asyncio
import json
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.stress.overload import counted, retry_after, structure, watching
from foldmint.v1 import codebook_pb2, codebook_pb2_grpc
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_client import Backbone, Client, Retry, Tokens
from foldmint_server.rpc.admission.peers import network_of
from foldmint_server.security.bearer_tokens import AccessToken, digest_of, format_tokens
from helpers.support import RunningServer, metrics_of, running_server
from helpers.waiting import wait_until

LIMITS = {
    "max-concurrent-calls": 6,
    "max-calls-per-caller": 4,
    "max-watches": 8,
    "max-watches-per-peer": 5,
    "max-connections-per-peer": 20,
}
NAMES = ("alice", "bob")
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
METHOD = "/foldmint.v1.TokenizerService/Tokenize"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that takes little, and knows two callers."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    scopes = frozenset({"tokenize", "read", "admin"})
    known = [AccessToken(name, digest_of(f"{name}-token"), scopes) for name in NAMES]  # type: ignore[arg-type]
    file.write_text(format_tokens(known))
    file.chmod(0o600)
    options = [text for name, value in LIMITS.items() for text in (f"--{name}", str(value))]
    with running_server(*options, "--tokens-file", str(file), "--stream-idle-seconds", "600") as running:
        yield running


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {name}-token"),)


def rejected(server: RunningServer, reason: str) -> float:
    return counted(server.metrics, "foldmint_rejects_total")[reason]


class Silent:
    """Requests that never come, until they are told to end."""

    def __init__(self) -> None:
        self._end = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        while not self._end.wait(0.05):
            pass
        yield from ()

    def end(self) -> None:
        self._end.set()


def open_calls(server: RunningServer, kind: str = "calls") -> float:
    return counted(server.metrics, "foldmint_open_calls")[kind]


@contextmanager
def held(
    server: RunningServer, channel: grpc.Channel, name: str | None, count: int, method: str = METHOD
) -> Iterator[list[Any]]:
    """Calls of a caller whose message does not come; entered once they are admitted, left once they are gone.

    name: None for a caller without a token.
    """
    before = open_calls(server)
    silent = Silent()
    metadata = None if name is None else bearer(name)
    calls: list[Any] = [channel.stream_stream(method)(iter(silent), metadata=metadata) for _ in range(count)]
    try:
        wait_until(lambda: open_calls(server) == before + count)
        yield calls
    finally:
        silent.end()
        for call in calls:
            call.cancel()
        wait_until(lambda: open_calls(server) == before)


def ask(channel: grpc.Channel, name: str) -> int:
    answer = rpc.TokenizerServiceStub(channel).Tokenize(structure(), metadata=bearer(name), timeout=60)
    return len(answer.chains[0].tokens)


def refusal(channel: grpc.Channel, name: str) -> Any:
    """The call that is refused."""
    call = rpc.TokenizerServiceStub(channel).Tokenize.future(structure(), metadata=bearer(name), timeout=60)
    assert call.code() is not grpc.StatusCode.OK
    return call


def status(health: health_pb2_grpc.HealthStub) -> int:
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)  # type: ignore[attr-defined]
    return int(answer.status)


@pytest.mark.parametrize("kind", ["unary", "stream", "reflection"])
def test_one_callers_idle_calls_leave_room_for_others(server: RunningServer, kind: str) -> None:
    method = {
        "unary": METHOD,
        "stream": "/foldmint.v1.TokenizerService/TokenizeStream",
        "reflection": REFLECTION,
    }[kind]
    with grpc.insecure_channel(server.address) as channel:
        before = rejected(server, "too_many_calls_of_caller")
        with held(server, channel, "alice", LIMITS["max-calls-per-caller"], method):
            call = refusal(channel, "alice")
            assert call.code() is EXHAUSTED
            assert call.details() == "4 calls of this caller are under way; try again later"
            assert 0.5 <= (retry_after(call) or 0) <= 1.5
            assert rejected(server, "too_many_calls_of_caller") == before + 1
            assert ask(channel, "bob") == 8
        assert ask(channel, "alice") == 8


def test_a_full_server_says_so_and_answers_probes_and_operators(server: RunningServer) -> None:
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        for name, count in (("alice", 4), ("bob", 2)):
            stack.enter_context(held(server, channel, name, count))
        call = refusal(channel, "bob")
        assert call.details() == "6 calls are under way; try again later"
        assert retry_after(call)
        assert rejected(server, "too_many_calls") >= 1
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for _ in range(20):
            assert status(health) == serving
        watch = health.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert next(watch).status == serving
        watch.cancel()
    with ExitStack() as stack:
        admin = stack.enter_context(grpc.insecure_channel(server.admin))
        for name, count in (("alice", 4), ("bob", 2)):
            stack.enter_context(held(server, admin, name, count))
        assert refusal(admin, "bob").code() is EXHAUSTED
        stub = codebook_pb2_grpc.CodebookServiceStub(admin)
        assert stub.ListCodebooks(codebook_pb2.ListCodebooksRequest(), metadata=bearer("alice"), timeout=30).codebooks


def test_a_refused_client_comes_again(server: RunningServer) -> None:
    """It waits as long as it is told, with calls and with streams."""
    structures = [Backbone(x) for x in np.random.default_rng(0).normal(size=(3, 8, 3, 3)) * 10]
    retry = Retry(refused_attempts=100)
    with Client(server.address, token=f"{NAMES[0]}-token", retry=retry) as client, ThreadPoolExecutor(2) as pool:
        with grpc.insecure_channel(server.address) as channel, held(server, channel, "alice", 4):
            before = rejected(server, "too_many_calls_of_caller")
            call = pool.submit(client.tokenize, structures[0])
            stream = pool.submit(lambda: [result for _, result in client.tokenize_many(structures)])
            wait_until(lambda: rejected(server, "too_many_calls_of_caller") >= before + 4)
            assert not call.done()
            assert not stream.done()
        answers = [call.result(120), *stream.result(120)]
    assert [len(answer.chains[0].tokens) for answer in answers if isinstance(answer, Tokens)] == [8] * 4


def test_watches_are_bounded_and_take_no_calls_places(server: RunningServer) -> None:
    with watching(server.address, 12) as watches:
        assert (watches.open, watches.refused, watches.others) == (5, 7, {})
        assert rejected(server, "too_many_watches_of_caller") == 7
        with grpc.insecure_channel(server.address) as channel:
            assert ask(channel, "alice") == 8
    with watching(server.address, 1) as watches:
        assert watches.open == 1


def test_watches_of_names_without_end_are_refused(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub, name = health_pb2_grpc.HealthStub(channel), "x" * 1000
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)  # type: ignore[attr-defined]
        assert watch.code() is grpc.StatusCode.INVALID_ARGUMENT


CALLS = 400


def test_a_connections_calls_over_its_limit_wait_and_are_answered() -> None:
    """Clients keep them back; gRPC itself resets none."""
    with running_server("--max-calls-per-connection", "8", "--max-calls-per-caller", "100") as server:
        assert asyncio.run(at_once(server.address, CALLS)) == Counter(OK=CALLS)
        assert rejected(server, "too_many_calls_of_caller") == 0


def test_a_callers_calls_over_its_limit_are_each_refused() -> None:
    """As many at once as one connection takes, each with its status; gRPC itself resets none."""
    with (
        running_server("--max-calls-per-connection", "1000", "--max-calls-per-caller", "100") as server,
        grpc.insecure_channel(server.address) as channel,
        held(server, channel, None, 100),
    ):
        assert asyncio.run(at_once(server.address, CALLS)) == Counter(RESOURCE_EXHAUSTED=CALLS)
        assert rejected(server, "too_many_calls_of_caller") == CALLS


async def at_once(address: str, calls: int) -> Counter[str]:
    """The statuses of so many calls, once each, of which the first opens the connection."""
    request, statuses = structure(), Counter[str]()
    async with grpc.aio.insecure_channel(address, [("grpc.enable_retries", 0)]) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        open_ = [stub.Tokenize(request, timeout=120) for _ in range(calls)]
        for call in open_:
            statuses[(await call.code()).name] += 1
    return statuses


def test_a_peer_has_so_many_connections(server: RunningServer) -> None:
    """Idle ones, of which gRPC tells nothing; the oldest stay."""
    host, _, port = server.address.rpartition(":")
    before = rejected(server, "too_many_connections")
    with ExitStack() as stack:
        first = stack.enter_context(grpc.insecure_channel(server.address))
        assert ask(first, "alice") == 8
        wait_until(lambda: metrics_of(server)['foldmint_connections{listener="public"}'] >= 1)
        for _ in range(60):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
        wait_until(lambda: rejected(server, "too_many_connections") >= before + 41)
        wait_until(lambda: metrics_of(server)['foldmint_connections{listener="public"}'] <= 20)
        assert ask(first, "alice") == 8
    wait_until(lambda: metrics_of(server)['foldmint_connections{listener="public"}'] == 0)


def test_the_limit_of_open_files_is_raised_to_what_connections_need() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # the server's, too
        try:
            server = stack.enter_context(running_server("--max-connections", "800"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        raised, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert raised >= min(2 * 800, hard)


def test_calls_that_send_nothing_are_ended() -> None:
    with running_server("--stream-idle-seconds", "1") as server, grpc.insecure_channel(server.address) as channel:
        silent = Silent()
        calls: list[Any] = [channel.stream_stream(method)(iter(silent), timeout=60) for method in (METHOD, REFLECTION)]
        for call in calls:
            assert call.code() is grpc.StatusCode.UNAVAILABLE
            assert call.details() == "nothing was sent for 1 seconds"
        assert counted(server.metrics, "foldmint_calls_ended_total")["idle"] == 2
        silent.end()


def test_refusals_are_logged_with_their_number(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server("--max-watches-per-peer", "2", log=log) as server, watching(server.address, 50) as watches:
        assert watches.refused == 48
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    refused = [line for line in lines if line["event"] == "call refused"]
    assert [line["reason"] for line in refused] == ["too_many_watches_of_caller"] * len(refused)
    assert len(refused) <= 3
    assert sum(line.get("times", 1) for line in refused) == 48
    assert refused[0]["peer"].startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:10.1.2.3:4567", "10.1.2.3"),
        ("ipv6:%5B::1%5D:4567", "::/64"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4567", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:1", "10.1.2.3"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("unix:/run/foldmint", "unix:/run/foldmint"),
    ],
)
def test_a_peer_is_an_address_or_a_network_of_ipv6(peer: str, network: str) -> None:
    assert network_of(peer) == network
