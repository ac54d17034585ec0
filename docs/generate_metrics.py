"""Writes docs/metrics.md, the reference of all metrics, from the code and the rules themselves.

.venv/bin/python docs/generate_metrics.py
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import torch
import yaml
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric

from foldmint_bulk.cli.metrics import Metrics as BulkMetrics
from foldmint_maintenance.repair.job_metrics import JobMetrics
from foldmint_server.metrics.code_usage import CodeMetrics, CodeUsage
from foldmint_server.metrics.gpu import GpuCollector, GpuMemory
from foldmint_server.metrics.registry import create_metrics

PAGE = Path(__file__).with_name("metrics.md")
RULES = Path(__file__).parents[1] / "deploy" / "prometheus" / "rules"
CODES = 4096

_HEAD = """\
# Metrics

<!-- Written by docs/generate_metrics.py from the code itself; change it there. -->

A server exposes its metrics at `/metrics` on `--metrics-listen`, in Prometheus' text format or OpenMetrics, by content
negotiation. Names, types and labels are a stable interface. Times are in seconds, sizes in bytes, ratios from 0 to 1.
Counters start at the server's start. Series whose labels are known in advance start at 0.

[`deploy/prometheus/`](../deploy/prometheus/prometheus.yml) has a configuration, the rules below, and alerts, each with
a section of the [runbook](runbook.md).
"""

_GPU = """\
Where the server computes on one. Utilization needs the extra `gpu` (`nvidia-ml-py`).
"""

_CODE_METRICS = """\
`--code-metrics` selects which metrics of codes are exposed. It does not change what is counted for the dashboard,
`foldmint usage` and the admin call `GetUsage`.

| `--code-metrics` | series of the codes | omits |
|---|---:|---|
{rows}

With many servers, `summary` saves Prometheus most of the series: it keeps utilization, perplexity and dead codes of
each server's own window, and distances. Usage over all servers, which codes are dead, and drift by code are then not
available, also not to `foldmint-maintenance usage --prometheus`. Hits count for the codebook that is active when a
structure is answered; those of a pinned other version are not counted here. The window restarts with each codebook.
"""

_MISSING = {
    "full": "nothing",
    "summary": "`foldmint_code_hits_total`",
    "off": "all but `foldmint_codebook_codes`",
}

_REPAIR = """\
`foldmint-maintenance repair` writes these metrics for node_exporter's textfile collector (`--metrics-file`) or pushes
them (`--pushgateway`): see [Scheduled repair](schedule.md).
"""

_BULK = """\
A process of [`foldmint-bulk`](bulk.md) serves these metrics on `--metrics-listen`, or writes them for
node_exporter's textfile collector (`--metrics-file`). Counters start at the process's start.
"""

_RECORDED = """\
Series that the recording rules in `deploy/prometheus/rules/` compute from the above. A name begins with the remaining
labels besides `job`: `codebook` stands for `model`, `version` and `digest`, `code` for these and the code. They
aggregate all servers of a job. `traffic.yml` has rates over five minutes, `codes.yml` the usage of codes over an hour
and over a day, separately for each codebook. For servers without per-code series, the gauges of their own windows are
used as the hour's utilization, perplexity and dead codes.
"""

RECORDED = {
    "job:foldmint_ready:count": "servers that are ready",
    "job:foldmint_residues:rate5m": "residues answered a second",
    "method:foldmint_requests:rate5m": "requests a second",
    "method:foldmint_request_errors:ratio5m": "share of requests that failed in the server",
    "job:foldmint_rejects:ratio5m": "share of structures that found the queue full",
    "method:foldmint_request_duration_seconds:p50_5m": "half of the requests took no longer",
    "method:foldmint_request_duration_seconds:p99_5m": "99 % of the requests took no longer",
    "stage:foldmint_stage_duration_seconds:mean5m": "mean time of a structure in a stage",
    "stage:foldmint_stage_duration_seconds:p99_5m": "99 % of the structures took no longer in a stage",
    "instance:foldmint_queue:ratio": "residues of a server's queue, `tokenize` or `detokenize`, as share of its limit",
    "instance:foldmint_batch_fill:mean5m": "mean fill of a server's batches",
    "codebook:foldmint_codebook_info:count": "servers that serve a codebook",
    "instance:foldmint_codebook_info:settled": "1 for a server that had one codebook for two minutes",
    "code:foldmint_code_hits:increase2m": "hits of a code in two minutes",
    "code:foldmint_code_hits:increase1h": "hits of a code in an hour",
    "code:foldmint_code_hits:increase1d": "hits of a code in a day",
    "codebook:foldmint_code_hits:increase1h": "hits of all codes in an hour",
    "codebook:foldmint_code_hits:increase1d": "hits of all codes in a day",
    "codebook:foldmint_codes:count": "codes of the codebook",
    "codebook:foldmint_code_utilization:ratio1h": "share of the codes hit in an hour",
    "codebook:foldmint_code_utilization:ratio1d": "share of the codes hit in a day",
    "codebook:foldmint_code_perplexity:over1h": "perplexity of an hour's hits",
    "codebook:foldmint_code_perplexity:over1d": "perplexity of a day's hits",
    "codebook:foldmint_dead_codes:ratio1h": "share of the codes without a hit in an hour, from ten residues a code on",
    "codebook:foldmint_dead_codes:ratio1d": "share of the codes without a hit in a day, from ten residues a code on",
    "codebook:foldmint_code_drift:psi1h": "population stability index of an hour's hits against the day's before it",
    "codebook:foldmint_code_drift:chance1h": "what that index would be by chance alone",
    "codebook:foldmint_quantization_distance_sum:increase2m": "sum of distances to codes in two minutes",
    "codebook:foldmint_quantization_distance_count:increase2m": "residues that this is the sum of",
    "codebook:foldmint_quantization_distance:mean1h": "mean distance in an hour",
    "codebook:foldmint_quantization_distance:mean1d": "mean distance in a day",
}
"""What each recorded series is."""


def page() -> str:
    """The whole page, in Markdown. Raises ValueError if other series are recorded than are told of."""
    gpus = GpuCollector([torch.device("cuda:0")], lambda _: GpuMemory(0, 0, 0, 0), lambda _: 0.0)
    process = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=process)
    sections = {
        "Requests and load": _table(_service()),
        "Codes": "\n".join([_table(_codes("full")), "", _CODE_METRICS.format(rows="\n".join(_modes()))]),
        "GPU": f"{_GPU}\n{_table(gpus.collect())}",
        "Process": _table(process.collect()),
        "Repair job": f"{_REPAIR}\n{_table(_job().families())}",
        "Bulk job": f"{_BULK}\n{_table(BulkMetrics().families())}",
        "Recorded by rules": f"{_RECORDED}\n{_recorded()}",
    }
    return "\n".join([_HEAD, *(f"## {title}\n\n{text.strip()}\n" for title, text in sections.items())])


def _service() -> Iterable[Metric]:
    registry = CollectorRegistry()
    metrics = create_metrics(registry)
    metrics.describe(device="cpu", precision="float32", queued_residues=1, queued_detokenize_residues=1)
    metrics.codebook_info.labels("model", "version", "digest")
    metrics.certificate_expiry.labels("server")
    metrics.open_calls.labels("calls")
    metrics.token_expiry.labels("alice")
    metrics.token_last_use.labels("alice")
    metrics.batch_seconds.labels("cpu")
    metrics.batch_residues.labels("cpu")
    metrics.callers.refused("alice", "RESOURCE_EXHAUSTED")
    metrics.store_active.labels("version")
    metrics.store_canary_share.labels("version")
    return registry.collect()


def _codes(shown: CodeMetrics) -> list[Metric]:
    return list(CodeUsage(CODES, 1.0, lambda: 0.0, shown).collect())


def _modes() -> Iterator[str]:
    for mode in get_args(CodeMetrics):
        series = sum(len(metric.samples) for metric in _codes(mode))
        yield f"| `{mode}` | {series:,} | {_MISSING[mode]} |"


def _job() -> JobMetrics:
    """A run that tells all that there is."""
    gates = {"churn": {"before": 0.0, "after": 0.0, "limit": 0.0, "passed": True}}
    result = {"dead": 0, "replaced": [], "gates": gates, "churn": 0.0, "version": "000001"}
    return JobMetrics.of_result("store", "success", 0.0, 0.0, result)


def _table(metrics: Iterable[Metric]) -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {metric.type} | {shown} | {metric.documentation.rstrip('.')} |")
    return "\n".join(lines)


def _recorded() -> str:
    made = [
        rule["record"]
        for name in ("traffic", "codes")
        for group in yaml.safe_load((RULES / f"{name}.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]
    if set(made) != set(RECORDED):
        raise ValueError(f"made, or told of, and not both: {', '.join(sorted(set(made) ^ set(RECORDED)))}")
    return "\n".join(["| series | meaning |", "|---|---|", *(f"| `{name}` | {RECORDED[name]} |" for name in made)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
