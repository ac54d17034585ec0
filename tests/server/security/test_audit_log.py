"""The audit line: what it tells, however the call ends, and whatever level is logged."""

import asyncio
import io
import json
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import structlog

from foldmint.v1 import codebook_pb2 as pb
from foldmint_server.log_config import configure_logs
from foldmint_server.security.audit_log import AuditLog, audit_logger

METHOD = "/foldmint.v1.CodebookService/ActivateCodebook"


class Context:
    """Of a call."""

    def __init__(self, code: grpc.StatusCode | None = None, names: tuple[bytes, ...] | None = None) -> None:
        self._code, self._names = code, names

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def peer(self) -> str:
        return "ipv4:10.1.2.3:4567"

    def peer_identities(self) -> tuple[bytes, ...] | None:
        return self._names


def written(method: Any, request: Any, context: Context, raises: type[BaseException] | None = None) -> dict[str, Any]:
    """The line of a call."""
    lines: list[dict[str, Any]] = []
    logger = structlog.wrap_logger(SimpleNamespace(info=lambda **line: lines.append(line)), processors=[_plain])
    times = iter([10.0, 12.5])
    audit = AuditLog(logger, lambda: next(times))
    handler = audit.handler(METHOD, "alice", grpc.unary_unary_rpc_method_handler(method))
    if raises is None:
        asyncio.run(handler.unary_unary(request, context))
    else:
        with pytest.raises(raises):
            asyncio.run(handler.unary_unary(request, context))
    (line,) = lines
    return line


def _plain(logger: Any, name: str, line: Any) -> Any:
    return line


async def answer(request: Any, context: Any) -> str:
    return "answer"


def test_a_call_that_goes_well() -> None:
    request = pb.ActivateCodebookRequest(version="000002")
    assert written(answer, request, Context(names=(b"operator", b"o@example.org"))) == {
        "event": "admin call",
        "method": "ActivateCodebook",
        "name": "alice",
        "peer": "ipv4:10.1.2.3:4567",
        "certificate": "operator, o@example.org",
        "arguments": {"version": "000002"},
        "outcome": "OK",
        "seconds": 2.5,
    }


def test_arguments_are_shortened_and_certificates_are_anything() -> None:
    line = written(answer, pb.ActivateCodebookRequest(version="x" * 10_000), Context(names=(b"\xff" * 10_000,)))
    assert line["arguments"] == {"version": "x" * 100}
    assert len(line["certificate"]) == 100
    assert written(answer, pb.SampleEmbeddingsRequest(count=5), Context())["arguments"] == {"count": 5}


def test_a_call_that_fails_or_is_given_up() -> None:
    async def fail(request: Any, context: Any) -> str:
        raise grpc.aio.AbortError

    async def given_up(request: Any, context: Any) -> str:
        raise asyncio.CancelledError

    request = pb.ActivateCodebookRequest(version="1")
    assert written(fail, request, Context(grpc.StatusCode.NOT_FOUND), grpc.aio.AbortError)["outcome"] == "NOT_FOUND"
    assert written(fail, request, Context(), grpc.aio.AbortError)["outcome"] == "UNKNOWN"
    assert written(given_up, request, Context(), asyncio.CancelledError)["outcome"] == "CANCELLED"


def test_it_is_written_at_any_level(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    configure_logs("error", "json")
    try:
        structlog.get_logger("any").info("left out")
        AuditLog(audit_logger()).denied(METHOD, "alice", Context(), "PERMISSION_DENIED")
    finally:
        structlog.reset_defaults()
    (line,) = map(json.loads, errors.getvalue().splitlines())
    assert (line["event"], line["outcome"], line["level"]) == ("admin call", "PERMISSION_DENIED", "info")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_in_the_log_shows_no_values(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    configure_logs("error", style)
    try:
        token = "-".join(("foldmint", "s3cret"))
        try:
            raise RuntimeError(str(len(token)))
        except RuntimeError:
            structlog.get_logger("any").exception("failed")
    finally:
        structlog.reset_defaults()
    assert "RuntimeError: 15" in errors.getvalue()
    assert "foldmint-s3cret" not in errors.getvalue()
