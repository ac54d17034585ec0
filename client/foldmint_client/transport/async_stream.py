"""The asyncio client's end of TokenizeStream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.errors import Cancelled, FoldmintError, Unavailable
from foldmint_client.models.tokenize_request import Structure
from foldmint_client.transport.common import ENDED_EARLY, FAREWELL_SECONDS, LOCAL_ERRORS, AsyncSleep, keyed
from foldmint_client.transport.status import from_parts, from_rpc_error, translated
from foldmint_client.transport.stream_state import InFlightTracker, Message, Result
from foldmint_client.transport.trace_context import Metadata

T = TypeVar("T")
Prepare = Callable[[Structure], Awaitable[tokenizer_pb2.TokenizeRequest]]

_SENDING_FAILED = "Internal error from Core"  # grpc.aio's words


class Stream:
    """One call of TokenizeStream; gRPC's own task sends, so that sending never holds up receiving."""

    def __init__(self, tokenizer: "tokenizer_pb2_grpc.TokenizerServiceAsyncStub", metadata: Metadata) -> None:
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        with translated():
            self._call = tokenizer.TokenizeStream(self._messages(), metadata=metadata)
        self._fate: FoldmintError | None = None
        self._call.add_done_callback(self._note)

    async def _messages(self) -> AsyncIterator[Message]:
        while (message := await self._outbox.get()) is not None:
            yield message

    def send(self, message: Message) -> None:
        """Queue a message; the in-flight tracker bounds the queue."""
        self._outbox.put_nowait(message)

    async def receive(self) -> tokenizer_pb2.TokenizeStreamResponse:
        """The next answer. Raises FoldmintError if the stream broke or ended."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._fate or from_rpc_error(error) from error
        if not isinstance(response, tokenizer_pb2.TokenizeStreamResponse):
            raise Unavailable(ENDED_EARLY)
        return response

    def _note(self, call: Any) -> None:  # noqa: ANN401 (the call's own class is private)
        # When a call ends while a message is being sent, grpc.aio puts INTERNAL in the place of the status that came.
        # This runs before; the status is there, so nothing of it has to be waited for.
        code, details = _retrieved(call.code()), _retrieved(call.details())
        if details == _SENDING_FAILED:
            self._fate = Unavailable("the stream ended while a structure was being sent")
        elif code is grpc.StatusCode.OK:
            self._fate = Unavailable(ENDED_EARLY)
        else:
            self._fate = from_parts(code, details, _retrieved(call.trailing_metadata()))

    async def finish(self) -> None:
        """Close the sending side, and let the server end the call."""
        self._outbox.put_nowait(None)
        await asyncio.wait([asyncio.ensure_future(self._call.code())], timeout=FAREWELL_SECONDS)

    def cancel(self) -> None:
        """End the call, whatever its state."""
        self._call.cancel()
        self._outbox.put_nowait(None)


class StreamJob:
    """One call of `tokenize_many`: it pulls the input and waits for answers at the same time.

    prepare: a structure's request; it may raise one of LOCAL_ERRORS.
    """

    def __init__(
        self,
        structures: Iterable[Any] | AsyncIterable[Any],
        tracker: InFlightTracker[Any],
        prepare: Prepare,
        open_stream: Callable[[], Stream],
        sleep: AsyncSleep,
        timeout: float,
    ) -> None:
        self._items = _enumerate(structures)
        self._tracker, self._prepare, self._open_stream = tracker, prepare, open_stream
        self._sleep, self._timeout = sleep, timeout
        self._stream: Stream | None = None
        self._pulling: asyncio.Task[bool] | None = None
        self._receiving: asyncio.Task[tokenizer_pb2.TokenizeStreamResponse] | None = None
        self._deadline = 0.0
        self._exhausted = False

    async def results(self) -> AsyncGenerator[tuple[Any, Result]]:
        """Keys and results. Raises FoldmintError if the stream cannot go on."""
        tracker = self._tracker
        try:
            while not (self._exhausted and tracker.empty):
                if self._pulling is None and tracker.has_room and not self._exhausted:
                    self._pulling = asyncio.create_task(self._pull())
                if self._receiving is None and tracker.unanswered:
                    await self._start_receiving()
                await self._wait()
                for result in tracker.ready():
                    yield result
            if self._stream is not None:
                await self._stream.finish()
        finally:
            await self._stop()

    async def _pull(self) -> bool:
        """Pull one structure into the tracker. Returns whether there was one."""
        try:
            key, structure = keyed(*await anext(self._items))
        except StopAsyncIteration:
            return False
        try:
            request = await self._prepare(structure)
        except LOCAL_ERRORS as error:
            self._tracker.add_failed(key, error)
            return True
        message = self._tracker.add(key, request)
        if self._stream is not None:
            self._stream.send(message)
        return True

    async def _start_receiving(self) -> None:
        """Send what is due, and start to wait for an answer."""
        if self._stream is None:
            self._stream = self._open_stream()
            for message in self._tracker.resend():
                self._stream.send(message)
        delay, messages = self._tracker.due_retries()
        if delay:
            await self._sleep(delay)
        for message in messages:
            self._stream.send(message)
        self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._receiving = asyncio.create_task(self._stream.receive())

    async def _wait(self) -> None:
        """Wait until a structure is pulled or an answer arrives, and record it."""
        waiting = [task for task in (self._pulling, self._receiving) if task is not None]
        if not waiting:
            return
        left = None if self._receiving is None else max(0.0, self._deadline - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self._pulling in done:
            pulling, self._pulling = self._pulling, None
            self._exhausted = not pulling.result()
        if self._receiving in done:
            receiving, self._receiving = self._receiving, None
            try:
                if receiving.cancelled():
                    raise Cancelled("the connection was closed")
                response = receiving.result()
            except FoldmintError as error:
                self._drop()
                await self._sleep(self._tracker.stream_broken(error))
            else:
                self._tracker.record_response(response)
        elif not done:
            await self._stop_receiving()
            self._drop()
            self._tracker.timed_out()

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
            self._receiving = None

    async def _stop(self) -> None:
        self._drop()
        await self._stop_receiving()
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)


async def _enumerate(structures: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[tuple[int, Any]]:
    position = 0
    if isinstance(structures, AsyncIterable):
        async for item in structures:
            yield position, item
            position += 1
    else:
        for item in structures:
            yield position, item
            position += 1


def _retrieved(result: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        result.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    result.close()
    raise AssertionError("a call that is done has no status")
