"""Options of a connection: security, retries and limits, and the channel arguments that they become."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

from foldmint.version import installed_version
from foldmint_client.addresses import Address, host_name, is_loopback, split
from foldmint_client.errors import InvalidOptions, UnreadableInput

if TYPE_CHECKING:
    import grpc

SERVICE = "foldmint.v1.TokenizerService"
ADMIN_SERVICE = "foldmint.v1.CodebookService"
# Queries only. After a retry of a call that swaps the codebook, the answer would not show what the first call did.
_RETRIED_BY_GRPC = (
    *((SERVICE, name) for name in ("Tokenize", "Detokenize", "GetModel")),
    *((ADMIN_SERVICE, name) for name in ("ListCodebooks", "GetCodebook", "GetUsage", "SampleEmbeddings")),
)
_GRPC_MAX_ATTEMPTS = 5
_URL_SCHEMES = ("http", "https", "grpc", "grpcs")
_CONNECT_MS = 10_000

File = str | os.PathLike[str]
Balance = Literal["round_robin", "pick_first"]
"""How work is given to several servers: to all of them, or to one until it fails."""


@dataclass(frozen=True)
class Tls:
    """TLS to the server: paths of PEM files.

    ca: certificates to trust, instead of the usual public ones. certificate, key: the caller's own, for mutual TLS;
    both or neither.
    """

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidOptions("Tls.certificate and Tls.key go together: one of them is missing", "tls_certificate")

    def credentials(self) -> "grpc.ChannelCredentials":
        """The files, read. Raises UnreadableInput."""
        import grpc

        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.ca),
            private_key=_content(self.key),
            certificate_chain=_content(self.certificate),
        )


@dataclass(frozen=True)
class Retry:
    """Number of attempts, and the pauses between them.

    attempts: attempts in all while the server is UNAVAILABLE; 1 means no retry, and 5 is gRPC's limit.
    refused_attempts: attempts in all at what the server rejects for now: a structure of a stream (RESOURCE_EXHAUSTED or
    UNAVAILABLE for it alone), a call or a stream for which it says when to retry, and one that it drops
    without a word (flooded). Attempt n + 1 follows after initial_backoff * multiplier**(n - 1) seconds, at most
    maximum_backoff, with 20% of random jitter either way, and no sooner than the server says.
    """

    attempts: int = 5
    refused_attempts: int = 10
    initial_backoff: float = 0.1
    maximum_backoff: float = 5.0
    multiplier: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= _GRPC_MAX_ATTEMPTS:
            raise InvalidOptions(f"Retry.attempts is 1 to {_GRPC_MAX_ATTEMPTS}, not {self.attempts}", "attempts")
        if self.refused_attempts < 1:
            raise InvalidOptions(f"Retry.refused_attempts is 1 or more, not {self.refused_attempts}")
        if not 0 < self.initial_backoff <= self.maximum_backoff < math.inf:
            raise InvalidOptions("Retry.initial_backoff is positive, and no more than Retry.maximum_backoff")
        if not 1 <= self.multiplier < math.inf:
            raise InvalidOptions(f"Retry.multiplier is 1 or more, not {self.multiplier}")

    def backoff(self, failures: int, chance: float) -> float:
        """Seconds to wait after this many failures, 1 or more. chance: a random number from 0 to 1."""
        growth = self.multiplier ** min(failures - 1, 64)
        return min(self.initial_backoff * growth, self.maximum_backoff) * (0.8 + 0.4 * chance)


DEFAULT_RETRY = Retry()


class ConnectionOptions(TypedDict, total=False):
    """Keywords of both clients; `Connection` says what they mean."""

    timeout: float
    tls: Tls | None
    token: str | None
    retry: Retry
    max_message_bytes: int
    keepalive: float
    balance: Balance
    channel_options: Sequence[tuple[str, object]]


@dataclass(frozen=True)
class Connection:
    """How to reach a server, or several.

    target: HOST:PORT, any name that gRPC resolves, or a list of those: `a:50051,b:50052`. balance: with several
    servers, of a list or of a name that resolves to several addresses, `round_robin` gives work to all of them,
    `pick_first` to one until it fails. timeout: seconds that a call may take unless it says otherwise.
    tls: none means a connection in the clear. token: sent with every call as `authorization: Bearer`; over TLS, or to
    this very machine, and refused otherwise; the value of FOLDMINT_TOKEN, by default. retry: unary
    calls are retried by gRPC itself, through the channel's service config; streams as `Client.tokenize_many` says.
    max_message_bytes: of a request or an answer. keepalive: seconds between pings while a call is under way; by
    default, servers close connections with more than one in five minutes. channel_options: further gRPC channel
    arguments; they win over all others.
    """

    target: str
    timeout: float = 60.0
    tls: Tls | None = None
    token: str | None = None
    retry: Retry = DEFAULT_RETRY
    max_message_bytes: int = 256 * 2**20
    keepalive: float = 300.0
    balance: Balance = "round_robin"
    channel_options: Sequence[tuple[str, object]] = ()

    def __post_init__(self) -> None:
        for address in self.addresses:
            _check_target(address.target)
        if self.balance not in get_args(Balance):
            names = " or ".join(get_args(Balance))
            raise InvalidOptions(f"balance is {names}, not {self.balance!r}", "balance")
        self.deadline(self.timeout)
        if not 0 < self.max_message_bytes < 2**31:
            raise InvalidOptions(
                f"max_message_bytes is 1 to 2**31 - 1, not {self.max_message_bytes}", "max_message_bytes"
            )
        if not 1 <= self.keepalive < 2**31 / 1000:
            raise InvalidOptions(f"keepalive is a number of seconds, 1 or more, not {self.keepalive}", "keepalive")
        if self.token is None and os.environ.get("FOLDMINT_TOKEN"):
            object.__setattr__(self, "token", os.environ["FOLDMINT_TOKEN"].strip())
        if self.token is None:
            return
        if not self.token.isascii() or not self.token.isprintable() or not self.token or " " in self.token:
            raise InvalidOptions("the token is empty, or has characters that HTTP does not carry", "token")
        if self.tls is None and not is_loopback(self.target):
            raise InvalidOptions(
                f"a token (as given, or of FOLDMINT_TOKEN) would go to {self.target} in the clear, for all to read: "
                "use TLS, or a server on this machine",
                "token",
            )

    def __repr__(self) -> str:
        return f"Connection(target={self.target!r}, tls={self.tls!r}, token={'…' if self.token else None})"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The servers of the target, in order."""
        return split(self.target)

    def deadline(self, timeout: float | None) -> float:
        """Timeout of a call in seconds: the argument, or the connection's."""
        seconds = self.timeout if timeout is None else timeout
        if not 0 < seconds < math.inf:
            raise InvalidOptions(f"timeout is a positive number of seconds, not {seconds}", "timeout")
        return seconds

    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Metadata of every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token is not None else ()

    def channel_arguments(self, address: Address | None = None) -> list[tuple[str, object]]:
        """The gRPC channel arguments for one of the servers, the first by default; gRPC retries where there is one."""
        address = self.addresses[0] if address is None else address
        retries = self.retry.attempts > 1 and len(self.addresses) == 1
        arguments: dict[str, object] = {
            "grpc.primary_user_agent": f"foldmint-client/{installed_version()}",
            "grpc.enable_retries": int(retries),
            "grpc.service_config": json.dumps(self._service_config(retries=retries)),
            # gRPC forgets a request larger than this once it is sent, and then cannot send it again.
            "grpc.per_rpc_retry_buffer_size": min(self.max_message_bytes + 65_536, 2**31 - 1),
            "grpc.max_send_message_length": self.max_message_bytes,
            "grpc.max_receive_message_length": self.max_message_bytes,
            "grpc.keepalive_time_ms": int(self.keepalive * 1000),
            "grpc.keepalive_timeout_ms": 20_000,
            "grpc.keepalive_permit_without_calls": 0,
            # Reconnecting keeps pace with retrying; gRPC's own first pause of a second would outlast most retries.
            "grpc.initial_reconnect_backoff_ms": max(100, int(self.retry.initial_backoff * 1000)),
            # Whatever its name says, the time that setting up a connection may take, TLS and all.
            "grpc.min_reconnect_backoff_ms": _CONNECT_MS,
            "grpc.max_reconnect_backoff_ms": max(100, int(self.retry.maximum_backoff * 1000)),
        }
        if host_name(address) is not None:
            arguments["grpc.lb_policy_name"] = self.balance
        if address.host:  # that its certificate names
            arguments["grpc.default_authority"] = address.host
        if is_loopback(address.target):
            arguments["grpc.enable_http_proxy"] = 0  # a proxy would carry what is meant for this machine elsewhere
        return [*(arguments | dict(self.channel_options)).items()]

    def _service_config(self, *, retries: bool) -> dict[str, object]:
        method: dict[str, object] = {
            "name": [{"service": service, "method": name} for service, name in _RETRIED_BY_GRPC]
        }
        if retries:
            method["retryPolicy"] = {
                "maxAttempts": self.retry.attempts,
                "initialBackoff": f"{self.retry.initial_backoff:.9f}s",
                "maxBackoff": f"{self.retry.maximum_backoff:.9f}s",
                "backoffMultiplier": self.retry.multiplier,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
        return {"methodConfig": [method]}


def _check_target(target: str) -> None:
    if not target:
        raise InvalidOptions("target is empty", "target")
    scheme, separator, address = target.partition("://")
    if separator and scheme.lower() in _URL_SCHEMES:
        tls = ", with TLS" if scheme.lower().endswith("s") else ""
        instead = f"{address.rstrip('/')} instead of {target}"
        raise InvalidOptions(f"target is HOST:PORT{tls}, not a URL: {instead}", "target")


def _content(path: File | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableInput(f"{os.fspath(path)}: {error.strerror or error}") from error
