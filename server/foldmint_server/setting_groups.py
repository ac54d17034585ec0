"""The settings by group, as the command line shows them. Sizes are in residues or bytes, times in seconds."""

import re
from typing import Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+|:all)?")
_ANONYMOUS: tuple[Literal["tokenize", "read"], ...] = ("tokenize", "read")


class ModelSettings(BaseModel):
    """Model and devices."""

    model: str | None = Field(
        None,
        description="A model's store: a folder, a URL such as s3://bucket/store, or the name of an embedded model: "
        "foldmint, which it is if not given, or geometry.",
    )
    device: str = Field(
        "auto",
        description="cpu, cuda, cuda:1, …, several by commas; cuda:all: every GPU; auto takes a GPU if there is one.",
    )
    threads: int = Field(0, ge=0, description="Threads that compute on the CPU; 0: as torch sees fit.")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="Of the encoder's products: float32; tf32, of CUDA devices; bf16. The latter change a few tokens.",
    )
    compile: bool = Field(
        False, description="Whether torch.compile fuses the encoder, at its start; on a CPU, only bf16."
    )
    parse_threads: int = Field(2, ge=1, description="Threads that read requests.")
    parse_processes: int = Field(
        1,
        ge=0,
        description="Child processes that read files of more than 1 MiB, so that they do not delay other requests; 0: "
        "threads read them, too.",
    )

    @field_validator("device")
    @classmethod
    def _devices(cls, value: str) -> str:
        for name in value.split(","):
            if not _DEVICE.fullmatch(name.strip()):
                raise ValueError(f"{name.strip()!r} is not a device; devices are auto, cpu, cuda, cuda:1, …, cuda:all")
        return value


class ListenSettings(BaseModel):
    """Listeners."""

    listen: str = Field("127.0.0.1:50051", description="HOST:PORT of the gRPC service; port 0 takes a free one.")
    metrics_listen: str = Field(
        "127.0.0.1:9464", description="HOST:PORT of /metrics and of the server's own page, /; port 0 takes a free one."
    )
    docs_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+(/\S*)?)?$",
        description="http(s)://… of this documentation as a site (`make docs`), for links of the page; empty: the page "
        "names the files.",
    )
    metrics_hosts: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._,-]*$",
        description="Names, by commas, that /metrics and the page may be asked for by, besides localhost and "
        "addresses; empty: if --metrics-listen is on loopback no others, else all.",
    )
    admin_listen: str = Field(
        "127.0.0.1:50052", description="HOST:PORT of the operators' gRPC service; port 0 takes a free one."
    )
    reflection: bool = Field(True, description="Whether the gRPC services describe themselves.")
    drain_seconds: float = Field(30, ge=0, description="How long requests in flight may take when the server stops.")

    @field_validator("listen", "metrics_listen", "admin_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{value!r} is not a HOST:PORT")
        return value


class SchedulingSettings(BaseModel):
    """Scheduling."""

    max_batch_residues: int = Field(
        0, ge=0, description="Residues of one batch; 0: chosen for the model and the device."
    )
    slice_residues: int = Field(
        0, ge=0, description="Residues of one long request's turn, while others wait; 0: an eighth of a batch."
    )
    max_delay: float = Field(
        0.002,
        ge=0,
        le=1,
        description="How long a batch may wait for what is about to fill it; an idle server never waits.",
    )
    tenant_key: str = Field(
        "",
        pattern=r"^[a-z0-9_.-]{0,64}$",
        description="Metadata key that names the caller, for fair queuing among callers; empty: all count as one.",
    )
    max_queued_residues: int = Field(500_000, ge=1, description="Residues admitted and not yet computed.")
    max_queued_detokenize_residues: int = Field(
        65_536, ge=1, description="Residues admitted to be decoded and not yet decoded."
    )
    stuck_seconds: float = Field(
        60, gt=0, description="A batch, or 1000 residues' decoding, that takes longer makes health fail."
    )


class LimitSettings(BaseModel):
    """Limits."""

    max_residues: int = Field(100_000, ge=1, description="Residues of one structure.")
    max_chains: int = Field(1_000, ge=1, description="Chains of one structure.")
    max_detokenize_residues: int = Field(
        4096, ge=1, description="Residues of one structure to decode; time and memory grow with their square."
    )
    max_message_bytes: int = Field(64 * 2**20, ge=1024, description="Size of a request message.")
    max_unpacked_bytes: int = Field(
        128 * 2**20,
        ge=1024,
        description="Size of a file once unpacked; reading it takes up to 32 times as much memory, in each of the "
        "threads and processes that read.",
    )
    max_parse_seconds: float = Field(120, gt=0, description="How long a process may read a file.")
    max_metadata_bytes: int = Field(16_384, ge=1024, description="Size of a call's metadata.")
    max_concurrent_calls: int = Field(
        1024,
        ge=1,
        description="Calls under way at once, without those for health; more get RESOURCE_EXHAUSTED with the time to "
        "wait. Operators' calls are counted apart.",
    )
    max_calls_per_caller: int = Field(
        512, ge=1, description="Of them, those of one caller, by its token, else its address."
    )
    max_watches: int = Field(1024, ge=1, description="Health watches (`Health/Watch`) at once; calls of their own.")
    max_watches_per_peer: int = Field(128, ge=1, description="Of them, those of one address.")
    max_connections: int = Field(
        4096, ge=1, description="Connections to a gRPC listener; further ones are closed at once."
    )
    max_connections_per_peer: int = Field(
        1024, ge=1, description="Of them, those of one address; the newest above it are closed within a second."
    )
    max_calls_per_connection: int = Field(
        1_000, ge=1, description="Calls under way at once on one connection; the caller's further ones wait there."
    )
    max_stream_in_flight: int = Field(64, ge=1, description="Structures of one stream that are worked on at a time.")
    max_stream_structures: int = Field(
        1_000_000,
        ge=1,
        description="Structures of one stream; then it ends, and another may be opened.",
    )
    max_streams_per_caller: int = Field(
        256, ge=1, description="Streams that a caller, by its token, else its address, may have open at a time."
    )
    stream_idle_seconds: float = Field(
        600, gt=0, description="How long a stream may send nothing while none of its structures is in flight."
    )
    send_timeout_seconds: float = Field(300, gt=0, description="How long the caller of a stream may take no answer.")
    keepalive_seconds: float = Field(
        60,
        ge=0,
        description="How long a connection may be silent before a keepalive ping; 0: no pings.",
    )
    min_ping_seconds: float = Field(
        10, ge=0, description="Connections that ping more often than this while idle are closed."
    )
    max_connection_idle_seconds: float = Field(
        3600, ge=0, description="How long a connection may have no calls before it is closed; 0: no limit."
    )
    max_connection_age_seconds: float = Field(
        0,
        ge=0,
        description="Age at which a connection takes no new calls, and has --drain-seconds to end its own; "
        "0: no limit. Clients reconnect.",
    )


class CodebookSettings(BaseModel):
    """Codebook versions."""

    keep_versions: int = Field(
        5, ge=3, description="Versions of the codebook kept in memory, for requests that ask for one."
    )
    poll_seconds: float = Field(
        5, ge=0, description="How often the store is asked which version is in use; 0: at the start alone."
    )
    server_name: str = Field(
        "",
        max_length=253,
        description="Name of this server, by which it belongs to the share of a canary or not; empty: the host's name, "
        "which is the pod's in Kubernetes.",
    )
    reservoir: int = Field(
        0, ge=0, le=1_000_000, description="Residues whose vectors are sampled for repairs; 0: none are kept."
    )


class AuthSettings(BaseModel):
    """Authorization."""

    tokens_file: str = Field(
        "",
        description="TOML file of hashed bearer tokens, which `foldmint-server tokens` writes; empty: none, "
        "and anyone may tokenize and read.",
    )
    token_use_file: str = Field(
        "",
        description="File where the server notes each minute when tokens were last used, for `foldmint-server tokens "
        "list`; servers may share it; empty: TOKENS_FILE.last-use.json.",
    )
    anonymous: str = Field(
        "",
        pattern=r"^((tokenize|read)(,(tokenize|read))*)?$",
        description="Scopes of callers without a token, if there are tokens: tokenize, read, or tokenize,read.",
    )
    insecure_admin: bool = Field(
        False, description="Whether anyone who reaches the admin listener may call admin methods, without a token."
    )
    metrics_auth: str = Field(
        "",
        description="File of NAME:SHA256 of passwords for /metrics and the page, which `foldmint-server password` "
        "writes; empty: anyone may read them.",
    )
    reload_seconds: float = Field(
        10, gt=0, description="How often the files of tokens, passwords and TLS are reloaded."
    )

    @model_validator(mode="after")
    def _anonymous_needs_tokens(self) -> Self:
        if self.anonymous and not self.tokens_file:
            raise ValueError("anonymous goes with tokens_file; without tokens all may tokenize and read")
        if self.token_use_file and not self.tokens_file:
            raise ValueError("token_use_file goes with tokens_file")
        return self

    @property
    def anonymous_scopes(self) -> frozenset[Literal["tokenize", "read"]]:
        """What callers without a token may, where there are tokens."""
        named = self.anonymous.split(",")
        return frozenset(scope for scope in _ANONYMOUS if scope in named)


class TlsSettings(BaseModel):
    """TLS."""

    tls_server_certificate: str = Field(
        "", description="PEM file of the gRPC listeners' certificate and its chain; empty: no TLS."
    )
    tls_server_key: str = Field("", description="PEM file of the certificate's key, without a password.")
    tls_client_ca: str = Field(
        "", description="PEM file of the authority that signs the certificates of callers (mutual TLS)."
    )
    admin_tls_client_ca: str = Field(
        "", description="The same for the admin listener; empty: the value of --tls-client-ca."
    )
    metrics_tls: bool = Field(
        False, description="Whether /metrics and the page are served by TLS, with that certificate."
    )
    metrics_tls_client_ca: str = Field(
        "",
        description="PEM file of the authority that clients of /metrics and the page need a certificate of; "
        "--tls-client-ca does not cover them.",
    )

    @model_validator(mode="after")
    def _tls_fits_together(self) -> Self:
        if bool(self.tls_server_certificate) != bool(self.tls_server_key):
            raise ValueError("tls_server_certificate and tls_server_key go together")
        for name in ("tls_client_ca", "admin_tls_client_ca", "metrics_tls"):
            if getattr(self, name) and not self.tls_server_certificate:
                raise ValueError(f"{name} needs tls_server_certificate and tls_server_key")
        if self.metrics_tls_client_ca and not self.metrics_tls:
            raise ValueError("metrics_tls_client_ca needs metrics_tls")
        return self


class ObservabilitySettings(BaseModel):
    """Metrics, traces and logs."""

    usage_window: float = Field(3600, gt=0, description="Length of the window of utilization and perplexity.")
    code_metrics: Literal["full", "summary", "off"] = Field(
        "full",
        description="Metrics of the codes: full; summary, without a series for each code; off.",
    )
    max_caller_names: int = Field(
        100,
        ge=0,
        le=1000,
        description="Tokens, the first ones of the file, whose callers have metrics of their own; the rest counts as "
        "other.",
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="http://HOST:PORT of an OpenTelemetry collector (OTLP over gRPC) for traces; empty: the value of "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else no traces. Needs the extra otel.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log messages."
    )
    log_format: Literal["json", "console"] = Field("json", description="Format of the log.")


GROUPS: tuple[type[BaseModel], ...] = (
    ModelSettings,
    ListenSettings,
    SchedulingSettings,
    LimitSettings,
    CodebookSettings,
    AuthSettings,
    TlsSettings,
    ObservabilitySettings,
)
