"""Admission of calls: how many may be under way, in all and of one caller, decided before a message of theirs is read.

gRPC's own `maximum_concurrent_rpcs` refuses without a word to the log, the metrics or the caller's retries, and counts
health watches like calls. Here each kind of call has a capacity of its own:

kind      methods               bounded
probes    Health/Check          of one peer
watches   Health/Watch          in all, of one peer
admin     CodebookService       in all, of one caller
calls     all others            in all, of one caller
"""

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import structlog
from grpc_health.v1 import health
from grpc_status import rpc_status
from prometheus_client import Gauge

from foldmint.v1 import codebook_pb2, tokenizer_pb2
from foldmint_server.errors import CapacityReached, ServerError, StreamLimitReached, status_of
from foldmint_server.metrics.registry import Metrics
from foldmint_server.rpc.admission.peers import caller_of
from foldmint_server.security.authorization import CALLER
from foldmint_server.settings import Settings

log = structlog.get_logger(__name__)

_TOKENIZER = tokenizer_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name
_ADMIN = codebook_pb2.DESCRIPTOR.services_by_name["CodebookService"].full_name
_CHECK, _WATCH = f"/{health.SERVICE_NAME}/Check", f"/{health.SERVICE_NAME}/Watch"
# This one looks itself at how long nothing is sent, and knows whether anything is worked on.
_SELF_TIMED = f"/{_TOKENIZER}/TokenizeStream"
_UNLIMITED = 2**31 - 1
_PROBE_SECONDS = 10.0  # for the one small message of a probe
# Refused calls come again spread over this time, not all at once.
_RETRY_SECONDS = (0.5, 1.5)

Call = Callable[[AsyncIterator[Any], Any], Any]


@dataclass(frozen=True)
class CallLimits:
    """Calls under way at a time, in all and of one caller; watches likewise. idle_seconds: without a message."""

    calls: int
    calls_per_caller: int
    watches: int
    watches_per_peer: int
    idle_seconds: float

    @classmethod
    def from_settings(cls, settings: Settings) -> "CallLimits":
        """As the settings say."""
        return cls(
            settings.max_concurrent_calls,
            settings.max_calls_per_caller,
            settings.max_watches,
            settings.max_watches_per_peer,
            settings.stream_idle_seconds,
        )


class Capacity:
    """Places for calls of one kind: `total`, and `per_caller` for each caller. open_calls: their gauge, by kind."""

    def __init__(self, kind: str, total: int, per_caller: int, open_calls: Gauge) -> None:
        self._kind, self._total, self._per_caller = kind, total, per_caller
        self._open = open_calls.labels(kind)
        self._what = kind.replace("_", " ")
        self._under_way: Counter[str] = Counter()
        self._count = 0

    @contextmanager
    def taken(self, caller: str) -> Iterator[None]:
        """Hold a place. Raises CapacityReached."""
        if self._under_way[caller] >= self._per_caller:
            self._refuse(f"{self._per_caller} {self._what} of this caller are under way", "_of_caller")
        if self._count >= self._total:
            self._refuse(f"{self._total} {self._what} are under way", "")
        self._under_way[caller] += 1
        self._count += 1
        self._open.inc()
        try:
            yield
        finally:
            self._open.dec()
            self._count -= 1
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]

    def _refuse(self, text: str, of: str) -> NoReturn:
        seconds = random.uniform(*_RETRY_SECONDS)  # noqa: S311 (guessing it gains nothing)
        raise CapacityReached(f"{text}; try again later", f"too_many_{self._kind}{of}", seconds)


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls beyond the limits of a listener with RESOURCE_EXHAUSTED, and ends those that send nothing.

    Must be the outermost interceptor: its handlers, whatever their kind, are streams to gRPC, which reads a message
    only when it is asked to.
    """

    def __init__(self, limits: CallLimits, metrics: Metrics) -> None:
        self._metrics, self._idle_seconds = metrics, limits.idle_seconds
        gauge = metrics.open_calls
        self._kinds: Mapping[str, Capacity] = {
            _CHECK: Capacity("probes", _UNLIMITED, limits.calls_per_caller, gauge),
            _WATCH: Capacity("watches", limits.watches, limits.watches_per_peer, gauge),
            _ADMIN: Capacity("admin_calls", limits.calls, limits.calls_per_caller, gauge),
        }
        self._others = Capacity("calls", limits.calls, limits.calls_per_caller, gauge)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
        """The method's handler, once there is a place for the call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        service = method.rpartition("/")[0].removeprefix("/")
        capacity = self._kinds.get(method) or self._kinds.get(service) or self._others
        seconds = _PROBE_SECONDS if method in (_CHECK, _WATCH) else self._idle_seconds
        answer = _as_stream(handler, None if method == _SELF_TIMED else seconds)

        async def admitted(requests: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401
            try:
                with capacity.taken(caller_of(context)):
                    await answer(requests, context)
            except CapacityReached as error:
                self._metrics.rejects.labels(error.reason).inc()
                self._metrics.callers.refused(CALLER.get().name, grpc.StatusCode.RESOURCE_EXHAUSTED.name)
                self._tell(method, context, error, error.reason)
                await _abort(context, error)
            except _Idle as error:
                self._metrics.calls_ended.labels("idle").inc()
                self._tell(method, context, error, "idle")
                await _abort(context, error)

        return grpc.stream_stream_rpc_method_handler(
            admitted, handler.request_deserializer, handler.response_serializer
        )

    def _tell(self, method: str, context: Any, error: ServerError, reason: str) -> None:  # noqa: ANN401
        log.warning(
            "call refused", throttle=reason, method=method[:200], reason=reason, peer=context.peer(), message=str(error)
        )


class _Idle(StreamLimitReached):
    """A call whose next message does not come."""


def _as_stream(handler: Any, seconds: float | None) -> Call:  # noqa: ANN401
    """What a handler of any kind does, as a coroutine that reads a stream and writes to its context.

    seconds: within which each message must come, or _Idle is raised; None: the handler sees to that.
    """

    async def unary_unary(requests: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401
        async for request in _timed(requests, seconds):
            await context.write(await handler.unary_unary(request, context))
            return

    async def unary_stream(requests: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401
        async for request in _timed(requests, seconds):
            await written(handler.unary_stream, request, context)
            return

    async def stream_unary(requests: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401
        await context.write(await handler.stream_unary(_timed(requests, seconds), context))

    async def stream_stream(requests: AsyncIterator[Any], context: Any) -> None:  # noqa: ANN401
        await written(handler.stream_stream, _timed(requests, seconds), context)

    async def written(inner: Callable[[Any, Any], Any], request: Any, context: Any) -> None:  # noqa: ANN401
        if not inspect.isasyncgenfunction(inner):
            await inner(request, context)
            return
        async with aclosing(inner(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    if handler.request_streaming:
        return stream_stream if handler.response_streaming else stream_unary
    return unary_stream if handler.response_streaming else unary_unary


async def _timed(requests: AsyncIterator[Any], seconds: float | None) -> AsyncIterator[Any]:
    """The requests; raises _Idle where the next does not come in time."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                request = await anext(requests)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _Idle(f"nothing was sent for {seconds:g} seconds") from None
        yield request


async def _abort(context: Any, error: ServerError) -> None:  # noqa: ANN401
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
