"""The asyncio client's end of one TokenizeStream."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client.errors import FoldmintError, Unavailable
from foldmint_client.transport.status import from_parts, from_rpc_error, translated
from foldmint_client.transport.stream_state import Message
from foldmint_client.transport.trace_context import Metadata

T = TypeVar("T")

_FAREWELL = 1.0  # seconds that the server has to end a stream that is over; then it is cancelled
_SENDING_FAILED = "Internal error from Core"  # grpc.aio's words
_ENDED = "the server ended the stream before it had answered everything"


class Stream:
    """One call of TokenizeStream; gRPC's own task sends, so that sending never holds up receiving."""

    def __init__(
        self,
        tokenizer: "tokenizer_pb2_grpc.TokenizerServiceAsyncStub",
        metadata: Metadata,
    ) -> None:
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        with translated():
            self._call = tokenizer.TokenizeStream(self._messages(), metadata=metadata)
        self._fate: FoldmintError | None = None
        self._call.add_done_callback(self._note)

    async def _messages(self) -> AsyncIterator[Message]:
        while (message := await self._outbox.get()) is not None:
            yield message

    def send(self, message: Message) -> None:
        """Queue a message; what is queued is bounded by the in-flight tracker."""
        self._outbox.put_nowait(message)

    async def receive(self) -> tokenizer_pb2.TokenizeStreamResponse:
        """The next answer. Raises FoldmintError if the stream broke or ended."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._fate or from_rpc_error(error) from error
        if not isinstance(response, tokenizer_pb2.TokenizeStreamResponse):
            raise Unavailable(_ENDED)
        return response

    def _note(self, call: Any) -> None:  # noqa: ANN401 (the call's own class is private)
        # When a call ends while a message is being sent, grpc.aio puts INTERNAL in the place of the status that came.
        # This runs before; the status is there, so nothing of it has to be waited for.
        code, details = _retrieved(call.code()), _retrieved(call.details())
        if details == _SENDING_FAILED:
            self._fate = Unavailable("the stream ended while a structure was being sent")
        elif code is grpc.StatusCode.OK:
            self._fate = Unavailable(_ENDED)
        else:
            self._fate = from_parts(code, details, _retrieved(call.trailing_metadata()))

    async def finish(self) -> None:
        """Say that nothing more comes, and let the server end the call."""
        self._outbox.put_nowait(None)
        await asyncio.wait([asyncio.ensure_future(self._call.code())], timeout=_FAREWELL)

    def cancel(self) -> None:
        """End the call, whatever its state."""
        self._call.cancel()
        self._outbox.put_nowait(None)


def _retrieved(result: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        result.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    result.close()
    raise AssertionError("a call that is done has no status")
