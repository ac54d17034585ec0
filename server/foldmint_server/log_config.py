"""Structured logs, to standard error."""

import asyncio
import contextlib
import logging
import os
import sys
from typing import TextIO, cast

import structlog
from opentelemetry import trace

from foldmint_server.log_throttle import LogThrottle

_FLUSH_SECONDS = 1.0


class _Lenient:
    """A stream that cannot fail: a disk that is full must not end what is logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Let it through, if that can be."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Forward(logging.Handler):
    """What libraries log by `logging`, in the server's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log it at its level."""
        structlog.get_logger(record.name).log(
            record.levelno, "library", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )


class _Throttling:
    """The throttle of the log as it is configured now."""

    throttle = LogThrottle()


def quiet_grpc() -> None:
    """Turn off the lines that gRPC's core writes to standard error by itself, in a form of its own, unless
    GRPC_VERBOSITY asks for some. It is read when gRPC is loaded: call this before.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def add_trace_ids(
    logger: object,  # noqa: ARG001
    method: str,  # noqa: ARG001
    event: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    """A processor that adds the ids of the current span, if it is recorded."""
    span = trace.get_current_span()
    if span.is_recording():
        context = span.get_span_context()
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def configure_logs(level: str, style: str) -> None:
    """Log at and above a level, as JSON lines or for a person to read, in color if a terminal shows it.

    Lines that are throttled are so at all levels but `debug`.
    """
    _Throttling.throttle = LogThrottle(0.0) if level == "debug" else LogThrottle()
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        # Its own way with exceptions shows the values of all variables, secrets among them.
        else structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            _Throttling.throttle,
            structlog.contextvars.merge_contextvars,
            add_trace_ids,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if style == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lenient(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    libraries = logging.getLogger()
    if not any(isinstance(handler, _Forward) for handler in libraries.handlers):
        libraries.addHandler(_Forward(logging.WARNING))


def flush_log(*, all_kinds: bool = False) -> None:
    """Log the counts of throttled lines whose time has come, or all of them."""
    _Throttling.throttle.flush(all_kinds=all_kinds)


async def flush_log_periodically() -> None:
    """Do so each second, until cancelled; then all of them."""
    try:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            flush_log()
    finally:
        flush_log(all_kinds=True)
