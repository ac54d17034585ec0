"""Rejects requests that fail to deserialize with INVALID_ARGUMENT, like any other invalid input.

By default, gRPC would answer UNKNOWN with the name of a class, and log a traceback for each.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from foldmint_server.errors import status_of
from foldmint_server.method_handlers import Around, wrap_handler
from foldmint_tokenizer import InvalidStructure

log = structlog.get_logger(__name__)
Refused = Callable[[str], object]


class _Malformed:
    """Sentinel for a request that failed to deserialize."""


class MalformedMessageInterceptor(grpc.aio.ServerInterceptor):
    """Rejects requests that fail to deserialize; a stream ends once what it sent before is answered.

    Must be outside the interceptors that look at messages: they never see a rejected request.
    """

    def __init__(self, refused: Refused) -> None:
        """refused: is called for each rejected request, with the name of its status."""
        self._refused = refused

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
        """The method's handler, which sees only messages."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        around = _checked_stream if handler.request_streaming else _checked
        return wrap_handler(
            handler,
            around(handler_call_details.method, self._refused),
            _lenient_deserializer(handler.request_deserializer),
        )


def _lenient_deserializer(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:  # noqa: ANN401 (a message of any type)
        try:
            return deserialize(content)
        except DecodeError:
            return _Malformed()

    return read


def _checked(method: str, refused: Refused) -> Around:
    @asynccontextmanager
    async def around(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        if isinstance(request, _Malformed):
            await _reject(context, method, refused)
        yield request

    return around


def _checked_stream(method: str, refused: Refused) -> Around:
    @asynccontextmanager
    async def around(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        malformed = False

        async def well_formed() -> AsyncIterator[Any]:
            nonlocal malformed
            async for request in requests:
                if isinstance(request, _Malformed):
                    malformed = True
                    return
                yield request

        yield well_formed()
        if malformed:
            await _reject(context, method, refused)

    return around


async def _reject(context: Any, method: str, refused: Refused) -> None:  # noqa: ANN401
    refused(grpc.StatusCode.INVALID_ARGUMENT.name)
    error = InvalidStructure("message", "its bytes are not a message of this method's type")
    log.info(
        "refused",
        throttle=f"malformed {method[:200]}",
        method=method[:200],
        status=grpc.StatusCode.INVALID_ARGUMENT.name,
        reason=str(error),
    )
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
