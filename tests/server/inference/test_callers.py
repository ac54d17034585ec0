"""Callers, named by a key of the metadata, take turns: one that sends much does not delay another."""

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_server.rpc.tokenizer_service import caller_name
from foldmint_server.security.authorization import CALLER, Caller
from helpers.chains import RealChain
from helpers.support import RunningServer, metrics_of, request_of, running_server, stub_of
from helpers.waiting import wait_until

MANY = 60
KEY = "x-team"


@pytest.fixture(scope="module")
def fair() -> Iterator[RunningServer]:
    with running_server("--tenant-key", KEY, "--threads", "1") as server:
        yield server


def answered_before_one(
    server: RunningServer, chains: Sequence[RealChain], many: str, one: str, *, streamed: bool
) -> int:
    """How many of the structures of one caller, sent before, were answered when another's only one was."""
    requests = [request_of(chains[number % 8]) for number in range(MANY)]
    answered, first, done = 0, threading.Event(), threading.Event()

    def send(stub: rpc.TokenizerServiceStub) -> None:
        nonlocal answered
        items = (pb.TokenizeStreamRequest(id=number, request=request) for number, request in enumerate(requests))
        for response in stub.TokenizeStream(items, metadata=((KEY, many),), timeout=60):
            assert response.WhichOneof("result") == "response"
            answered += 1
            first.set()
        done.set()

    with stub_of(server) as stub, stub_of(server) as other:
        sender = threading.Thread(target=send, args=(stub,))
        sender.start()
        assert first.wait(60)
        # All have arrived: what comes now comes after them.
        wait_until(lambda: answered + metrics_of(server)["foldmint_requests_in_flight"] >= MANY)
        request = request_of(chains[0])
        if streamed:
            stream = other.TokenizeStream(
                iter([pb.TokenizeStreamRequest(id=1, request=request)]), metadata=((KEY, one),), timeout=60
            )
            assert next(iter(stream)).WhichOneof("result") == "response"
        else:
            other.Tokenize(request, metadata=((KEY, one),), timeout=60)
        before = answered
        sender.join()
    assert done.is_set()
    assert answered == MANY
    return before


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True], ids=["alone", "streamed"])
def test_another_caller_is_not_delayed(fair: RunningServer, chains: list[RealChain], streamed: bool) -> None:
    assert answered_before_one(fair, chains, "busy", "quiet", streamed=streamed) < MANY * 3 // 4


@pytest.mark.slow
def test_the_same_caller_waits_behind_what_it_sent(fair: RunningServer, chains: list[RealChain]) -> None:
    assert answered_before_one(fair, chains, "busy", "busy", streamed=False) > MANY * 3 // 4


@pytest.mark.slow
def test_a_long_name_is_cut_off_and_served(fair: RunningServer, chains: list[RealChain]) -> None:
    with stub_of(fair) as stub:
        assert stub.Tokenize(request_of(chains[0]), metadata=((KEY, "n" * 4000),)).chains
        assert stub.Tokenize(request_of(chains[0]), metadata=((KEY, ""),)).chains


def test_a_token_s_name_goes_before_the_metadata_and_nobody_else_has_it() -> None:
    context: Any = SimpleNamespace(invocation_metadata=lambda: ((KEY, "alice"),))
    stranger = caller_name(context, KEY)
    reset = CALLER.set(Caller("alice"))
    known = caller_name(context, KEY)
    CALLER.reset(reset)
    assert known == "alice"
    assert stranger not in ("", known)
