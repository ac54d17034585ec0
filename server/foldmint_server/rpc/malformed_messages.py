"""Bytes that are not a message of the method's type: refused as INVALID_ARGUMENT, like all else that cannot be taken.

Left to itself, gRPC would tell of UNKNOWN with the name of a class, and write a traceback into the log for each.
"""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from foldmint_server.errors import status_of
from foldmint_tokenizer import InvalidStructure

log = structlog.get_logger(__name__)


class _Malformed:
    """Sentinel for a request that failed to deserialize."""


class MalformedMessageInterceptor(grpc.aio.ServerInterceptor):
    """Rejects requests that fail to deserialize; a stream ends once what it sent before is answered.

    Must be outside the interceptors that look at messages: they never see a rejected request.
    """

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
        """The method's handler, which sees only messages."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read, write = _reading(handler.request_deserializer), handler.response_serializer
        method = handler_call_details.method
        if handler.request_streaming and handler.response_streaming:
            answered = _stream_of_streams(handler.stream_stream, method)
            return grpc.stream_stream_rpc_method_handler(answered, read, write)
        if handler.response_streaming and not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, method), read, write)
        if not handler.request_streaming:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, method), read, write)
        return handler


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:  # noqa: ANN401 (a message of any type)
        try:
            return deserialize(content)
        except DecodeError:
            return _Malformed()

    return read


def _unary(inner: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    """Around a coroutine function: of a unary method, or of a stream that is written to its context."""

    async def answered(request: Any, context: Any) -> Any:  # noqa: ANN401
        if isinstance(request, _Malformed):
            await _refuse(context, method)
        return await inner(request, context)

    return answered


def _stream(inner: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    if not inspect.isasyncgenfunction(inner):
        return _unary(inner, method)

    async def answered(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        if isinstance(request, _Malformed):
            await _refuse(context, method)
        async with aclosing(inner(request, context)) as responses:
            async for response in responses:
                yield response

    return answered


def _stream_of_streams(inner: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def answered(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        malformed = False

        async def decoded() -> AsyncIterator[Any]:
            nonlocal malformed
            async for request in requests:
                if isinstance(request, _Malformed):
                    malformed = True
                    return
                yield request

        async with aclosing(inner(decoded(), context)) as responses:
            async for response in responses:
                yield response
        if malformed:
            await _refuse(context, method)

    return answered


async def _refuse(context: Any, method: str) -> None:  # noqa: ANN401
    error = InvalidStructure("message", "its bytes are not a message of this method's type")
    log.info(
        "refused",
        throttle=f"malformed {method[:200]}",
        method=method[:200],
        status=grpc.StatusCode.INVALID_ARGUMENT.name,
        reason=str(error),
    )
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
