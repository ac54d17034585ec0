"""Traces: what a call and its structures tell of themselves; nothing is told, nor OpenTelemetry loaded, unless asked.

Tracing ── call() ──> Trace ── structure(), of a stream ──> Trace
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from foldmint_server.inference.batch_executor import StepTimes
from foldmint_server.inference.decode_worker import Decoder

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracingError(RuntimeError):
    """Traces are asked for and cannot be had."""


class Trace:
    """What is told of a call, or of one structure of a stream, while it is entered. This one tells nothing."""

    ids: Mapping[str, str] = {}
    """What the log names it by."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """An error that leaves is what became of it."""

    def structure(self, number: int) -> "Trace":  # noqa: ARG002
        """The trace of a structure of a stream, by its id."""
        return self

    def describe(self, **attributes: str | int) -> None:
        """Tell facts, by name."""

    def stage(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Time a part of the work, which may be in another thread."""
        return nullcontext()

    def computing(self) -> AbstractContextManager[list[StepTimes] | None]:
        """Time the wait for a device and its steps; yields where they are to be noted, None for nowhere."""
        return nullcontext()

    def decoding(self, tokens: NDArray[np.int64]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Time the wait for the decode thread and its work on these tokens (length,)."""
        return nullcontext()


UNTRACED = Trace()


class Tracing:
    """Where traces come from. This one makes none."""

    def call(self, method: str, context: "grpc.aio.ServicerContext[Any, Any]") -> Trace:  # noqa: ARG002
        """The trace of a call of TokenizerService; its caller's context is in the call's metadata."""
        return UNTRACED

    def decoder(self, decoder: Decoder) -> Decoder:
        """A decoder whose work can be timed."""
        return decoder

    def close(self) -> None:
        """Send what was not sent yet, for some seconds at most."""


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
