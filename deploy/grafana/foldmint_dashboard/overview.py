"""What one looks at first: is it ready, what does it serve, how much, how well."""

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import common

from foldmint_dashboard.panels import (
    CODEBOOK,
    JOB,
    RATE,
    SERVERS,
    PanelBuilder,
    course,
    listing,
    number,
    property_of,
    query,
    rows,
    stacked,
    thresholds,
    transformation,
)


def ready() -> stat.Panel:
    """How many of the servers take requests."""
    return (
        number(
            "Servers ready",
            query(f"sum(foldmint_ready{{{SERVERS}}})", "ready"),
            query(f"count(up{{{SERVERS}}})", "of", ref="B"),
        )
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .graph_mode(common.BigValueGraphMode.NONE)
        .thresholds(thresholds(1, colors=("red", "green")))
    )


def codebook() -> stat.Panel:
    """What is served; several in the midst of a rollout."""
    return (
        number(
            "Model and codebook",
            query(
                f"count by (model, version) (foldmint_codebook_info{{{SERVERS}}})",
                "{{model}} {{version}}",
                at_end=True,
            ),
            width=6,
        )
        .text_mode(common.BigValueTextMode.NAME)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def numbers() -> list[PanelBuilder]:
    """Throughput, errors, times, use."""
    slowest = f'max(method:foldmint_request_duration_seconds:p99_5m{{{JOB},method!="GetModel"}} > 0)'
    return [
        number("Residues a second", query(f"sum(rate(foldmint_residues_total{{{SERVERS}}}{RATE}))")),
        number("Requests a second", query(f"sum(rate(foldmint_requests_total{{{SERVERS}}}{RATE}))"), unit="reqps"),
        number(
            "Failed in the server", query(f"max(method:foldmint_request_errors:ratio5m{{{JOB}}})"), unit="percentunit"
        ).thresholds(thresholds(0.001, 0.01)),
        number("99 % take less than", query(slowest), unit="s").thresholds(thresholds(1, 10)),
        number(
            "Alerts firing",
            query('count(ALERTS{alertname=~"Foldmint.*",alertstate="firing"}) or vector(0)'),
        ).thresholds(thresholds(1, colors=("green", "red"))),
        number(
            "Codes used, 1h", query(f"codebook:foldmint_code_utilization:ratio1h{{{CODEBOOK}}}"), unit="percentunit"
        ).thresholds(thresholds(0.5, 0.8, colors=("red", "orange", "green"))),
        number("Perplexity, 1h", query(f"codebook:foldmint_code_perplexity:over1h{{{CODEBOOK}}}")),
        number(
            "Codes not used, 1h", query(f"codebook:foldmint_dead_codes:ratio1h{{{CODEBOOK}}}"), unit="percentunit"
        ).thresholds(thresholds(0.05, 0.1)),
        number("Drift, 1h", query(f"codebook:foldmint_code_drift:psi1h{{{CODEBOOK}}}")).thresholds(
            thresholds(0.1, 0.25)
        ),
        number(
            "Codebook active for",
            query(f"time() - max(foldmint_codebook_activated_timestamp_seconds{{{SERVERS}}})"),
            unit="s",
        ).graph_mode(common.BigValueGraphMode.NONE),
        number(
            "Fullest queue", query(f"max(instance:foldmint_queue:ratio{{{SERVERS}}})"), unit="percentunit"
        ).thresholds(thresholds(0.5, 0.8)),
        number("Turned away", query(f"job:foldmint_rejects:ratio5m{{{JOB}}}"), unit="percentunit").thresholds(
            thresholds(0.001, 0.01)
        ),
        number("Structures under way", query(f"sum(foldmint_requests_in_flight{{{SERVERS}}})")),
    ]


def residues() -> timeseries.Panel:
    """Residues answered and decoded."""
    return stacked(
        course(
            "Residues a second",
            "Residues without a frame get a token, and count as no code's hit.",
            (f'sum(rate(foldmint_residues_total{{{SERVERS},frame="yes"}}{RATE}))', "with a frame"),
            (f'sum(rate(foldmint_residues_total{{{SERVERS},frame="no"}}{RATE}))', "without a frame"),
            (f"sum(rate(foldmint_detokenized_residues_total{{{SERVERS}}}{RATE}))", "decoded"),
            width=12,
        )
    )


def requests() -> timeseries.Panel:
    """Structures asked for."""
    return stacked(
        course(
            "Requests a second, by method and status",
            "Each structure of a stream counts as one.",
            (
                f"sum by (method, status) (rate(foldmint_requests_total{{{SERVERS}}}{RATE})) > 0",
                "{{method}} {{status}}",
            ),
            unit="reqps",
            width=12,
        )
    )


def servers() -> table.Panel:
    """What each server serves, since when, and on what."""
    return (
        listing(
            "Servers",
            "What each serves, and since when it is active there.",
            rows(
                f"1000 * foldmint_codebook_activated_timestamp_seconds{{{SERVERS}}} * on (job, instance)"
                f" group_left (model, version, digest) foldmint_codebook_info{{{SERVERS}}}"
            ),
            rows(f"max by (instance, device, precision) (foldmint_server_info{{{SERVERS}}})", "B"),
            width=24,
            height=6,
        )
        .transformations(
            [
                transformation("merge"),
                transformation(
                    "organize",
                    excludeByName={"Time": True, "job": True, "Value #B": True},
                    indexByName={"instance": 0, "model": 1, "version": 2, "Value #A": 3, "device": 4, "precision": 5},
                    renameByName={"Value #A": "since", "version": "codebook", "instance": "server"},
                ),
            ]
        )
        .override_by_name("since", [property_of("unit", "dateTimeAsIso")])
    )


def panels() -> list[PanelBuilder]:
    """The row's panels, in their order."""
    return [ready(), codebook(), *numbers(), residues(), requests(), servers()]
