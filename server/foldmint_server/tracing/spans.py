"""Spans of what the server does with a call, below the current span.

call (SERVER) ── structure, of a stream ──┬ parse
                                          ├ queue
                                          └ compute ── quantize, of each batch     (Detokenize: decode)
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from foldmint_server.errors import failure_of
from foldmint_server.inference.batch_executor import BatchTimes

STATUS = "foldmint.status"
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# Errors of the server by OpenTelemetry's conventions; the others are errors of its caller.
SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_MAX_BATCH_SPANS = 32  # of one structure

tracer = trace.get_tracer("foldmint_server", version("foldmint"))


def describe(**attributes: str | int) -> None:
    """Set attributes of the current span, each as foldmint.NAME."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({f"foldmint.{name}": value for name, value in attributes.items()})


def record_error(error: Exception) -> None:
    """Add an error that ends a call or a structure to the current span."""
    trace.get_current_span().record_exception(error)


@contextmanager
def structure_span(number: int) -> Iterator[None]:
    """The span of a structure of a stream, by its id; asyncio's cancellation counts as CANCELLED."""
    with _span("structure", {"foldmint.id": number}) as span:
        status = "CANCELLED"
        try:
            yield
            status = "OK"
        except Exception as error:
            status = _NAMES[failure_of(error).code]
            raise
        finally:
            span.set_attribute(STATUS, status)


@contextmanager
def stage_span(name: str) -> Iterator[None]:
    """The span of a part of the work."""
    with _span(name):
        yield


@contextmanager
def work_spans(name: str, count: str = "") -> Iterator[list[BatchTimes] | None]:
    """Spans of work that another thread does in batches: `queue`, up to the first, and NAME, to the end of the last.

    Yields where the times of the batches are to be noted; None if nothing is recorded. count: the attribute of their
    number.
    """
    if not trace.get_current_span().is_recording():
        yield None
        return
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
            _record("queue", arrived, batches[0].began)
            # The end of a batch that failed or was abandoned is unknown.
            ended = max(batch.quantized or batch.computed for batch in batches) or now
            counted = {count: len(batches)} if count else None
            work = trace.set_span_in_context(_record(name, batches[0].began, ended, error=error, attributes=counted))
            for batch in batches[:_MAX_BATCH_SPANS]:
                if batch.quantized:
                    _record("quantize", batch.computed, batch.quantized, parent=work)
        elif error is not None:  # no batch took it; and a structure without queries needs none
            _record("queue", arrived, now, error=error)


@contextmanager
def _span(name: str, attributes: dict[str, int] | None = None) -> Iterator[Span]:
    """A span below the current one, if that is recorded. An error of the caller does not make it one of the server."""
    if not trace.get_current_span().is_recording():
        yield trace.INVALID_SPAN
        return
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            _set_error(span, error)
            raise


def _record(
    name: str,
    began: int,
    ended: int,
    *,
    error: BaseException | None = None,
    parent: Context | None = None,
    attributes: dict[str, int] | None = None,
) -> Span:
    """A span that is over; times in ns since 1970. parent: None for the current span."""
    span = tracer.start_span(name, parent, attributes=attributes, start_time=began)
    if isinstance(error, Exception):
        _set_error(span, error)
    span.end(ended)
    return span


def _set_error(span: Span, error: Exception) -> None:
    failure = failure_of(error)
    if _NAMES[failure.code] in SERVER_ERRORS:
        span.set_status(Status(StatusCode.ERROR, failure.message))
