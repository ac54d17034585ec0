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

from foldmint_server.inference.batch_executor import BatchTimes
from foldmint_server.inference.decode_worker import Decoder


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

    def computing(self) -> AbstractContextManager[list[BatchTimes] | None]:
        """Time the wait for a device and its batches; yields where they are to be noted, None for nowhere."""
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
