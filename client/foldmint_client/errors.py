"""The error tree of the client, and the gRPC status of each error.

FoldmintError
├── InvalidOptions      an option of the client is invalid; nothing was sent
├── MissingExtra        a library that a file format needs is not installed
├── UnreadableInput     a local file cannot be read; nothing was sent
├── InvalidStructure    the structure, tokens or options of a request are invalid INVALID_ARGUMENT, or found locally
├── NotFound            a codebook version that neither server nor store has      NOT_FOUND
├── Overloaded          queue full, or the caller's rate exhausted: retry later   RESOURCE_EXHAUSTED
├── DeadlineExceeded    no answer within the timeout                              DEADLINE_EXCEEDED
├── Unavailable         the server cannot be reached, starts or stops: retry      UNAVAILABLE
├── Cancelled           the call was cancelled                                    CANCELLED
├── Unauthenticated     the token or certificate is missing or invalid            UNAUTHENTICATED
├── PermissionDenied    the token or certificate does not allow this              PERMISSION_DENIED
├── FailedPrecondition  the server lacks what this needs: codebook, decoder       FAILED_PRECONDITION
└── ServerError         any other status, with its code
"""

from collections.abc import Sequence
from dataclasses import dataclass

_INVALID_ARGUMENT = 3
_RESOURCE_EXHAUSTED = 8


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of a request: its path in the request, and what is wrong with it."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class FoldmintError(Exception):
    """Base class of the client's errors."""


class InvalidOptions(FoldmintError, ValueError):
    """An invalid option of the client. option: its name as a keyword, None if it is more than one or none."""

    def __init__(self, message: str, option: str | None = None) -> None:
        self.option = option
        super().__init__(message)


class MissingExtra(FoldmintError):
    """A library is not installed. The message names the extra that installs it."""


class UnreadableInput(FoldmintError):
    """A local file that cannot be read. `__cause__` is the OSError."""


class InvalidStructure(FoldmintError, ValueError):
    """An invalid structure, invalid tokens, or invalid options for them.

    violations: the fields at fault, as the server names them; empty if it named none.
    """

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        self.violations = tuple(violations)
        # The server's message may contain the descriptions already.
        missing = [str(violation) for violation in self.violations if violation.description not in message]
        super().__init__(f"{message} ({'; '.join(missing)})" if missing and message else message or "; ".join(missing))


class NotFound(FoldmintError):
    """Neither the server nor its store has this codebook version."""


class Overloaded(FoldmintError):
    """The server's queue is full, or the caller's rate is exhausted; the same request may succeed later.

    retry_after: seconds to wait before a retry, by the server; None if it gives none.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class RefusedStream(Overloaded):
    """The server's HTTP/2 layer refused the call before anything read it (REFUSED_STREAM), so any call may be retried.

    It says nothing about when, so the pause is that of `Retry`.
    """


class DeadlineExceeded(FoldmintError, TimeoutError):
    """No answer arrived within the timeout."""


class Unavailable(FoldmintError):
    """The server cannot be reached, is starting or is stopping; safe to retry."""


class DroppedCall(Unavailable):
    """The server ended the call with neither an answer nor a status of its own, as gRPC does beyond its own limits.

    It may have begun, so only a call that may be made twice is made again, after the pause of `Retry`.
    """


class Cancelled(FoldmintError):
    """The call was cancelled, here or by the server."""


class Unauthenticated(FoldmintError):
    """The caller's token or certificate is missing or invalid."""


class PermissionDenied(FoldmintError):
    """The caller is known and lacks permission."""


class FailedPrecondition(FoldmintError):
    """The server lacks what the call needs: model, codebook version, decoder, reservoir; or rejects a codebook."""


class ServerError(FoldmintError):
    """The server failed or violated the contract. code: the gRPC status as a number, 2 if there was none."""

    def __init__(self, message: str, code: int = 2) -> None:
        self.code = code
        super().__init__(message)


_BY_CODE: dict[int, type[FoldmintError]] = {
    1: Cancelled,
    4: DeadlineExceeded,
    5: NotFound,
    7: PermissionDenied,
    9: FailedPrecondition,
    14: Unavailable,
    16: Unauthenticated,
}


def from_status(
    code: int, message: str, violations: Sequence[FieldViolation] = (), retry_after: float | None = None
) -> FoldmintError:
    """The error for a gRPC status. code: a number of google.rpc.Code other than 0."""
    if code == _RESOURCE_EXHAUSTED:
        return Overloaded(message, retry_after)
    if code == _INVALID_ARGUMENT:
        return InvalidStructure(message, violations)
    if code in _BY_CODE:
        return _BY_CODE[code](message)
    return ServerError(message, code)
