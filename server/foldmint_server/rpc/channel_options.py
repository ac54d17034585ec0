"""Options of the gRPC listeners: what a connection may carry, and how long it may do nothing."""

from foldmint_server.settings import Settings

_HANDSHAKE_MS = 20_000  # for TLS and the first frame of HTTP/2
_PING_ANSWER_MS = 20_000
_PING_STRIKES = 2
_LARGEST = 2**31 - 1
# For each call that may be under way, calls that have arrived and that Python has not taken yet, about 17 kB each.
_BACKLOG = 32
_LONGEST_MS = _LARGEST  # as gRPC counts; it takes it for endless


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """The options for `grpc.aio.server`."""
    backlog = min(max(_BACKLOG * settings.max_concurrent_calls, 4 * settings.max_calls_per_connection), _LARGEST)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share it silently.
        ("grpc.so_reuseport", 0),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        # Else what is between the two is refused at random.
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        # Clients keep further calls back. gRPC's "overload protection" would also count calls that are over but not yet
        # deallocated, and reset those of clients that keep to the limit (REFUSED_STREAM).
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.http.overload_protection", 0),
        # Which calls are refused is for `rpc/admission` to say. Only a flood, of calls opened and reset at once or over
        # many connections, gets as far as gRPC's own limit, which bounds the memory that it takes.
        ("grpc.server.max_pending_requests", backlog),
        ("grpc.server.max_pending_requests_hard_limit", backlog),
        # A peer that is gone without a word is found out by pings that are not answered.
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # One that pings without pause is sent away.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(settings.min_ping_seconds)),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
        ("grpc.max_connection_idle_ms", _ms(settings.max_connection_idle_seconds)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.drain_seconds)),
    ]


def _ms(seconds: float) -> int:
    """Milliseconds; 0 stands for endless."""
    return min(round(seconds * 1000), _LONGEST_MS) or _LONGEST_MS
