"""What can go wrong in the server, and the one place that turns it into gRPC statuses.

ServerError
├── Overloaded    the queue is full            RESOURCE_EXHAUSTED
└── Stopping      the server is going down     UNAVAILABLE

InvalidStructure, of the tokenizer             INVALID_ARGUMENT, with google.rpc.BadRequest
everything else                                INTERNAL, with no more than a reference to the log
"""

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import InvalidStructure


class ServerError(Exception):
    """Root of what the server raises on purpose."""


class Overloaded(ServerError):
    """The queue has no room for this request now."""


class Stopping(ServerError):
    """The server is stopping, and takes no more work."""


def failure_of(error: Exception) -> pb.Failure:
    """The error as a stream's answer."""
    if isinstance(error, InvalidStructure):
        violation = pb.FieldViolation(field=error.field, description=error.description)
        return pb.Failure(code=_number(grpc.StatusCode.INVALID_ARGUMENT), message=str(error), violations=[violation])
    if isinstance(error, Overloaded):
        return pb.Failure(code=_number(grpc.StatusCode.RESOURCE_EXHAUSTED), message=str(error))
    if isinstance(error, Stopping):
        return pb.Failure(code=_number(grpc.StatusCode.UNAVAILABLE), message=str(error))
    return pb.Failure(
        code=_number(grpc.StatusCode.INTERNAL), message=f"{type(error).__name__} in the server; its log tells more"
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
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=fields))
        status.details.append(detail)
    return status


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
