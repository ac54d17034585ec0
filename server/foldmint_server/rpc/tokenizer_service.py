"""The servicer of `TokenizerService`: calls the pipeline, and maps errors to statuses."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_server.codebooks.manager import LoadedCodebook
from foldmint_server.errors import ServerError, failure_of, status_of
from foldmint_server.metrics.registry import Metrics
from foldmint_server.rpc.pipeline import Pipeline
from foldmint_server.rpc.stream_limits import OpenStreams, ReadWatch, Requests, StreamLimits, address_of
from foldmint_server.security.authorization import CALLER
from foldmint_server.tracing.spans import record_error, structure_span
from foldmint_tokenizer import InvalidStructure, InvalidTokens

log = structlog.get_logger(__name__)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_LONGEST_NAME = 128  # of a caller


class TokenizerServicer(rpc.TokenizerServiceServicer):
    """Answers structures, alone or over a stream.

    about: the response of GetModel, except for the codebook. tenant_key: metadata key that names callers without a
    token; empty: they count as one caller.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        about: pb.GetModelResponse,
        metrics: Metrics,
        streams: StreamLimits,
        tenant_key: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline, self._about, self._metrics = pipeline, about, metrics
        self._streams, self._tenant_key, self._clock = streams, tenant_key, clock
        self._ended: Callable[[str], None] = lambda reason: metrics.calls_ended.labels(reason).inc()
        self._open = OpenStreams(streams.per_caller, self._ended)
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Read no more requests from open streams; they end once those in flight are answered."""
        self._draining.set()

    async def Tokenize(  # noqa: N802 (the contract's name)
        self,
        request: pb.TokenizeRequest,
        context: "grpc.aio.ServicerContext[pb.TokenizeRequest, pb.TokenizeResponse]",
    ) -> pb.TokenizeResponse:
        """Answer one structure."""
        try:
            with self._observed("Tokenize"):
                return await self._pipeline.tokenize(
                    request,
                    caller=caller_name(context, self._tenant_key),
                    # None once the deadline has passed: gRPC then ends the call by itself.
                    time_left=lambda: context.time_remaining() or None,
                )
        except Exception as error:
            await context.abort_with_status(rpc_status.to_status(status_of(error)))
            raise AssertionError("abort_with_status always raises") from error

    async def TokenizeStream(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.TokenizeStreamRequest],
        context: "grpc.aio.ServicerContext[pb.TokenizeStreamRequest, pb.TokenizeStreamResponse]",
    ) -> AsyncIterator[pb.TokenizeStreamResponse]:
        """Answer structures as they are ready; at most so many are worked on, the rest waits with the caller.

        What asks for no version of the codebook gets the one that is active now, for as long as the stream is open.
        """
        watch = ReadWatch(context, self._streams.send_seconds, self._ended)
        caller = caller_name(context, self._tenant_key)
        try:
            with (
                self._open.opened(CALLER.get().name or address_of(context)),
                watch.watching(),
            ):
                async with aclosing(self._stream(request_iterator, caller)) as responses:
                    async for response in responses:
                        with watch.sending():
                            yield response
        except ServerError as error:
            record_error(error)
            self._metrics.callers.refused(CALLER.get().name, _NAMES[failure_of(error).code])
            await context.abort_with_status(rpc_status.to_status(status_of(error)))

    async def _stream(
        self, request_iterator: AsyncIterator[pb.TokenizeStreamRequest], caller: str
    ) -> AsyncGenerator[pb.TokenizeStreamResponse, None]:
        """The answers of a stream. Raises Stopping or StreamLimitReached once it was cut short."""
        loaded = self._pipeline.codebooks.active
        working = 0
        requests = Requests(request_iterator, self._draining, self._streams, lambda: working > 0, self._ended)
        answers: asyncio.Queue[pb.TokenizeStreamResponse | None] = asyncio.Queue()
        room = asyncio.Semaphore(self._streams.in_flight)

        async def answer(item: pb.TokenizeStreamRequest) -> None:
            await answers.put(await self._answered(item, loaded, caller))

        async def read() -> None:
            nonlocal working
            try:
                async with asyncio.TaskGroup() as tasks:
                    await room.acquire()
                    async for item in requests:
                        working += 1
                        tasks.create_task(answer(item))
                        await room.acquire()
            finally:
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (response := await answers.get()) is not None:
                yield response
                working -= 1
                room.release()
            await reader
        finally:
            reader.cancel()
        if requests.over is not None:
            raise requests.over

    async def Detokenize(  # noqa: N802
        self,
        request: pb.DetokenizeRequest,
        context: "grpc.aio.ServicerContext[pb.DetokenizeRequest, pb.DetokenizeResponse]",
    ) -> pb.DetokenizeResponse:
        """Answer the tokens of one structure."""
        try:
            with self._observed("Detokenize"):
                return await self._pipeline.detokenize(request)
        except Exception as error:
            await context.abort_with_status(rpc_status.to_status(status_of(error)))
            raise AssertionError("abort_with_status always raises") from error

    async def GetModel(  # noqa: N802
        self,
        request: pb.GetModelRequest,  # noqa: ARG002
        context: "grpc.aio.ServicerContext[pb.GetModelRequest, pb.GetModelResponse]",  # noqa: ARG002
    ) -> pb.GetModelResponse:
        """The model that is served, with its limits."""
        with self._observed("GetModel"):
            loaded, about = self._pipeline.codebooks.active, pb.GetModelResponse()
            about.CopyFrom(self._about)
            about.codebook_version, about.codebook_digest = loaded.codebook_version, loaded.codebook_digest
            return about

    async def _answered(
        self, item: pb.TokenizeStreamRequest, loaded: LoadedCodebook, caller: str
    ) -> pb.TokenizeStreamResponse:
        try:
            with structure_span(item.id), self._observed("TokenizeStream"):
                response = await self._pipeline.tokenize(item.request, loaded, caller=caller, wait_for_room=True)
                return pb.TokenizeStreamResponse(id=item.id, response=response)
        except Exception as error:  # noqa: BLE001
            return pb.TokenizeStreamResponse(id=item.id, failure=failure_of(error))

    @contextmanager
    def _observed(self, method: str) -> Iterator[None]:
        """Count and time a structure, and log what went wrong with it."""
        began = self._clock()
        status = "CANCELLED"  # asyncio's cancellation is not an Exception
        self._metrics.requests_in_flight.inc()
        try:
            yield
            status = "OK"
        except Exception as error:
            status = _NAMES[failure_of(error).code]
            record_error(error)
            if isinstance(error, InvalidStructure | InvalidTokens | ServerError):
                throttle = f"{method} {status}"
                log.info("refused", throttle=throttle, method=method, status=status, reason=str(error))
            else:
                log.exception("failed", method=method)
            raise
        finally:
            self._metrics.requests_in_flight.dec()
            seconds = self._clock() - began
            self._metrics.requests.labels(method, status).inc()
            self._metrics.request_seconds.labels(method).observe(seconds)
            if method != "GetModel" and status == "OK":
                self._metrics.callers.answered(CALLER.get().name, seconds)
            elif status not in ("OK", "CANCELLED"):
                self._metrics.callers.refused(CALLER.get().name, status)


def caller_name(context: "grpc.aio.ServicerContext[Any, Any]", tenant_key: str) -> str:
    """Who calls: the name of the token, else what the metadata has under this key, cut off; empty if neither is there.

    A caller chooses its metadata freely, so names from there never equal the name of a token, which has no space.
    """
    if known := CALLER.get().name:
        return known
    metadata = context.invocation_metadata() if tenant_key else None
    named = next((value for key, value in metadata or () if key == tenant_key), "")
    return f"tenant {named[:_LONGEST_NAME]}" if named and isinstance(named, str) else ""
