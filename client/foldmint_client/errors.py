"""What can go wrong between a caller and a Foldmint server, and which gRPC status means what.

FoldmintError
├── InvalidOptions      an option of the client cannot be taken; nothing was sent
├── MissingExtra        a library is not installed that an output format needs
├── UnreadableInput     a local file cannot be read; nothing was sent
├── InvalidStructure    the structure or tokens, or the wish, cannot be taken     INVALID_ARGUMENT, or found locally
├── NotFound            a codebook version that neither server nor store has      NOT_FOUND
├── Overloaded          queue full, or the caller's rate used up: try again later RESOURCE_EXHAUSTED
├── DeadlineExceeded    the time allowed passed first                             DEADLINE_EXCEEDED
├── Unavailable         no server answers, or it starts or stops: try again       UNAVAILABLE
├── Cancelled           the call was cancelled                                    CANCELLED
├── Unauthenticated     the server wants a token or certificate, or another one   UNAUTHENTICATED
├── PermissionDenied    the token or certificate does not allow this              PERMISSION_DENIED
├── FailedPrecondition  the server has not what this needs: codebook, decoder     FAILED_PRECONDITION
└── ServerError         anything else, with its status code
"""

from collections.abc import Sequence
from dataclasses import dataclass

_INVALID_ARGUMENT = 3
_RESOURCE_EXHAUSTED = 8


@dataclass(frozen=True)
class FieldViolation:
    """A field of a request that cannot be taken: its path in the request, and what is wrong with it."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class FoldmintError(Exception):
    """Root of all errors that the client raises on purpose."""


class InvalidOptions(FoldmintError, ValueError):
    """An invalid option of the client. option: its name as a keyword, None if it is more than one or none."""

    def __init__(self, message: str, option: str | None = None) -> None:
        self.option = option
        super().__init__(message)


class MissingExtra(FoldmintError):
    """A library that is not installed, and the extra of Foldmint that brings it."""


class UnreadableInput(FoldmintError):
    """A local file that cannot be read. `__cause__` is the OSError."""


class InvalidStructure(FoldmintError, ValueError):
    """A structure or tokens, or a wish about them, that cannot be taken.

    violations: the fields at fault, as the server names them; empty if it named none.
    """

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        self.violations = tuple(violations)
        # The server's message may tell of the fields already.
        untold = [str(violation) for violation in self.violations if violation.description not in message]
        super().__init__(f"{message} ({'; '.join(untold)})" if untold and message else message or "; ".join(untold))


class NotFound(FoldmintError):
    """A version of the codebook that neither the server nor its store has."""


class Overloaded(FoldmintError):
    """The server's queue is full, or the caller's rate used up; the same request may be taken later.

    retry_after: seconds after which the server asks to be asked again; None if it does not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeadlineExceeded(FoldmintError, TimeoutError):
    """The time allowed passed before the answer came."""


class Unavailable(FoldmintError):
    """No server answers, or it is starting or stopping; safe to try again."""


class Cancelled(FoldmintError):
    """The call was cancelled, here or by the server."""


class Unauthenticated(FoldmintError):
    """The server does not know the caller: a token or certificate is missing or wrong."""


class PermissionDenied(FoldmintError):
    """The server knows the caller and does not allow this."""


class FailedPrecondition(FoldmintError):
    """The server lacks what the call needs: model, codebook version, decoder, reservoir; or refuses a codebook."""


class ServerError(FoldmintError):
    """The server failed, or answered against the contract. code: the gRPC status as a number, 2 if there was none."""

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
    """The error that a gRPC status means. code: as a number, google.rpc.Code; 0 is not an error."""
    if code == _RESOURCE_EXHAUSTED:
        return Overloaded(message, retry_after)
    if code == _INVALID_ARGUMENT:
        return InvalidStructure(message, violations)
    if code in _BY_CODE:
        return _BY_CODE[code](message)
    return ServerError(message, code)
