"""Counts the bytes of the messages of each RPC, as they are serialized: before compression, without headers."""

from collections.abc import Callable
from typing import Any

import grpc
from prometheus_client import Counter

from foldmint_server.method_handlers import with_codecs
from foldmint_server.metrics.registry import Metrics


class MessageSizeInterceptor(grpc.aio.ServerInterceptor):
    """Counts the bytes that handlers read and send, by method; only methods that exist have a handler."""

    def __init__(self, metrics: Metrics) -> None:
        self._received, self._sent = metrics.received_bytes, metrics.sent_bytes
        self._children: dict[str, tuple[Counter, Counter]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
        """The method's handler, counted."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None or handler.response_serializer is None:
            return handler
        method = handler_call_details.method
        received, sent = self._children.get(method) or self._add(method)
        return with_codecs(
            handler, _reading(handler.request_deserializer, received), _writing(handler.response_serializer, sent)
        )

    def _add(self, method: str) -> tuple[Counter, Counter]:
        name = method.rpartition("/")[2]
        self._children[method] = self._received.labels(name), self._sent.labels(name)
        return self._children[method]


def _reading(deserialize: Callable[[bytes], Any], received: Counter) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:  # noqa: ANN401 (a message of any type)
        received.inc(len(content))
        return deserialize(content)

    return read


def _writing(serialize: Callable[[Any], bytes], sent: Counter) -> Callable[[Any], bytes]:
    def write(message: Any) -> bytes:  # noqa: ANN401
        content = serialize(message)
        sent.inc(len(content))
        return content

    return write
