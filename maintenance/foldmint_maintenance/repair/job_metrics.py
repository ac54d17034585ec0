"""Metrics of the repair job for Prometheus: to a file for node_exporter's textfile collector, or to a Pushgateway.

What a run that failed did not measure keeps its earlier value, the time of the last success above all.
"""

import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from prometheus_client import CollectorRegistry, generate_latest, push_to_gateway, pushadd_to_gateway
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from foldmint_maintenance.errors import MetricsExportError
from foldmint_tokenizer.store.storage import Files

OUTCOMES = {0: "success", 1: "error", 3: "gate_failed", 4: "locked", 5: "not_activated", 130: "stopped"}
"""What the command's exit codes mean; others count as errors."""

JOB = "foldmint_repair"
"""Prometheus' label `job` of what is pushed."""

_ERROR = 1


def outcome_of(code: int) -> str:
    """What an exit code of the command means: one of OUTCOMES."""
    return OUTCOMES.get(code, OUTCOMES[_ERROR])


_SECONDS = 30.0  # that a Pushgateway may take to answer


@dataclass(frozen=True)
class GateValues:
    """A gate as JobMetrics takes it: a figure before and after, its limit, and whether it passed."""

    before: float
    after: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class JobMetrics:
    """The figures of one run of the repair job. store: which; finished: seconds since 1970; duration: seconds.

    outcome: one of OUTCOMES. dead, replaced: codes; churn: share of tokens that changed; gates: by name; version: of
    the codebook that is active after the run. What the run did not come to is None, or empty.
    """

    store: str
    outcome: str
    finished: float
    duration: float
    dead: int | None = None
    replaced: int | None = None
    churn: float | None = None
    gates: Mapping[str, GateValues] = field(default_factory=dict)
    version: str | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES.values():
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES.values())}, not {self.outcome!r}")

    @classmethod
    def of_result(
        cls, store: str, outcome: str, finished: float, duration: float, result: Mapping[str, Any] | None
    ) -> Self:
        """result: what `repair --json` writes; None if the run ended without one."""
        if result is None:
            return cls(store, outcome, finished, duration)
        gates = {
            name: GateValues(gate["before"], gate["after"], gate["limit"], gate["passed"])
            for name, gate in result["gates"].items()
        }
        replaced, churn, version = len(result["replaced"]), result["churn"], result["version"]
        return cls(store, outcome, finished, duration, result["dead"], replaced, churn, gates, version)

    def families(self) -> list[Metric]:
        """The metrics that the run has values for."""
        outcomes = {(outcome,): float(outcome == self.outcome) for outcome in OUTCOMES.values()}
        own: list[Metric] = [
            self._gauge("last_run_timestamp_seconds", "When the repair job last ended.", {(): self.finished}),
            self._gauge("last_run_duration_seconds", "How long its last run took.", {(): self.duration}),
            self._gauge("last_run_outcome", "1 for what became of its last run.", outcomes, "outcome"),
        ]
        if self.outcome == OUTCOMES[0]:
            help_text = "When the repair job last ended well, also with nothing to repair."
            own.append(self._gauge("last_success_timestamp_seconds", help_text, {(): self.finished}))
        if self.dead is not None:
            own.append(self._gauge("dead_codes", "Codes that the run found dead.", {(): self.dead}))
        if self.replaced is not None:
            own.append(self._gauge("replaced_codes", "Codes that the run replaced.", {(): self.replaced}))
        if self.churn is not None:
            help_text = "Share of tokens of the gates' chains that the repair changes."
            own.append(self._gauge("churn_ratio", help_text, {(): self.churn}))
        if self.version is not None:
            help_text = "1 for the codebook that was active after the run."
            own.append(self._gauge("codebook_info", help_text, {(self.version,): 1}, "version"))
        for name, help_text in _GATE_METRICS.items():
            values = {(gate,): float(getattr(one, name)) for gate, one in self.gates.items()}
            if values:
                own.append(self._gauge(f"gate_{name}", help_text, values, "gate"))
        return own

    def write(self, path: Path) -> None:
        """Write them to a file whose name ends with .prom, in one go; after a failure, with what stood there before.

        Raises MetricsExportError if the file holds something else or cannot be written.
        """
        families = self.families()
        if self.outcome != OUTCOMES[0]:
            present = {family.name for family in families}
            families += [family for family in earlier(path, self.store) if family.name not in present]
        try:
            Files(path.parent).write(path.name, generate_latest(_registry(families)))
        except OSError as error:
            reason = error.strerror or error
            raise MetricsExportError(f"the job's metrics were not written to {path}: {reason}") from error

    def push(self, url: str) -> None:
        """Push them to a Pushgateway, grouped by job and store; after a failure, beside what stood there before.

        url: http://HOST:PORT. Raises MetricsExportError if it cannot be reached or refuses them.
        """
        send = push_to_gateway if self.outcome == OUTCOMES[0] else pushadd_to_gateway
        try:
            send(url, JOB, _registry(self.families()), grouping_key={"store": self.store}, timeout=_SECONDS)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MetricsExportError(f"the job's metrics were not pushed to {url}: {error}") from error

    def _gauge(self, name: str, help_text: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
        """values: of each combination of the labels' values, a tuple."""
        family = GaugeMetricFamily(f"foldmint_repair_{name}", help_text, labels=("store", *labels))
        for key, value in values.items():
            family.add_metric((self.store, *key), value)
        return family


_GATE_METRICS = {
    "before": "A gate's figure before the repair.",
    "after": "A gate's figure after the repair.",
    "limit": "What a gate's figure must not pass.",
    "passed": "1 if the gate's figure did not pass its limit.",
}


@dataclass
class Record:
    """result: what `repair --json` writes, once the run has one."""

    result: Mapping[str, Any] | None = None


@contextmanager
def recorded(
    store: str,
    path: Path | None,
    url: str | None,
    log: Callable[[str], None],
    clock: Callable[[], float] = time.time,
) -> Iterator[Record]:
    """Write and push the metrics of what runs inside, whatever becomes of it.

    path, url: where to; nothing happens for those that are None. An exception with an `exit_code`, as typer's have,
    counts as OUTCOMES says, others as errors. Metrics that cannot be written or pushed do not change what the run did:
    the reason goes to `log`. Raises MetricsExportError before anything runs if there is something else than metrics at
    path.
    """
    if path is not None:
        earlier(path, store)
    started, record, code = clock(), Record(), 0
    try:
        yield record
    except BaseException as error:
        found = getattr(error, "exit_code", _ERROR)
        code = found if isinstance(found, int) else _ERROR
        raise
    finally:
        ended = clock()
        metrics = JobMetrics.of_result(store, outcome_of(code), ended, ended - started, record.result)
        sends = [] if path is None else [partial(metrics.write, path)]
        sends += [] if url is None else [partial(metrics.push, url)]
        for send in sends:
            try:
                send()
            except MetricsExportError as failed:
                log(str(failed))


def earlier(path: Path, store: str) -> list[Metric]:
    """The metrics of a store that a file holds; none if there is no file.

    Raises MetricsExportError if its name does not end with .prom, it cannot be read, or holds something else.
    """
    if path.suffix != ".prom":
        raise MetricsExportError(f"{path}: node_exporter reads files whose names end with .prom")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise MetricsExportError(f"{path} cannot be read: {error}") from error
    try:
        found = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise MetricsExportError(f"{path} holds something else than metrics: {error}") from error
    if any(not family.name.startswith("foldmint_repair_") for family in found):
        raise MetricsExportError(f"{path} holds metrics that are not this job's")
    for family in found:
        family.samples = [sample for sample in family.samples if sample.labels.get("store") == store]
    return [family for family in found if family.samples]


class _Fixed(Collector):
    """Yields metrics as they are, as a collector of prometheus_client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _registry(families: Iterable[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return registry
