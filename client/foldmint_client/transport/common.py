"""What both clients share: limits, keys of structures, and health."""

from collections.abc import Awaitable, Callable
from typing import Any

from grpc_health.v1 import health_pb2

from foldmint_client.connection import Connection
from foldmint_client.errors import InvalidOptions, InvalidStructure, UnreadableInput
from foldmint_client.models.responses import Health, RequestLimits
from foldmint_client.models.tokenize_request import Backbone, Structure

# Above this, a request's size is compared with the server's limit before it is sent: a message over it would end the
# whole stream, not fail for itself. gRPC servers take 4 MiB by default; few are set below 1.
ASK_LIMIT_ABOVE = 2**20

# Errors of one structure, not of the connection: a stream goes on after them.
LOCAL_ERRORS = (InvalidStructure, InvalidOptions, UnreadableInput)

# Seconds that the server has to end a stream that is finished; then it is cancelled.
FAREWELL_SECONDS = 1.0
ENDED_EARLY = "the server ended the stream before it had answered everything"

Sleep = Callable[[float], None]
AsyncSleep = Callable[[float], Awaitable[None]]


def message_limit(connection: Connection, limits: RequestLimits) -> int:
    """Largest request in bytes that both client and server accept."""
    return min(connection.max_message_bytes, limits.message_bytes or connection.max_message_bytes)


def keyed(position: int, item: Any) -> tuple[Any, Structure]:  # noqa: ANN401 (a key may be anything)
    """A structure of the input with its key: the one given with it, or its position."""
    if isinstance(item, tuple) and len(item) == 2 and not isinstance(item[0], Backbone):
        return item[0], item[1]
    return position, item


def to_health(response: health_pb2.HealthCheckResponse) -> Health:
    """The server's health; a status that this client does not know is UNKNOWN."""
    names = health_pb2.HealthCheckResponse.ServingStatus
    known = response.status in names.values()
    return Health(names.Name(response.status)) if known else Health.UNKNOWN
