"""Chooses whether traces are made, from settings and environment; OpenTelemetry is loaded only where they are."""

from collections.abc import Mapping

from foldmint_server.tracing.trace import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracingError(RuntimeError):
    """Traces are asked for and cannot be had."""


def create_tracing(endpoint: str, environment: Mapping[str, str]) -> Tracing:
    """Tracing to a collector's OTLP over gRPC, or none.

    endpoint: http://HOST:PORT or https://…; where empty, the environment's OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT. Other
    variables of OpenTelemetry (sampler, resource, headers, batches) hold as well; OTEL_SDK_DISABLED=true and
    OTEL_TRACES_EXPORTER=none turn it off.

    Raises TracingError if the extra `otel` is not installed, or OpenTelemetry does not take what it is given.
    """
    if not endpoint and not any(environment.get(name) for name in _ENDPOINTS):
        return Tracing()
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return Tracing()
    if exporter not in ("", "otlp"):
        raise TracingError(f"OTEL_TRACES_EXPORTER is {exporter!r}; traces are sent by otlp, or not at all (none)")
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        raise TracingError(f"traces are sent by OTLP over grpc, not {protocol!r}, as OTEL_EXPORTER_OTLP_PROTOCOL asks")
    try:
        from foldmint_server.tracing.spans import Spans
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise TracingError("traces need OpenTelemetry: pip install 'foldmint[otel]'") from error
    try:
        return Spans(endpoint or None)
    except Exception as error:
        raise TracingError(f"OpenTelemetry does not take its settings: {error}") from error
