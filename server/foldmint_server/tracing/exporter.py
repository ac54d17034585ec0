"""Sends the process's spans to a collector, by OTLP over gRPC; imported only if traces are requested."""

import logging
import threading
from importlib.metadata import version

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

log = structlog.get_logger(__name__)
_FLUSH_SECONDS = 3.0


class TraceExporter:
    """A thread that sends spans in batches, from a queue that drops the oldest when it is full.

    endpoint: of the collector, http://HOST:PORT or https://…; None: as OpenTelemetry's environment variables say.
    """

    def __init__(self, endpoint: str | None) -> None:
        defaults = {"service.name": "foldmint", "service.version": version("foldmint")}
        # The environment's description of the service takes precedence.
        resource = Resource.create({**defaults, **OTELResourceDetector().detect().attributes})
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        _redirect_logs()
        trace.set_tracer_provider(self._provider)

    def close(self) -> None:
        """Send the remaining spans; gives up after 3 seconds, where OpenTelemetry would try for 30."""
        timeout = threading.Timer(_FLUSH_SECONDS, self._exporter.shutdown)
        timeout.start()
        self._provider.shutdown()
        timeout.cancel()


class _StructlogHandler(logging.Handler):
    """Passes OpenTelemetry's messages, above all that a collector is unreachable, to the server's log."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "opentelemetry", message=record.getMessage())


def _redirect_logs() -> None:
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _StructlogHandler) for handler in logger.handlers):
        logger.addHandler(_StructlogHandler())
        logger.propagate = False
