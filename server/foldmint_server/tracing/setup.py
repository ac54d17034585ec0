"""Starts the export of traces, if settings or environment ask for it; the SDK of OpenTelemetry is loaded only then.

Everything else uses OpenTelemetry's API, whose spans cost next to nothing until a tracer provider is set.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmint_server.tracing.exporter import TraceExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracingError(RuntimeError):
    """Traces are requested and cannot be exported."""


def start_exporter(endpoint: str, environment: Mapping[str, str]) -> "TraceExporter | None":
    """Export the process's traces to a collector, by OTLP over gRPC; None if no traces are requested.

    endpoint: http://HOST:PORT or https://…; if empty, the environment's OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT. Other
    variables of OpenTelemetry (sampler, resource, headers, batches) apply as well; OTEL_SDK_DISABLED=true and
    OTEL_TRACES_EXPORTER=none turn it off.

    Raises TracingError if the extra `otel` is not installed, or OpenTelemetry rejects its settings.
    """
    if not endpoint and not any(environment.get(name) for name in _ENDPOINTS):
        return None
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise TracingError(f"unsupported OTEL_TRACES_EXPORTER: {exporter!r}; supported are 'otlp' and 'none'")
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        raise TracingError(f"unsupported OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r}; supported is 'grpc'")
    try:
        from foldmint_server.tracing.exporter import TraceExporter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise TracingError("traces need OpenTelemetry: pip install 'foldmint[otel]'") from error
    try:
        return TraceExporter(endpoint or None)
    except Exception as error:
        raise TracingError(f"OpenTelemetry rejects its settings: {error}") from error
