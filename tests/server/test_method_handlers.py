"""A wrapped handler answers as the handler itself does, whatever its kind, and its wrapper sees each call end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from foldmint_server.method_handlers import wrap_handler

METHOD = "/tests.Kinds/Call"


class Recorder:
    """Wraps calls: notes how each ended, and puts `<` before each message of the caller."""

    def __init__(self) -> None:
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    @asynccontextmanager
    async def around(self, sent: Any, context: Any) -> AsyncIterator[Any]:
        end = "cancelled"
        try:
            yield b"<" + sent if isinstance(sent, bytes) else _marked(sent)
            end = "ended"
        except Exception:
            end = f"aborted with {context.code().name}"
            raise
        finally:
            self.ends.put_nowait(end)


async def _marked(sent: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for message in sent:
        yield b"<" + message


@asynccontextmanager
async def channel_to(handler: Any, recorder: Recorder) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to a server whose one method has this handler, wrapped."""
    server = grpc.aio.server()
    methods = {"Call": wrap_handler(handler, recorder.around)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Kinds", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def stream(channel: grpc.aio.Channel, *sent: bytes) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """A call that sends these; with none, what is written to it."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
    return method(iter(sent) if sent else None, timeout=60)


async def one_to_one(request: bytes, context: Any) -> bytes:
    return request + b">"


async def one_to_many(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request + b">"
    yield b"end"


async def one_written(request: bytes, context: Any) -> None:
    await context.write(request + b">")
    await context.write(b"end")


async def many_to_one(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def many_to_many(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request + b">"


async def endless(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request + b">"
        await asyncio.Event().wait()


async def refusing(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing is here")


@pytest.mark.parametrize(
    ("handler", "sent", "answers"),
    [
        (grpc.unary_unary_rpc_method_handler(one_to_one), [b"a"], [b"<a>"]),
        (grpc.unary_stream_rpc_method_handler(one_to_many), [b"a"], [b"<a>", b"end"]),
        (grpc.unary_stream_rpc_method_handler(one_written), [b"a"], [b"<a>", b"end"]),
        (grpc.stream_unary_rpc_method_handler(many_to_one), [b"a", b"b"], [b"<a<b"]),
        (grpc.stream_stream_rpc_method_handler(many_to_many), [b"a", b"b"], [b"<a>", b"<b>"]),
    ],
)
async def test_each_kind_of_method(handler: Any, sent: list[bytes], answers: list[bytes]) -> None:
    recorder = Recorder()
    async with channel_to(handler, recorder) as channel:
        assert [answer async for answer in stream(channel, *sent)] == answers
        assert await recorder.ends.get() == "ended"


async def test_a_call_that_its_method_aborts() -> None:
    recorder = Recorder()
    async with channel_to(grpc.stream_stream_rpc_method_handler(refusing), recorder) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="nothing is here"):
            _ = [answer async for answer in stream(channel, b"a")]
        assert await recorder.ends.get() == "aborted with NOT_FOUND"


async def test_a_stream_that_its_caller_cancels() -> None:
    recorder = Recorder()
    async with channel_to(grpc.stream_stream_rpc_method_handler(endless), recorder) as channel:
        call = stream(channel)
        await call.write(b"a")
        assert await call.read() == b"<a>"
        call.cancel()
        assert await asyncio.wait_for(recorder.ends.get(), 60) == "cancelled"


async def test_a_deserializer_takes_the_place_of_the_handlers_own() -> None:
    inner: Any = grpc.unary_unary_rpc_method_handler(one_to_one, request_deserializer=bytes.upper)
    recorder = Recorder()
    assert wrap_handler(inner, recorder.around).request_deserializer(b"a") == b"A"
    assert wrap_handler(inner, recorder.around, bytes.title).request_deserializer(b"ab") == b"Ab"
