"""The server's metrics, for Prometheus; names and labels are part of what users rely on: docs/metrics.md."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from foldmint_server.metrics.callers import CallerUsage
from foldmint_tokenizer import LeftOut, LeftOutKind
from foldmint_tokenizer.store.control import Control

# Seconds, from a short protein on a GPU to a large complex, or a full queue, on a laptop.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# Residues: of chains, from peptides to the longest known, and of batches, from a chain to what a GPU takes at once.
_CHAIN_RESIDUES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384)
_BATCH_RESIDUES = (64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

METHODS = ("Tokenize", "TokenizeStream", "Detokenize", "GetModel")
"""Of the label `method`."""
STAGES = ("parse", "queue", "compute", "assign", "decode")
"""Of the label `stage`."""
REJECTS = (
    "queue_full",
    "deadline",
    "rate",
    "stopping",
    "too_many_calls",
    "too_many_calls_of_caller",
    "too_many_admin_calls",
    "too_many_admin_calls_of_caller",
    "too_many_watches",
    "too_many_watches_of_caller",
    "too_many_probes_of_caller",
    "too_many_connections",
)
"""Of the label `reason`."""
REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")
"""Values of the label `status` of rejected calls."""
WEB_REFUSED = ("no_password", "wrong_password", "host", "connections")
"""Values of the label `reason` of rejected requests for /metrics and the page."""
BATCH_FAILURES = ("out_of_memory", "not_finite", "error", "device_lost")
"""Of the label `reason` of steps that fail."""
PARSERS_KILLED = ("limit", "crash")
"""Values of the label `reason` of processes that read files."""
ENDED = ("idle", "not_read", "too_many_structures", "too_many_streams")
"""Of the label `reason` of calls that the server ends."""
LEFT_OUT = tuple(
    kind for kind in LeftOutKind if LeftOut(kind, "", 1, ()).of_protein and kind is not LeftOutKind.OTHER_MODEL
)
"""Of the label `kind`: residues of proteins; of other models, the models are counted, not their residues."""
OUTCOMES = ("activated", "rolled_back", "refused")
"""Of the label `outcome`."""


@dataclass(frozen=True)
class Metrics:
    """All instruments; `create_metrics` registers them."""

    server_info: Gauge
    ready: Gauge
    requests: Counter
    request_seconds: Histogram
    stage_seconds: Histogram
    residues: Counter
    left_out_residues: Counter
    detokenized_residues: Counter
    batches: Counter
    batch_fill: Histogram
    batch_seconds: Histogram
    batch_residues: Histogram
    chain_residues: Histogram
    received_bytes: Counter
    sent_bytes: Counter
    callers: CallerUsage
    queued_residues: Gauge
    queued_residues_limit: Gauge
    queued_detokenize_residues: Gauge
    queued_detokenize_residues_limit: Gauge
    requests_in_flight: Gauge
    connections: Gauge
    open_calls: Gauge
    batch_failures: Counter
    parsers_killed: Counter
    calls_ended: Counter
    store_reachable: Gauge
    rejects: Counter
    refused_calls: Counter
    refused_web_requests: Counter
    certificate_expiry: Gauge
    token_expiry: Gauge
    token_last_use: Gauge
    codebook_info: Gauge
    codebook_activated: Gauge
    codebook_swaps: Counter
    codebook_follows_store: Gauge
    store_active: Gauge
    store_canary_share: Gauge

    def describe(self, *, device: str, precision: str, queued_residues: int, queued_detokenize_residues: int) -> None:
        """Set the metrics that describe the server: its devices, and the budgets of its two queues."""
        self.store_reachable.set(1)
        self.server_info.labels(version("foldmint"), device, precision).set(1)
        self.queued_residues_limit.set(queued_residues)
        self.queued_detokenize_residues_limit.set(queued_detokenize_residues)

    def record_store(self, control: Control, before: Control | None) -> None:
        """Set the metrics to what the store says now, in place of what it said before."""
        self.store_active.labels(control.active).set(1)
        if control.canary is not None:
            self.store_canary_share.labels(control.canary.version).set(control.canary.share)
        if before is None:
            return
        if before.active != control.active:
            self.store_active.remove(before.active)
        if before.canary is not None and before.canary.version not in (control.canary or ()):
            self.store_canary_share.remove(before.canary.version)


def create_metrics(registry: CollectorRegistry, caller_names: int = 100) -> Metrics:
    """Register all instruments with a registry; those of the codes are a collector of their own, `CodeUsage`.

    caller_names: names of tokens that have series of their own.

    Series of labels whose values are known stand at 0 from the start: an increase from nothing is none to Prometheus.
    """

    def counter(name: str, text: str, labels: Iterable[str] = (), values: Iterable[str] = ()) -> Counter:
        made = Counter(name, text, list(labels), registry=registry)
        for value in values:
            made.labels(value)
        return made

    def gauge(name: str, text: str, labels: Iterable[str] = (), values: Iterable[str] = ()) -> Gauge:
        made = Gauge(name, text, list(labels), registry=registry)
        for value in values:
            made.labels(value)
        return made

    def histogram(
        name: str, text: str, buckets: Iterable[float], labels: Iterable[str] = (), values: Iterable[str] = ()
    ) -> Histogram:
        made = Histogram(name, text, list(labels), buckets=tuple(buckets), registry=registry)
        for value in values:
            made.labels(value)
        return made

    requests = counter(
        "foldmint_requests",
        "Requested structures, by method (Tokenize, TokenizeStream, Detokenize, GetModel) and gRPC status.",
        ["method", "status"],
    )
    for method in METHODS:
        # Series that alerts use exist from the start; those of client errors begin with the first one.
        for status in ("OK",) if method == "GetModel" else ("OK", "RESOURCE_EXHAUSTED", "INTERNAL"):
            requests.labels(method, status)
    return Metrics(
        server_info=gauge(
            "foldmint_server_info",
            "Always 1; the labels are the release, the device and the precision of the encoder's products.",
            ["version", "device", "precision"],
        ),
        ready=gauge("foldmint_ready", "1 while the server's health is SERVING, 0 while it is not."),
        requests=requests,
        request_seconds=histogram(
            "foldmint_request_duration_seconds",
            "Time from the arrival of a structure to its answer.",
            _SECONDS,
            ["method"],
            METHODS,
        ),
        stage_seconds=histogram(
            "foldmint_stage_duration_seconds",
            "Time of a structure in each stage: parse, queue (admitted, nothing computed), compute, assign or decode.",
            _SECONDS,
            ["stage"],
            STAGES,
        ),
        residues=counter(
            "foldmint_residues",
            "Residues answered; those without a frame (frame=no) get a token, but count as no code's hit.",
            ["frame"],
            ("yes", "no"),
        ),
        left_out_residues=counter(
            "foldmint_left_out_residues",
            f"Protein residues of files that are left out of answers, by kind ({', '.join(LEFT_OUT)}).",
            ["kind"],
            LEFT_OUT,
        ),
        detokenized_residues=counter(
            "foldmint_detokenized_residues", "Residues decoded from tokens; they count as no code's hit."
        ),
        batches=counter("foldmint_batches", "Batches computed on the device."),
        batch_fill=histogram(
            "foldmint_batch_fill_ratio",
            "Residues of a batch, as a share of the most that the device takes.",
            _RATIOS,
        ),
        batch_seconds=histogram(
            "foldmint_batch_duration_seconds",
            "Time that a device computed a batch. Several workers of one device count together.",
            _SECONDS,
            ["device"],
        ),
        batch_residues=histogram(
            "foldmint_batch_residues", "Residues of a batch, by device.", _BATCH_RESIDUES, ["device"]
        ),
        chain_residues=histogram("foldmint_chain_residues", "Residues of a chain that was tokenized.", _CHAIN_RESIDUES),
        received_bytes=counter(
            "foldmint_received_bytes",
            "Serialized size of the messages that were read, by method; without those of rejected calls.",
            ["method"],
            METHODS,
        ),
        sent_bytes=counter(
            "foldmint_sent_bytes", "Serialized size of the messages that were sent, by method.", ["method"], METHODS
        ),
        callers=CallerUsage(registry, caller_names),
        queued_residues=gauge("foldmint_queued_residues", "Residues admitted and not yet computed."),
        queued_residues_limit=gauge(
            "foldmint_queued_residues_limit", "The most residues that are admitted and not yet computed."
        ),
        queued_detokenize_residues=gauge(
            "foldmint_queued_detokenize_residues", "Residues admitted to be decoded, and not yet decoded."
        ),
        queued_detokenize_residues_limit=gauge(
            "foldmint_queued_detokenize_residues_limit",
            "The most residues that are admitted to be decoded and not yet decoded.",
        ),
        requests_in_flight=gauge("foldmint_requests_in_flight", "Structures arrived and not yet answered."),
        open_calls=gauge(
            "foldmint_open_calls",
            "Calls that were admitted and have not ended, by kind (calls, admin_calls, watches, probes).",
            ["kind"],
        ),
        connections=gauge(
            "foldmint_connections",
            "Open connections to a gRPC listener (public, admin), seen each second.",
            ["listener"],
            ["public", "admin"],
        ),
        batch_failures=counter(
            "foldmint_step_failures",
            "Batches that failed on the device and were split or halved, by reason (out_of_memory; not_finite: vectors "
            "that are not finite; error); device_lost: devices that no longer compute.",
            ["reason"],
            BATCH_FAILURES,
        ),
        parsers_killed=counter(
            "foldmint_parsers_killed",
            "Processes that were ended by the file that they read, by reason (limit: of time or memory; crash).",
            ["reason"],
            PARSERS_KILLED,
        ),
        calls_ended=counter(
            "foldmint_calls_ended",
            "Streams that the server ended or refused, by reason (idle: nothing was sent; not_read: answers were not "
            "taken; too_many_structures, too_many_streams).",
            ["reason"],
            ENDED,
        ),
        store_reachable=gauge(
            "foldmint_store_reachable", "0 while the store that is followed cannot be reached, else 1."
        ),
        rejects=counter(
            "foldmint_rejects",
            "Rejected structures, by reason (queue_full; deadline: would be late; rate: of their caller's "
            "token; stopping); calls "
            "(too_many_calls, too_many_admin_calls, too_many_watches; …_of_caller: of one caller); connections "
            "(too_many_connections of one peer).",
            ["reason"],
            REJECTS,
        ),
        refused_calls=counter(
            "foldmint_refused_calls",
            "Calls that were rejected for lack of permission, by gRPC status: UNAUTHENTICATED, PERMISSION_DENIED; "
            "or for a method that there is not: UNIMPLEMENTED.",
            ["status"],
            REFUSED,
        ),
        refused_web_requests=counter(
            "foldmint_refused_web_requests",
            "Requests for /metrics and the page that were not answered, by reason (no_password, as a browser's first; "
            "wrong_password; host: a name that is none of the server's; connections: too many of them).",
            ["reason"],
            WEB_REFUSED,
        ),
        certificate_expiry=gauge(
            "foldmint_certificate_expiry_timestamp_seconds",
            "When a certificate ends, in seconds since 1970: the first of the server's own, the last of an authority's "
            "(client_ca, admin_client_ca, metrics_client_ca); of those in use.",
            ["certificate"],
        ),
        token_expiry=gauge(
            "foldmint_token_expiry_timestamp_seconds",
            "When a token expires, in seconds since 1970, by its name; of those that expire, at most "
            "--max-caller-names.",
            ["token"],
        ),
        token_last_use=gauge(
            "foldmint_token_last_use_timestamp_seconds",
            "When a token was last used on this server, in seconds since 1970, by its name; at most "
            "--max-caller-names of them.",
            ["token"],
        ),
        codebook_info=gauge(
            "foldmint_codebook_info",
            "Always 1; the labels are the model, and the version and digest of the active codebook.",
            ["model", "version", "digest"],
        ),
        codebook_activated=gauge(
            "foldmint_codebook_activated_timestamp_seconds",
            "When the active codebook was activated, in seconds since 1970.",
        ),
        codebook_swaps=counter(
            "foldmint_codebook_swaps",
            "Attempts to exchange the codebook, by outcome (activated, rolled_back, refused).",
            ["outcome"],
            OUTCOMES,
        ),
        codebook_follows_store=gauge(
            "foldmint_codebook_follows_store",
            "1 while the server serves by default what its store said when it was read last, else 0.",
        ),
        store_active=gauge(
            "foldmint_store_active_info",
            "Always 1; its label is the version that ACTIVE of the store named when it was read last.",
            ["version"],
        ),
        store_canary_share=gauge(
            "foldmint_store_canary_share",
            "Share of the servers that serve the canary of the store, by its version; nothing without a canary.",
            ["version"],
        ),
    )
