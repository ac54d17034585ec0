"""The audit log: a line for each admin call, whatever the log level; never a token."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from foldmint_server.method_handlers import wrap_handler

_LONGEST = 100  # characters of an argument, which the caller chose


def audit_logger() -> structlog.typing.FilteringBoundLogger:
    """A logger to standard error, for all levels."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return logger


class AuditLog:
    """Writes who did what, from where, with which arguments, how it ended, and how long it took."""

    def __init__(
        self, logger: structlog.typing.FilteringBoundLogger | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._clock = logger or audit_logger(), clock

    def handler(self, method: str, name: str, inner: "grpc.RpcMethodHandler[Any, Any]") -> Any:  # noqa: ANN401
        """The handler of a unary method, with a line when it ends. name: of the caller's token; empty: anonymous."""

        @asynccontextmanager
        async def around(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            began, outcome = self._clock(), "CANCELLED"  # asyncio's cancellation is not an Exception
            try:
                yield request
                outcome = "OK"
            except Exception:
                outcome = _status(context)
                raise
            finally:
                self._write(method, name, context, outcome, self._clock() - began, _summary(request))

        return wrap_handler(inner, around)

    def denied(self, method: str, name: str, context: Any, status: str) -> None:  # noqa: ANN401
        """A line for a rejected call, whose arguments were not read."""
        self._write(method, name, context, status, 0.0, {})

    def _write(
        self,
        method: str,
        name: str,
        context: Any,  # noqa: ANN401
        outcome: str,
        seconds: float,
        arguments: Mapping[str, object],
    ) -> None:
        self._log.info(
            "admin call",
            method=method.rpartition("/")[2],
            name=name,
            peer=context.peer(),
            certificate=_certificate(context),
            arguments=dict(arguments),
            outcome=outcome,
            seconds=round(seconds, 6),
        )


def _status(context: Any) -> str:  # noqa: ANN401
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else str(code or "UNKNOWN")


def _summary(request: Any) -> dict[str, object]:  # noqa: ANN401
    """The fields that were sent, shortened: operators' messages hold versions and numbers."""
    return {
        field.name: value if isinstance(value, int) else str(value)[:_LONGEST] for field, value in request.ListFields()
    }


def _certificate(context: Any) -> str:  # noqa: ANN401
    """The names in the caller's certificate; empty without one."""
    names = context.peer_identities() or ()
    return ", ".join(name.decode("utf-8", "replace") for name in names)[:_LONGEST]
