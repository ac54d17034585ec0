"""Jobs on several scripted servers: who gets how much, who is waited for, and whom errors name."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from client.conftest import Both, Scripted, ScriptedServer
from client.transport.streams import Code, Requests, Responses, numbers

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client import FailedPrecondition, InvalidStructure, Retry, Tls, Tokens, Unauthenticated
from helpers.servers.grpc_fault import Fault

if TYPE_CHECKING:
    from pathlib import Path

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@contextmanager
def scripted(address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> Iterator[Any]:
    """A server at an address."""
    servicer = Scripted()
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(servicer, server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield ScriptedServer(servicer, None, port)  # type: ignore[arg-type]
    finally:
        servicer.hang.set()
        server.stop(0).wait()


@pytest.fixture
def three() -> Iterator[list[ScriptedServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(scripted()) for _ in range(3)]


def both(kind: str, target: str, **options: Any) -> Both:
    """A client of several servers, whose pauses are not noted but slept."""

    class Slept(Both):
        def sync(self) -> Any:
            from foldmint_client import Client

            return Client(target, **self.options)

        def aio(self) -> Any:
            from foldmint_client import AsyncClient

            return AsyncClient(target, **self.options)

    retry = Retry(initial_backoff=0.05, maximum_backoff=0.2)
    return Slept(kind, None, {"retry": retry, **options})  # type: ignore[arg-type]


def target_of(servers: list[ScriptedServer]) -> str:
    return ",".join(server.target for server in servers)


def check(results: list[tuple[Any, Any]], count: int) -> None:
    """All results, once, in order."""
    assert [(key, int(tokens.chains[0].tokens[0])) for key, tokens in results] == [
        (number, number) for number in range(count)
    ]


def delayed(server: ScriptedServer, seconds: float) -> Callable[[Requests, grpc.ServicerContext], Responses]:
    def stream(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            time.sleep(seconds)
            yield server.answer(request)

    return stream


@KINDS
@pytest.mark.parametrize("ordered", [True, False])
def test_a_slow_server_gets_less(kind: str, ordered: bool, three: list[ScriptedServer]) -> None:
    for server, seconds in zip(three, (0.002, 0.3, 0.002), strict=True):
        server.servicer.stream = delayed(server, seconds)
    results = both(kind, target_of(three)).many(numbers(400), in_flight=12, ordered=ordered)
    check(sorted(results, key=lambda result: int(result[0])), 400)
    fast, slow, other = (len(server.servicer.requests) for server in three)
    assert fast + slow + other == 400
    assert slow > 0
    assert min(fast, other) > 3 * slow


@KINDS
def test_what_a_hung_server_has_goes_to_another(kind: str, three: list[ScriptedServer]) -> None:
    def hung(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for count, request in enumerate(requests):
            if count >= 5:
                three[1].servicer.hang.wait(30)
                return
            yield three[1].answer(request)

    three[1].servicer.stream = hung
    check(both(kind, target_of(three), timeout=1.0).many(numbers(200), in_flight=12), 200)


@KINDS
def test_a_server_that_breaks_again_and_again(kind: str, three: list[ScriptedServer]) -> None:
    """It is not given up, and the others do its work."""

    def breaking(requests: Requests, context: grpc.ServicerContext) -> Responses:
        next(requests)
        Fault(Code.UNAVAILABLE, "out of order").abort(context)
        return iter(())

    three[2].servicer.stream = breaking
    for server in three[:2]:
        server.servicer.stream = delayed(server, 0.005)
    check(both(kind, target_of(three)).many(numbers(300), in_flight=12), 300)
    assert three[2].servicer.streams > 1


@KINDS
def test_a_server_that_rejects_the_caller_is_left_out(kind: str, three: list[ScriptedServer]) -> None:
    three[0].fail(Code.UNAUTHENTICATED, times=100)
    client = both(kind, target_of(three))
    check(client.many(numbers(100)), 100)
    for server in three[1:]:
        server.fail(Code.UNAUTHENTICATED, times=100)
    with pytest.raises(Unauthenticated) as caught:
        client.many(numbers(3))
    assert any(str(caught.value).startswith(f"{server.target}: ") for server in three)


@KINDS
def test_calls_take_turns(kind: str, three: list[ScriptedServer]) -> None:
    client = both(kind, target_of(three))

    async def calls() -> None:
        async with client.aio() as aio:
            for _ in range(6):
                await aio.tokenize(b"1")

    def run() -> None:
        if kind == "async":
            import asyncio

            asyncio.run(calls())
            return
        with client.sync() as sync:
            for _ in range(6):
                sync.tokenize(b"1")

    run()
    assert [len(server.servicer.requests) for server in three] == [2, 2, 2]
    three[1].fail(Code.UNAVAILABLE, times=100)
    run()
    assert sum(len(server.servicer.requests) for server in three[::2]) == 10
    three[1].servicer.faults.clear()
    # An invalid structure is so everywhere; what one server lacks, another may have. Each client begins with the first.
    three[0].fail(Code.INVALID_ARGUMENT)
    with pytest.raises(InvalidStructure, match=f"^{three[0].target}: "):
        client.tokenize(b"1")
    three[0].fail(Code.FAILED_PRECONDITION)
    before = len(three[1].servicer.requests)
    assert client.tokenize(b"1").model == "scripted"
    assert len(three[1].servicer.requests) == before + 1


@KINDS
def test_refused_for_now_here_is_answered_there(kind: str, three: list[ScriptedServer]) -> None:
    tries: Counter[int] = Counter()
    lock = threading.Lock()

    def full(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            with lock:
                tries[request.id] += 1
            failure = tokenizer_pb2.Failure(code=Code.RESOURCE_EXHAUSTED.value[0], message="full")
            yield tokenizer_pb2.TokenizeStreamResponse(id=request.id, failure=failure)

    three[1].servicer.stream = full
    check(both(kind, target_of(three)).many(numbers(100), in_flight=12), 100)
    assert tries


@KINDS
def test_another_encoder_gets_no_work(kind: str, three: list[ScriptedServer], monkeypatch: pytest.MonkeyPatch) -> None:
    def with_digest(digest: str, server: ScriptedServer) -> Callable[[Requests, grpc.ServicerContext], Responses]:
        def stream(requests: Requests, context: grpc.ServicerContext) -> Responses:
            for request in requests:
                response = server.answer(request)
                response.response.encoder_digest = digest
                yield response

        return stream

    for server, digest in zip(three, ("ab" * 32, "ab" * 32, "ff" * 32), strict=True):
        server.servicer.stream = with_digest(digest, server)
    results = both(kind, target_of(three)).many(numbers(100), in_flight=12)
    check(results, 100)
    assert {tokens.encoder_digest for _, tokens in results} == {"ab" * 32}
    # A single call goes on to a server that agrees, too.
    version = results[0][1].version
    (one,) = both(kind, three[2].target).many([b"1"], codebook_version=version)
    assert isinstance(one[1], FailedPrecondition)
    assert isinstance(results[0][1], Tokens)


@KINDS
def test_a_name_of_several_servers_with_tls(kind: str, tmp_path: "Path", monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a certificate for the name, and is sent the token."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pair = authority.issue_cert("fleet.test")
    chain = b"".join(blob.bytes() for blob in pair.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(pair.private_key_pem.bytes(), chain)])
    real = socket.getaddrinfo
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "fleet.test":
            return real(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    with ExitStack() as stack:
        servers = [stack.enter_context(scripted(f"{hosts[0]}:0", credentials))]
        port = servers[0].port
        servers += [stack.enter_context(scripted(f"{host}:{port}", credentials)) for host in hosts[1:]]
        for server in servers:
            server.servicer.stream = delayed(server, 0.002)
        client = both(kind, f"fleet.test:{port}", tls=Tls(tmp_path / "ca.pem"), token="s3cret")  # noqa: S106
        check(client.many(numbers(150), in_flight=12), 150)
        for server in servers:
            assert server.servicer.streams == 1
            assert len(server.servicer.requests) > 0
            assert {entry["authorization"] for entry in server.servicer.metadata} == {"Bearer s3cret"}
