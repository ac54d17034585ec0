"""Streams that break, end early or are refused, by either client: opened again, or given up."""

from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest

from foldmint.v1 import tokenizer_pb2
from foldmint_client import (
    Cancelled,
    DeadlineExceeded,
    FoldmintError,
    Overloaded,
    Retry,
    ServerError,
    Tokens,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer
from client.transport.streams import Code, Requests, Responses, firsts, numbers


def refusal(number: int, code: Code) -> tokenizer_pb2.TokenizeStreamResponse:
    failure = tokenizer_pb2.Failure(code=code.value[0], message="the queue is full")
    return tokenizer_pb2.TokenizeStreamResponse(id=number, failure=failure)


def test_a_stream_that_breaks_is_opened_again(client: "Both", server: "ScriptedServer") -> None:
    sent: Counter[int] = Counter()

    def breaking(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for count, request in enumerate(requests):
            sent[request.id] += 1
            if count == 7 and server.servicer.streams < 6:
                context.abort(Code.UNAVAILABLE, "going away")
            yield server.answer(request)

    server.servicer.stream = breaking
    client = server.both(client.kind, retry=Retry(initial_backoff=10, maximum_backoff=10))
    assert firsts(client.many(numbers(50), in_flight=8)) == [(number, number) for number in range(50)]
    assert server.servicer.streams == 6
    assert set(sent) == set(range(50))
    assert len(server.sleeps) == 5


def test_a_stream_that_ends_early_is_opened_again(client: "Both", server: "ScriptedServer") -> None:
    def ending(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for count, request in enumerate(requests):
            if count == 3 and server.servicer.streams == 1:
                return
            yield server.answer(request)

    server.servicer.stream = ending
    assert firsts(client.many(numbers(10))) == [(number, number) for number in range(10)]
    assert server.servicer.streams == 2


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.CANCELLED])
def test_a_stream_that_a_proxy_resets_is_opened_again(client: "Both", server: "ScriptedServer", code: Code) -> None:
    """With what gRPC makes of it, where the server behind the proxy died (tests/stress/test_envoy.py)."""

    def reset(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for count, request in enumerate(requests):
            if count == 3 and server.servicer.streams < 4:
                context.abort(code, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))")
            yield server.answer(request)

    server.servicer.stream = reset
    assert firsts(client.many(numbers(20), in_flight=4)) == [(number, number) for number in range(20)]
    assert server.servicer.streams == 4


def test_streams_are_not_opened_for_ever(client: "Both", server: "ScriptedServer") -> None:
    client = server.both(client.kind, retry=Retry(initial_backoff=1, maximum_backoff=6))
    server.fail(Code.UNAVAILABLE, times=9)
    with pytest.raises(Unavailable):
        client.many(numbers(3))
    assert server.servicer.streams == 5
    assert len(server.sleeps) == 4
    assert all(0.7 * pause < slept < 1.3 * pause for pause, slept in zip((1, 2, 4, 6), server.sleeps, strict=True))
    server.servicer.faults.clear()
    server.fail(Code.UNAVAILABLE, times=4)
    assert len(client.many(numbers(3))) == 3


def test_a_stream_that_is_rejected_is_opened_again_when_the_server_says(
    client: "Both", server: "ScriptedServer"
) -> None:
    server.fail(Code.RESOURCE_EXHAUSTED, retry_after=2.5)
    assert firsts(client.many(numbers(3))) == [(number, number) for number in range(3)]
    assert server.sleeps == [pytest.approx(2.5, abs=0.5)]
    server.fail(Code.RESOURCE_EXHAUSTED, retry_after=3600)
    with pytest.raises(Overloaded):
        client.many(numbers(3), timeout=30)
    assert len(server.sleeps) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [(Code.UNAUTHENTICATED, Unauthenticated), (Code.INTERNAL, ServerError), (Code.CANCELLED, Cancelled)],
)
def test_a_stream_that_is_refused_raises(
    client: "Both", server: "ScriptedServer", code: Code, kind: type[FoldmintError]
) -> None:
    server.fail(code)
    with pytest.raises(kind):
        client.many(numbers(3))
    assert server.servicer.streams == 1
    assert server.sleeps == []


@pytest.mark.parametrize("code", [Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE])
def test_what_is_refused_for_now_is_sent_again(client: "Both", server: "ScriptedServer", code: Code) -> None:
    tries: Counter[int] = Counter()

    def full(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            tries[request.id] += 1
            refused = request.id % 3 == 0 and tries[request.id] < 4
            yield refusal(request.id, code) if refused else server.answer(request)

    server.servicer.stream = full
    assert firsts(client.many(numbers(20), in_flight=5)) == [(number, number) for number in range(20)]
    assert tries == {number: 1 if number % 3 else 4 for number in range(20)}
    assert server.servicer.streams == 1
    assert all(0 < pause < 0.03 for pause in server.sleeps)


def test_what_is_refused_again_and_again_fails(client: "Both", server: "ScriptedServer") -> None:
    tries: Counter[int] = Counter()

    def full(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            tries[request.id] += 1
            yield refusal(request.id, Code.RESOURCE_EXHAUSTED) if request.id == 1 else server.answer(request)

    server.servicer.stream = full
    retry = Retry(refused_attempts=3, initial_backoff=0.001)
    results = server.both(client.kind, retry=retry).many(numbers(3))
    assert [type(result) for _, result in results] == [Tokens, Overloaded, Tokens]
    assert str(results[1][1]) == "the queue is full"
    assert tries == {0: 1, 1: 3, 2: 1}


def test_no_answer_in_time_fails_what_was_asked(client: "Both", server: "ScriptedServer") -> None:
    def stuck(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            if request.request.file.content != b"3":
                yield server.answer(request)

    server.servicer.stream = stuck
    results = client.many(numbers(8), in_flight=3, timeout=0.15)
    assert [type(result) for _, result in results] == [Tokens] * 3 + [DeadlineExceeded] + [Tokens] * 4
    assert server.servicer.streams == 2


def test_a_server_that_never_answers_is_given_up(client: "Both", server: "ScriptedServer") -> None:
    def mute(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            if request.id < 0:
                yield server.answer(request)

    server.servicer.stream = mute
    with pytest.raises(DeadlineExceeded, match="with 2 structures to be answered"):
        client.many(numbers(8), in_flight=2, timeout=0.1)


def test_answers_to_nothing_are_told(client: "Both", server: "ScriptedServer") -> None:
    def doubled(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            yield server.answer(request)
            yield server.answer(request)

    server.servicer.stream = doubled
    with pytest.raises(ServerError, match="does not wait for it"):
        client.many(numbers(3), in_flight=1)
