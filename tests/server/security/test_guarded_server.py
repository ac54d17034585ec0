"""A real server with a file of tokens: who may call what, what is logged of operators, and a file that changes."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from server.security.callers import KNOWN, PERMISSION_DENIED, TOKENIZE, UNAUTHENTICATED, tokens

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import codebook_pb2_grpc, tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_server.security.bearer_tokens import AccessToken, Rate, digest_of, format_tokens
from helpers.chains import RealChain
from helpers.support import RunningServer, metrics_of, request_of, running_server
from helpers.waiting import wait_until

SLOW = AccessToken("slow", digest_of("slow-token"), frozenset({"tokenize"}), Rate(0.5, 200))


@dataclass
class Guarded:
    """A server with a file of tokens."""

    running: RunningServer
    file: Path
    log: Path

    def channel(self, name: str = "", *, admin: bool = False) -> grpc.Channel:
        """Of calls with that token; of none, for no name."""
        address = self.running.admin if admin else self.running.address
        channel = grpc.insecure_channel(address)
        return grpc.intercept_channel(channel, _Bearer(f"{name}-token")) if name else channel

    def tokenizer(self, name: str = "") -> tokenizer_pb2_grpc.TokenizerServiceStub:
        return tokenizer_pb2_grpc.TokenizerServiceStub(self.channel(name))

    def admin(self, name: str = "") -> codebook_pb2_grpc.CodebookServiceStub:
        return codebook_pb2_grpc.CodebookServiceStub(self.channel(name, admin=True))

    def lines(self, event: str) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in told if line["event"] == event]

    def write(self, *known: AccessToken, more: str = "") -> None:
        """In one go, as the command does, so that the server never reads a part."""
        part = self.file.with_suffix(".part")
        part.write_text(format_tokens(known) + more)
        part.replace(self.file)


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=self._metadata), request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=self._metadata), requests)


@pytest.fixture(scope="module")
def guarded(versions_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("access")
    file, log = folder / "tokens.toml", folder / "log"
    file.write_text(format_tokens((*KNOWN, SLOW)))
    arguments = ["--model", str(versions_copy), "--tokens-file", str(file), "--reload-seconds", "0.1"]
    with running_server(*arguments, "--no-insecure-admin", log=log) as running:
        yield Guarded(running, file, log)


def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: grpc.StatusCode = caught.value.code()
    return code


def test_unary_calls(guarded: Guarded, short: list[RealChain]) -> None:
    request = request_of(short[0])
    assert guarded.tokenizer("alice").Tokenize(request, timeout=60).chains
    assert guarded.tokenizer("viewer").GetModel(tokenizer_pb2.GetModelRequest()).model == "versions"
    assert code_of(lambda: guarded.tokenizer("viewer").Tokenize(request)) is PERMISSION_DENIED
    assert code_of(lambda: guarded.tokenizer("stranger").Tokenize(request)) is UNAUTHENTICATED
    assert code_of(lambda: guarded.tokenizer().Tokenize(request)) is UNAUTHENTICATED


def test_a_stranger_s_message_is_not_read(guarded: Guarded) -> None:
    """Which is seen by that it is none."""
    call: Any = guarded.channel().unary_unary(TOKENIZE)
    assert code_of(lambda: call(b"\xff" * 3_000_000)) is UNAUTHENTICATED
    known: Any = guarded.channel("alice").unary_unary(TOKENIZE)
    assert code_of(lambda: known(b"\xff" * 3_000_000)) is not UNAUTHENTICATED


def test_streams(guarded: Guarded, short: list[RealChain]) -> None:
    requests = [
        tokenizer_pb2.TokenizeStreamRequest(id=number, request=request_of(one)) for number, one in enumerate(short)
    ]
    answers = guarded.tokenizer("alice").TokenizeStream(iter(requests), timeout=60)
    assert {answer.id for answer in answers} == set(range(len(short)))

    ended = threading.Event()

    def never() -> Iterator[tokenizer_pb2.TokenizeStreamRequest]:
        ended.wait(600)
        yield from ()

    # It is ended before anything was sent.
    assert code_of(lambda: list(guarded.tokenizer("viewer").TokenizeStream(never()))) is PERMISSION_DENIED
    assert code_of(lambda: list(guarded.tokenizer().TokenizeStream(never()))) is UNAUTHENTICATED
    assert not ended.is_set()
    ended.set()


def test_health_is_open_and_reflection_is_not(guarded: Guarded) -> None:
    def services(channel: grpc.Channel) -> list[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))  # type: ignore[operator]
        return [one.name for one in answer.list_services_response.service]

    stub = health_pb2_grpc.HealthStub(guarded.channel())
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1  # type: ignore[attr-defined]
    assert next(iter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=10))).status == 1  # type: ignore[attr-defined]
    assert "foldmint.v1.TokenizerService" in services(guarded.channel("viewer"))
    assert code_of(lambda: services(guarded.channel())) is UNAUTHENTICATED


def test_operators_and_what_is_written_of_them(guarded: Guarded) -> None:
    request = cb.ActivateCodebookRequest(version="000002")
    assert guarded.admin("operator").ActivateCodebook(request, timeout=60).codebook.active
    assert code_of(lambda: guarded.admin("alice").ActivateCodebook(request)) is PERMISSION_DENIED
    assert code_of(lambda: guarded.admin().ActivateCodebook(request)) is UNAUTHENTICATED
    assert guarded.admin("viewer").GetCodebook(cb.GetCodebookRequest()).codebook.version == "000002"
    assert code_of(lambda: guarded.admin("viewer").SampleEmbeddings(cb.SampleEmbeddingsRequest())) is PERMISSION_DENIED
    missing = cb.ActivateCodebookRequest(version="nothing")
    assert code_of(lambda: guarded.admin("operator").ActivateCodebook(missing)) is grpc.StatusCode.NOT_FOUND
    back = cb.RollbackCodebookRequest(from_version="000002")
    assert guarded.admin("operator").RollbackCodebook(back, timeout=60).codebook.version == "000001"

    lines = guarded.lines("admin call")
    assert [(line["name"], line["method"], line["arguments"], line["outcome"]) for line in lines] == [
        ("operator", "ActivateCodebook", {"version": "000002"}, "OK"),
        ("alice", "ActivateCodebook", {}, "PERMISSION_DENIED"),
        ("", "ActivateCodebook", {}, "UNAUTHENTICATED"),
        ("viewer", "SampleEmbeddings", {}, "PERMISSION_DENIED"),
        ("operator", "ActivateCodebook", {"version": "nothing"}, "NOT_FOUND"),
        ("operator", "RollbackCodebook", {"from_version": "000002"}, "OK"),
    ]
    assert all("127.0.0.1" in line["peer"] and line["seconds"] >= 0 for line in lines)
    assert "-token" not in guarded.log.read_text()
    refused = metrics_of(guarded.running)
    assert refused['foldmint_refused_calls_total{status="PERMISSION_DENIED"}'] >= 2
    assert refused['foldmint_refused_calls_total{status="UNAUTHENTICATED"}'] >= 1


def test_a_rate(guarded: Guarded, short: list[RealChain]) -> None:
    whole = max(short, key=lambda one: len(one.sequence))
    request, residues = request_of(whole), len(whole.sequence)
    assert 50 < residues <= 200
    slow = guarded.tokenizer("slow")
    for _ in range(200 // residues):
        slow.Tokenize(request, timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        slow.Tokenize(request, timeout=60)
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert 0 < info.retry_delay.ToTimedelta().total_seconds() <= residues / 0.5
    # Others are not held up, and a stream waits instead.
    assert guarded.tokenizer("alice").Tokenize(request, timeout=60).chains
    waiting = guarded.tokenizer("slow").TokenizeStream(
        iter([tokenizer_pb2.TokenizeStreamRequest(id=1, request=request)]), timeout=1
    )
    assert code_of(lambda: list(waiting)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert metrics_of(guarded.running)['foldmint_rejects_total{reason="rate"}'] == 1


def test_the_file_is_read_anew_and_a_broken_one_is_not_taken(guarded: Guarded, short: list[RealChain]) -> None:
    request = request_of(short[0])

    def code(name: str) -> grpc.StatusCode:
        try:
            guarded.tokenizer(name).Tokenize(request, timeout=60)
        except grpc.RpcError as error:
            found: grpc.StatusCode = error.code()
            return found
        return grpc.StatusCode.OK

    numbers = iter(range(1000))
    going = [True]

    def each() -> Iterator[tokenizer_pb2.TokenizeStreamRequest]:
        while going[0]:
            yield tokenizer_pb2.TokenizeStreamRequest(id=next(numbers), request=request)
            time.sleep(0.05)

    # Of one who is revoked while his stream is open.
    stream = guarded.tokenizer("alice").TokenizeStream(each(), timeout=120)
    assert next(stream).response.chains
    guarded.write(*tokens(carol=["tokenize"]), SLOW)
    wait_until(lambda: code("carol") is grpc.StatusCode.OK)
    assert code("alice") is UNAUTHENTICATED
    assert code_of(lambda: list(stream)) is UNAUTHENTICATED
    going[0] = False

    guarded.write(*tokens(carol=["tokenize"]), SLOW, more="[[token]\n")
    wait_until(lambda: guarded.lines("new files cannot be used; the old ones stay in use"))
    assert code("carol") is grpc.StatusCode.OK
    guarded.file.unlink()
    wait_until(lambda: len(guarded.lines("new files cannot be used; the old ones stay in use")) == 2)
    assert code("carol") is grpc.StatusCode.OK
    guarded.write(*KNOWN, SLOW)
    wait_until(lambda: code("alice") is grpc.StatusCode.OK)
    told = guarded.lines("new files cannot be used; the old ones stay in use")
    assert len(told) == 2  # each fault once, however often it was looked at
    assert "line" in told[0]["reason"]
    assert "No such file" in told[1]["reason"]


def test_without_tokens_an_operator_needs_insecure_admin(versions: Path, tmp_path: Path) -> None:
    with running_server(
        "--model", str(versions), "--no-insecure-admin", "--log-level=info", log=tmp_path / "log"
    ) as running:
        open_to_all = Guarded(running, tmp_path / "none", tmp_path / "log")
        request = cb.ActivateCodebookRequest(version="000002")
        assert code_of(lambda: open_to_all.admin().ActivateCodebook(request)) is PERMISSION_DENIED
        assert open_to_all.admin().GetCodebook(cb.GetCodebookRequest()).codebook.version == "000001"
        assert open_to_all.tokenizer().GetModel(tokenizer_pb2.GetModelRequest()).model == "versions"
        (line,) = open_to_all.lines("listens on loopback only: other machines cannot reach it")
        assert line["listen"] == "127.0.0.1:0"
        assert not open_to_all.lines("others can reach this listener")
