"""A span for each call of TokenizerService.

`opentelemetry-instrumentation-grpc` 0.66b2 was tried, and does not hold for this server: it reports calls that end by
`abort_with_status` or are cancelled as OK, logs "Failed to detach context" when a stream is cancelled while it sends,
and breaks streams that are written to their context, such as `grpc.health.v1.Health/Watch`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from opentelemetry import propagate, trace
from opentelemetry.context import attach
from opentelemetry.trace import SpanKind, Status, StatusCode

from foldmint.v1 import tokenizer_pb2
from foldmint_server.method_handlers import wrap_handler
from foldmint_server.tracing.spans import SERVER_ERRORS, STATUS, tracer

_PREFIX = f"/{tokenizer_pb2.DESCRIPTOR.services_by_name['TokenizerService'].full_name}/"


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Makes a span the current one for each call, below the caller's span if its metadata names one.

    Must be the innermost interceptor: calls that others reject get no span.
    """

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
        """The method's handler, traced."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_PREFIX):
            return handler
        return wrap_handler(handler, partial(_traced, handler_call_details))


@asynccontextmanager
async def _traced(details: Any, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
    carrier = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
    method = details.method.removeprefix("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    parent = propagate.extract(carrier)
    span = tracer.start_span(method, parent, SpanKind.SERVER, attributes)
    # Never detached: the call has a task of its own, and a stream that is cancelled may be closed by another.
    attach(trace.set_span_in_context(span, parent))
    status = "CANCELLED"  # asyncio's cancellation is not an Exception
    try:
        yield request
        status = "OK"
    except Exception:
        status = "UNKNOWN"  # as gRPC reports what is raised, unless the call was aborted with a status
        raise
    finally:
        if isinstance(code := context.code(), grpc.StatusCode):
            status = code.name
        span.set_attributes({STATUS: status, "rpc.response.status_code": status})
        if status in SERVER_ERRORS:
            span.set_status(Status(StatusCode.ERROR, context.details() or None))
        span.end()
