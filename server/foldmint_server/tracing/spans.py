"""Traces as OpenTelemetry's spans, sent by OTLP over gRPC; loaded only where they are asked for.

call (SERVER) ── structure, of a stream ──┬ parse
                                          ├ queue
                                          └ compute ── quantize, of each batch     (Detokenize: decode)
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from foldmint.v1 import tokenizer_pb2
from foldmint_server.errors import failure_of
from foldmint_server.inference.batch_executor import BatchTimes
from foldmint_server.inference.decode_worker import Decoder
from foldmint_server.tracing.timed_decoder import TimedDecoder
from foldmint_server.tracing.trace import UNTRACED, Trace, Tracing

log = structlog.get_logger(__name__)
_SERVICE = tokenizer_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# What OpenTelemetry's conventions count as a server's own error; others are its caller's.
_OWN = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_MOST_BATCHES = 32  # of one structure that are told one by one
_LAST_SECONDS = 3.0  # for what was not sent when the server stops


class Spans(Tracing):
    """Makes spans; a thread sends them in batches, from a queue that forgets the oldest when it is full.

    endpoint: of the collector, http://HOST:PORT or https://…; None: as OpenTelemetry's environment says.
    """

    def __init__(self, endpoint: str | None) -> None:
        own = {"service.name": "foldmint", "service.version": version("foldmint")}
        # What the environment says of the service comes first.
        resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("foldmint_server", version("foldmint"))
        self._decoder: TimedDecoder | None = None
        _logged_with_the_rest()

    def call(self, method: str, context: "grpc.aio.ServicerContext[Any, Any]") -> Trace:
        """A span under the caller's, if the metadata tell of one; what is not sampled costs no more."""
        carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        full = f"{_SERVICE}/{method}"
        span = self._tracer.start_span(
            full,
            propagate.extract(carrier),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": full},
        )
        return SpanTrace(self._tracer, span, self._decoder, call=True) if span.is_recording() else UNTRACED

    def decoder(self, decoder: Decoder) -> Decoder:
        """The decoder, watched."""
        self._decoder = TimedDecoder(decoder)
        return self._decoder

    def close(self) -> None:
        """Send what was not sent yet; gives up after some seconds, as OpenTelemetry by itself would after thirty."""
        giving_up = threading.Timer(_LAST_SECONDS, self._exporter.shutdown)
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class SpanTrace(Trace):
    """A call's span, or a structure's, with those of its stages below it. Errors are recorded, with their status."""

    def __init__(
        self,
        tracer: trace.Tracer,
        span: Span,
        decoder: TimedDecoder | None,
        *,
        call: bool,
    ) -> None:
        self._tracer, self._span, self._decoder, self._call = tracer, span, decoder, call
        self._context = trace.set_span_in_context(span)
        known = span.get_span_context()
        self.ids = {"trace_id": trace.format_trace_id(known.trace_id), "span_id": trace.format_span_id(known.span_id)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the span; asyncio's cancellation, and that of a stream's generator, count as CANCELLED."""
        status = "OK" if error is None else "CANCELLED"
        if isinstance(error, Exception):
            failure = failure_of(error)
            status = _NAMES[failure.code]
            self._span.record_exception(error)
            if status in _OWN:
                self._span.set_status(Status(StatusCode.ERROR, failure.message))
        self._span.set_attribute("foldmint.status", status)
        if self._call:
            self._span.set_attribute("rpc.response.status_code", status)
        self._span.end()

    def structure(self, number: int) -> Trace:
        """A span of its own for a structure of a stream."""
        span = self._tracer.start_span("structure", self._context, attributes={"foldmint.id": number})
        return SpanTrace(self._tracer, span, self._decoder, call=False)

    def describe(self, **attributes: str | int) -> None:
        """Attributes of the span, each as foldmint.NAME."""
        for name, value in attributes.items():
            self._span.set_attribute(f"foldmint.{name}", value)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span below this one."""
        began = time.time_ns()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._add(name, began, time.time_ns(), error=error)

    @contextmanager
    def computing(self) -> Iterator[list[BatchTimes]]:
        """Spans queue, from here to the first batch, and compute, to the end of the last; quantize below that."""
        arrived = time.time_ns()
        error: BaseException | None = None
        noted: list[BatchTimes] = []
        try:
            yield noted
        except BaseException as raised:
            error = raised
            raise
        finally:
            # Several threads or devices may have noted theirs, side by side.
            batches, now = sorted(noted, key=lambda batch: batch.began), time.time_ns()
            if batches:
                self._add("queue", arrived, batches[0].began)
                # Of one that failed, or was given up on its way, the end is not known.
                ended = max(batch.quantized for batch in batches) or now
                computing = self._add("compute", batches[0].began, ended, error=error, steps=len(batches))
                for batch in batches[:_MOST_BATCHES]:
                    if batch.quantized:
                        self._add("quantize", batch.computed, batch.quantized, below=computing)
            elif error is not None:  # it never came to a batch; and without rows there is none to wait for
                self._add("queue", arrived, now, error=error)

    @contextmanager
    def decoding(self, tokens: NDArray[np.int64]) -> Iterator[None]:
        """Spans queue, from here to the begin of decoding, and decode."""
        if self._decoder is None:
            yield
            return
        arrived = time.time_ns()
        error: BaseException | None = None
        with self._decoder.watch(tokens) as times:
            try:
                yield
            except BaseException as raised:
                error = raised
                raise
            finally:
                now = time.time_ns()
                began, ended = (*times, now, now)[:2]
                self._add("queue", arrived, began, error=None if times else error)
                if times:
                    self._add("decode", began, ended, error=error)

    def _add(
        self,
        name: str,
        began: int,
        ended: int,
        *,
        error: BaseException | None = None,
        below: Span | None = None,
        **attributes: int,
    ) -> Span:
        """A span that is over; times in ns since 1970. below: instead of this trace's own."""
        context = self._context if below is None else trace.set_span_in_context(below)
        facts = {f"foldmint.{key}": value for key, value in attributes.items()}
        span = self._tracer.start_span(name, context, attributes=facts, start_time=began)
        if isinstance(error, Exception) and _NAMES[failure_of(error).code] in _OWN:
            span.set_status(Status(StatusCode.ERROR, failure_of(error).message))
        span.end(ended)
        return span


class _Log(logging.Handler):
    """What OpenTelemetry logs, a collector that cannot be reached above all, goes where the server's log goes."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "opentelemetry", message=record.getMessage())


def _logged_with_the_rest() -> None:
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Log) for handler in logger.handlers):
        logger.addHandler(_Log())
        logger.propagate = False
