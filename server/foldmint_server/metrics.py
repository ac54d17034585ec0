"""The server's metrics, for Prometheus; names and labels are part of what users rely on."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from foldmint_server.usage import CodeUsage

# Seconds, from a short protein on a GPU to a large complex on a laptop.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Metrics:
    """All instruments; `create_metrics` registers them."""

    requests: Counter
    request_seconds: Histogram
    stage_seconds: Histogram
    residues: Counter
    detokenized_residues: Counter
    batches: Counter
    batch_fill: Histogram
    queued_residues: Gauge
    queued_detokenize_residues: Gauge
    requests_in_flight: Gauge
    rejects: Counter
    codebook_info: Gauge
    codebook_activated: Gauge
    codebook_swaps: Counter
    usage: CodeUsage


def create_metrics(registry: CollectorRegistry, usage: CodeUsage) -> Metrics:
    """Register all instruments, and the collector of the codes, with a registry."""
    registry.register(usage)
    swaps = Counter(
        "foldmint_codebook_swaps",
        "Codebooks exchanged, or not, by outcome (activated, rolled_back, refused).",
        ["outcome"],
        registry=registry,
    )
    for outcome in ("activated", "rolled_back", "refused"):
        swaps.labels(outcome)  # at 0 from the start: an increase from nothing is none to Prometheus
    return Metrics(
        requests=Counter(
            "foldmint_requests",
            "Structures asked for, by method (Tokenize, TokenizeStream, Detokenize, GetModel) and gRPC status.",
            ["method", "status"],
            registry=registry,
        ),
        request_seconds=Histogram(
            "foldmint_request_duration_seconds",
            "Time from the arrival of a structure to its answer.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        ),
        stage_seconds=Histogram(
            "foldmint_stage_duration_seconds",
            "Time of a structure in each stage: parse, queue (admitted, nothing computed), compute or decode.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        ),
        residues=Counter(
            "foldmint_residues",
            "Residues answered; those without a frame (frame=no) get a token, but count as no code's hit.",
            ["frame"],
            registry=registry,
        ),
        detokenized_residues=Counter(
            "foldmint_detokenized_residues",
            "Residues decoded from tokens; they count as no code's hit.",
            registry=registry,
        ),
        batches=Counter("foldmint_batches", "Steps of the device.", registry=registry),
        batch_fill=Histogram(
            "foldmint_batch_fill_ratio",
            "Residues of a step of the device, as a share of the most that it takes.",
            buckets=_RATIOS,
            registry=registry,
        ),
        queued_residues=Gauge("foldmint_queued_residues", "Residues admitted and not yet computed.", registry=registry),
        queued_detokenize_residues=Gauge(
            "foldmint_queued_detokenize_residues",
            "Residues admitted to be decoded, and not yet decoded.",
            registry=registry,
        ),
        requests_in_flight=Gauge(
            "foldmint_requests_in_flight", "Structures arrived and not yet answered.", registry=registry
        ),
        rejects=Counter(
            "foldmint_rejects",
            "Structures turned away, by reason (queue_full, stopping).",
            ["reason"],
            registry=registry,
        ),
        codebook_info=Gauge(
            "foldmint_codebook_info",
            "Always 1; its labels tell the model, and version and digest of the active codebook.",
            ["model", "version", "digest"],
            registry=registry,
        ),
        codebook_activated=Gauge(
            "foldmint_codebook_activated_timestamp_seconds",
            "When the active codebook was activated, in seconds since 1970.",
            registry=registry,
        ),
        codebook_swaps=swaps,
        usage=usage,
    )
