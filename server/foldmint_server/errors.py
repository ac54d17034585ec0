"""What can go wrong in the server, and the one place that turns it into gRPC statuses.

ServerError
├── Overloaded            the queue is full, or long for the deadline  RESOURCE_EXHAUSTED, the latter with RetryInfo
├── RateLimited           the caller's residues are used up for now    RESOURCE_EXHAUSTED, with google.rpc.RetryInfo
├── DeviceFull            the device has no memory for the structure   RESOURCE_EXHAUSTED
├── VersionNotAvailable   another model or codebook, no decoder        FAILED_PRECONDITION
├── UnknownVersion        neither server nor store has the codebook    NOT_FOUND
├── CodebookRejected      a codebook cannot be activated or rolled back FAILED_PRECONDITION
├── TooManyStreams        the caller has as many open as it may        RESOURCE_EXHAUSTED
├── CapacityReached       too many calls, of the caller or in all      RESOURCE_EXHAUSTED, with google.rpc.RetryInfo
├── StreamLimitReached    a stream had its time or its structures      UNAVAILABLE: it may be opened again
└── Stopping              the server is going down                     UNAVAILABLE

InvalidStructure, InvalidTokens, of the tokenizer    INVALID_ARGUMENT, with google.rpc.BadRequest
everything else                                      INTERNAL, with no more than a reference to the log
"""

import math

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import InvalidStructure, InvalidTokens


class ServerError(Exception):
    """Root of what the server raises on purpose."""


class Overloaded(ServerError):
    """The queue has no room for this request now, or not in time. seconds: after which it may have; None: unknown."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        self.seconds = seconds
        super().__init__(reason)


class RateLimited(ServerError):
    """The caller has asked for more residues than its token allows. seconds: after which it may ask again."""

    def __init__(self, reason: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(reason)


class DeviceFull(ServerError):
    """The device has no memory for a structure now."""


class VersionNotAvailable(ServerError):
    """The request needs a model, a codebook version or a decoder that this server does not have."""


class UnknownVersion(ServerError):
    """Neither the server nor its store has this version of the codebook."""


class CodebookRejected(ServerError):
    """An operator's request cannot be carried out; the message says why. The active codebook stays.

    unreachable: the store could not be read, which may pass; otherwise what it holds is at fault.
    """

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        self.unreachable = unreachable
        super().__init__(reason)


class TooManyStreams(ServerError):
    """The caller has as many streams open as it may."""


class CapacityReached(ServerError):
    """Too many calls are under way. reason: of the metrics' label. seconds: after which to try again."""

    def __init__(self, text: str, reason: str, seconds: float) -> None:
        self.reason, self.seconds = reason, seconds
        super().__init__(text)


class StreamLimitReached(ServerError):
    """A stream sent nothing for too long, or had as many structures as one may have; another may be opened."""


class Stopping(ServerError):
    """The server is stopping, and takes no more work."""


_CODES = {
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeviceFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    VersionNotAvailable: grpc.StatusCode.FAILED_PRECONDITION,
    UnknownVersion: grpc.StatusCode.NOT_FOUND,
    CodebookRejected: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyStreams: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CapacityReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StreamLimitReached: grpc.StatusCode.UNAVAILABLE,
    Stopping: grpc.StatusCode.UNAVAILABLE,
}


def failure_of(error: Exception) -> pb.Failure:
    """The error as a stream's answer."""
    if isinstance(error, InvalidStructure):
        return _invalid(error.field, error.description)
    if isinstance(error, InvalidTokens):
        return _invalid("tokens" if error.position is None else f"tokens[{error.position}]", error.reason)
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return pb.Failure(code=_number(code), message=str(error))
    return pb.Failure(
        code=_number(grpc.StatusCode.INTERNAL), message=f"{type(error).__name__} in the server; see its log"
    )


def status_of(error: Exception) -> status_pb2.Status:
    """The error as the status of a unary call."""
    failure = failure_of(error)
    status = status_pb2.Status(code=failure.code, message=failure.message)
    if failure.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in failure.violations
        ]
        _add(status, error_details_pb2.BadRequest(field_violations=fields))
    if isinstance(error, Overloaded | RateLimited | CapacityReached) and error.seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(math.ceil(error.seconds * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _invalid(field: str, description: str) -> pb.Failure:
    violation = pb.FieldViolation(field=field, description=description)
    return pb.Failure(
        code=_number(grpc.StatusCode.INVALID_ARGUMENT), message=f"{field}: {description}", violations=[violation]
    )


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
