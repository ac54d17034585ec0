"""The errors that gRPC reports, of calls and of single structures of a stream, as the client's own."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from foldmint.v1 import tokenizer_pb2
from foldmint_client.addresses import Address
from foldmint_client.errors import (
    DroppedCall,
    FieldViolation,
    FoldmintError,
    RefusedStream,
    ServerError,
    Unavailable,
    from_status,
)

_DETAILS = "grpc-status-details-bin"
# gRPC's own words where HTTP/2 ended a call without a status: as a proxy does whose server died while it answered.
_RESET = re.compile(r"Received RST_STREAM with error code \d+")
# By RFC 9113, 8.7: nothing of the call was processed.
_REFUSED = re.compile(r"Received RST_STREAM with error code 7\b")
# The whole of its words where the server dropped the call: flooded, it takes no more (docs/reliability.md). A call that
# is cancelled here has others.
_DROPPED = "CANCELLED"
_OF_A_RESET = (grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)


@contextmanager
def translated(server: Address | None = None) -> Iterator[None]:
    """Raise the client's own error where gRPC raises its; around an `await` too. server: to be named, if given."""
    try:
        yield
    except grpc.RpcError as error:
        own = from_rpc_error(error)
        raise own if server is None else named(own, server) from error
    except FoldmintError as error:
        if server is not None:
            named(error, server)
        raise


def named(error: FoldmintError, server: Address) -> FoldmintError:
    """The error, with the server's name before its message."""
    error.args = (f"{server}: {error}",)
    return error


def from_rpc_error(error: grpc.RpcError) -> FoldmintError:
    """The client's error for one of gRPC's; BadRequest details become its violations, RetryInfo its retry_after."""
    if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return ServerError(str(error))
    return from_parts(error.code(), error.details(), error.trailing_metadata())


def from_parts(code: grpc.StatusCode, details: str | None, metadata: object) -> FoldmintError:
    """The client's error for a status. metadata: the trailing, which may hold details.

    A call that was reset has no status of the server's; gRPC makes one up, which would blame the server.
    """
    if code is grpc.StatusCode.UNAVAILABLE and details is not None and _REFUSED.search(details):
        return RefusedStream(f"the server refused the call for now: {details}")
    if code in _OF_A_RESET and details is not None and _RESET.search(details):
        return Unavailable(f"the connection to the server was lost: {details}")
    number: int = code.value[0]
    violations, retry_after = _details(metadata)
    if code is grpc.StatusCode.CANCELLED and details == _DROPPED:
        return DroppedCall("the server dropped the call: it takes no more for now, or stops")
    return from_status(number, details or code.name, violations, retry_after)


def from_failure(failure: tokenizer_pb2.Failure) -> FoldmintError:
    """The client's error for one structure of a stream."""
    violations = [FieldViolation(violation.field, violation.description) for violation in failure.violations]
    return from_status(failure.code, failure.message, violations)


def _details(metadata: object) -> tuple[list[FieldViolation], float | None]:
    """Invalid fields, and the seconds after which to retry, None if not given."""
    # Decoded here, not by grpc_status: that raises ValueError where a proxy changed the status's message.
    found: list[FieldViolation] = []
    retry_after: float | None = None
    for key, value in metadata or ():  # type: ignore[attr-defined]  # an iterable of pairs, in both of gRPC's kinds
        if key != _DETAILS:
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
                if detail.Unpack(request):
                    found += [FieldViolation(field.field, field.description) for field in request.field_violations]
                elif detail.Unpack(retry):
                    retry_after = max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
        except DecodeError as error:
            found.append(FieldViolation("", f"the server's error details cannot be decoded: {error}"))
    return found, retry_after
