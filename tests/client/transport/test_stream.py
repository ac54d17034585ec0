"""Many structures over one stream, by either client: order, bounds, versions, failures, and leaving early."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2
from foldmint_client import (
    Backbone,
    FailedPrecondition,
    InvalidOptions,
    InvalidStructure,
    JobVersion,
    Tokens,
    UnreadableInput,
)

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer
from client.transport.streams import Code, Requests, Responses, firsts, numbers


def test_in_order_with_positions_for_keys(client: "Both", server: "ScriptedServer") -> None:
    def pairs(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for request in requests:
            second = server.answer(next(requests))
            yield from (second, server.answer(request))

    server.servicer.stream = pairs
    assert firsts(client.many(numbers(100), in_flight=6)) == [(number, number) for number in range(100)]
    unordered = firsts(client.many(numbers(100), in_flight=6, ordered=False))
    assert unordered[:4] == [(1, 1), (0, 0), (3, 3), (2, 2)]
    assert sorted(unordered) == [(number, number) for number in range(100)]
    assert server.servicer.streams == 2


def test_keys_are_returned(client: "Both", tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    path.write_bytes(b"8")
    backbone = Backbone(np.zeros((2, 3, 3), np.float32))
    results = client.many([("x", b"7"), (("y", 1), path), (None, (backbone, backbone)), (backbone, backbone)])
    assert [key for key, _ in results] == ["x", ("y", 1), None, 3]
    assert [len(tokens.chains) for _, tokens in results] == [1, 1, 2, 2]


def test_nothing_in_nothing_out(client: "Both", server: "ScriptedServer") -> None:
    assert client.many([]) == []
    assert server.servicer.streams == 0


def test_a_failed_structure_does_not_stop_the_rest(client: "Both", tmp_path: Path) -> None:
    results = client.many([b"1", b"bad", tmp_path / "none.pdb", 7, b"2"])
    kinds = [Tokens, InvalidStructure, UnreadableInput, InvalidStructure, Tokens]
    assert [type(result) for _, result in results] == kinds
    assert [key for key, _ in results] == [0, 1, 2, 3, 4]
    refused = results[1][1]
    assert [violation.field for violation in refused.violations] == ["file.content"]
    assert str(refused) == "no protein (file.content: there is no protein in the file)"


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 5])
def test_the_input_is_pulled_as_room_comes(client: "Both", ordered: bool, in_flight: int) -> None:
    pulled = returned = most = 0

    def structures() -> Iterator[bytes]:
        nonlocal pulled, most
        for number in numbers(40):
            pulled += 1
            most = max(most, pulled - returned)
            yield number

    def each() -> None:
        nonlocal returned
        returned += 1

    assert len(client.many(structures(), each, in_flight=in_flight, ordered=ordered)) == 40
    # The one just handed out counts as returned only when `each` is called for it.
    assert most <= in_flight + 1


def test_never_more_unanswered_than_asked_for(client: "Both", server: "ScriptedServer") -> None:
    received = answered = most = 0

    def slow(requests: Requests, context: grpc.ServicerContext) -> Responses:
        nonlocal received, answered, most
        arrived: list[tokenizer_pb2.TokenizeStreamRequest] = []
        over = threading.Event()

        def read() -> None:
            nonlocal received, most
            for request in requests:
                received += 1
                most = max(most, received - answered)
                arrived.append(request)
            over.set()

        reader = threading.Thread(target=read)
        reader.start()
        while not over.is_set() or arrived:
            if arrived:
                answered += 1
                yield server.answer(arrived.pop(0))
            else:
                over.wait(0.002)
        reader.join()

    server.servicer.stream = slow
    assert len(client.many(numbers(60), in_flight=4)) == 60
    assert received == 60
    assert most <= 4


@pytest.mark.parametrize("wanted", [None, "ACTIVE"])
def test_a_job_keeps_the_version_of_its_first_answer(
    client: "Both", server: "ScriptedServer", wanted: str | None
) -> None:
    """Whatever is active where the next stream ends up."""

    def swapped(requests: Requests, context: grpc.ServicerContext) -> Responses:
        active = f"{server.servicer.streams:06d}"
        for count, request in enumerate(requests):
            if count == 7 and server.servicer.streams < 4:
                context.abort(Code.UNAVAILABLE, "going away")
            response = server.answer(request)
            asked = request.request.codebook_version
            response.response.codebook_version = active if asked in ("", "ACTIVE") else asked
            yield response

    server.servicer.stream = swapped
    results = client.many(numbers(40), in_flight=5, codebook_version=wanted)
    assert firsts(results) == [(number, number) for number in range(40)]
    assert {tokens.codebook_version for _, tokens in results} == (
        {f"{number:06d}" for number in range(1, 5)} if wanted else {"000001"}
    )


def test_another_codebook_under_the_same_number_is_refused(client: "Both", server: "ScriptedServer") -> None:
    def exchanged(requests: Requests, context: grpc.ServicerContext) -> Responses:
        for count, request in enumerate(requests):
            if count == 3 and server.servicer.streams == 1:
                context.abort(Code.UNAVAILABLE, "going away")
            response = server.answer(request)
            response.response.codebook_digest = f"{server.servicer.streams:064x}"
            yield response

    server.servicer.stream = exchanged
    results = client.many(numbers(6), in_flight=1)
    assert [type(result) for _, result in results] == [Tokens] * 3 + [FailedPrecondition] * 3
    assert f"digest of codebook 000007 {2:064x} instead of {1:064x}" in str(results[-1][1])
    version = results[0][1].version
    with pytest.raises(FailedPrecondition, match="model scripted instead of other"):
        client.tokenize(b"1", codebook_version=JobVersion(version.codebook_version, model="other"))


def test_errors_of_the_input_come_through(client: "Both") -> None:
    def broken() -> Iterator[bytes]:
        yield b"1"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.many(broken())


def test_a_structure_too_long_for_the_server_does_not_end_the_stream(client: "Both", server: "ScriptedServer") -> None:
    server.servicer.message_bytes = 2**20
    results = client.many([b"1", bytes(2**20), b"2"])
    assert [type(result) for _, result in results] == [Tokens, InvalidStructure, Tokens]


def test_options_are_checked_at_once(server: "ScriptedServer") -> None:
    with server.both("sync").sync() as client:
        with pytest.raises(InvalidOptions, match="in_flight"):
            client.tokenize_many([], in_flight=0)
        with pytest.raises(InvalidOptions, match="timeout"):
            client.tokenize_many([], timeout=-1)
        with pytest.raises(InvalidOptions, match="model_number"):
            client.tokenize_many([], model_number=-1)


def test_leaving_early_cancels_the_stream(server: "ScriptedServer") -> None:
    ended = threading.Event()

    def watched(requests: Requests, context: grpc.ServicerContext) -> Responses:
        context.add_callback(ended.set)
        return map(server.answer, requests)

    server.servicer.stream = watched
    with server.both("sync").sync() as client:
        results = client.tokenize_many(b"1" for _ in iter(int, 1))
        next(results)
        results.close()
        assert "foldmint-stream" not in {thread.name for thread in threading.enumerate()}
        assert ended.wait(5)


def test_leaving_early_leaves_no_call_to_the_end_of_the_program(server: "ScriptedServer") -> None:
    # A call of gRPC's takes a lock when it is deleted; left to the end of the program, that may never return.
    gc.collect()
    gc.disable()
    try:
        with server.both("sync").sync() as client:
            results = client.tokenize_many(b"1" for _ in iter(int, 1))
            next(results)
            results.close()
            assert not [thing for thing in gc.get_objects() if issubclass(type(thing), grpc.Call)]
    finally:
        gc.enable()


async def test_leaving_early_cancels_the_stream_of_asyncio(server: "ScriptedServer") -> None:
    ended = threading.Event()

    def watched(requests: Requests, context: grpc.ServicerContext) -> Responses:
        context.add_callback(ended.set)
        return map(server.answer, requests)

    server.servicer.stream = watched
    async with server.both("async").aio() as client:
        async with aclosing(client.tokenize_many(b"1" for _ in iter(int, 1))) as results:
            await anext(results)
        assert await asyncio.to_thread(ended.wait, 5)


async def test_an_async_input_that_waits_for_results(server: "ScriptedServer") -> None:
    asked: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def structures() -> AsyncIterator[bytes]:
        while (structure := await asked.get()) is not None:
            yield structure

    await asked.put(b"1")
    async with server.both("async").aio() as client:
        found = []
        async for _, tokens in client.tokenize_many(structures()):
            assert isinstance(tokens, Tokens)
            found.append(int(tokens.chains[0].tokens[0]))
            await asked.put(str(found[-1] * 2).encode() if found[-1] < 16 else None)
    assert found == [1, 2, 4, 8, 16]


async def test_an_async_client_whose_task_is_cancelled(server: "ScriptedServer") -> None:
    def mute(requests: Requests, context: grpc.ServicerContext) -> Responses:
        return (server.answer(request) for request in requests if request.id < 0)

    server.servicer.stream = mute
    async with server.both("async").aio() as client:
        waiting = asyncio.create_task(anext(client.tokenize_many([b"1"])))
        await asyncio.wait([waiting], timeout=0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await client.tokenize(b"1")).model == "scripted"
