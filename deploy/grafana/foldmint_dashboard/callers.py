"""Who calls, what for, and what they send: by the names of access tokens, chains and messages."""

from grafana_foundation_sdk.builders import heatmap, table
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from foldmint_dashboard.panels import (
    RATE,
    SERVERS,
    SOURCE,
    PanelBuilder,
    course,
    listing,
    property_of,
    query,
    rows,
    stacked,
    transformation,
)


def tokens() -> table.Panel:
    """When tokens expire, and when they were last used."""
    return (
        listing(
            "Tokens",
            "When each expires, if it does, and when it was last used on the servers that are chosen.",
            rows(f"1000 * min by (token) (foldmint_token_expiry_timestamp_seconds{{{SERVERS}}})"),
            rows(f"1000 * max by (token) (foldmint_token_last_use_timestamp_seconds{{{SERVERS}}})", "B"),
        )
        .transformations(
            [
                transformation("merge"),
                transformation(
                    "organize",
                    excludeByName={"Time": True},
                    indexByName={"token": 0, "Value #A": 1, "Value #B": 2},
                    renameByName={"Value #A": "expires", "Value #B": "last use"},
                ),
            ]
        )
        .override_by_name("expires", [property_of("unit", "dateTimeAsIso")])
        .override_by_name("last use", [property_of("unit", "dateTimeAsIso")])
    )


def lengths() -> heatmap.Panel:
    """Chains by their length."""
    return (
        heatmap.Panel()
        .title("Lengths of chains")
        .description("Residues of the chains that were tokenized.")
        .datasource(SOURCE)
        .with_target(
            query(
                f"sum by (le) (increase(foldmint_chain_residues_bucket{{{SERVERS}}}{RATE}))",
                "{{le}}",
            ).format(PromQueryFormat.HEATMAP)
        )
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Turbo").steps(64))
        .height(8)
        .span(8)
        .max_data_points(120)
    )


def panels() -> list[PanelBuilder]:
    """The row's panels, in their order."""
    took = f"sum by (caller, le) (rate(foldmint_caller_request_duration_seconds_bucket{{{SERVERS}}}{RATE}))"
    return [
        stacked(
            course(
                "Residues a second, by caller",
                "Tokenized or decoded, by the name of the caller's token; anonymous: without a token; other: beyond "
                "--max-caller-names.",
                (f"sum by (caller) (rate(foldmint_caller_residues_total{{{SERVERS}}}{RATE}))", "{{caller}}"),
            )
        ),
        stacked(
            course(
                "Structures a second, by caller",
                "Answered.",
                (f"sum by (caller) (rate(foldmint_caller_structures_total{{{SERVERS}}}{RATE}))", "{{caller}}"),
            )
        ),
        course(
            "Refused or failed a second, by caller",
            "Structures and calls, by gRPC status; without those that the caller cancelled.",
            (
                f"sum by (caller, status) (rate(foldmint_caller_refusals_total{{{SERVERS}}}{RATE}))",
                "{{caller}} {{status}}",
            ),
        ),
        course(
            "Times of structures, by caller",
            "Seconds from arrival to answer, of half and of 99 % of them.",
            (f"histogram_quantile(0.5, {took})", "{{caller}} 50 %"),
            (f"histogram_quantile(0.99, {took})", "{{caller}} 99 %"),
            unit="s",
        ),
        tokens(),
        lengths(),
        course(
            "Bytes a second, by method",
            "Serialized messages, before compression.",
            (f"sum by (method) (rate(foldmint_received_bytes_total{{{SERVERS}}}{RATE})) > 0", "{{method}} received"),
            (f"sum by (method) (rate(foldmint_sent_bytes_total{{{SERVERS}}}{RATE})) > 0", "{{method}} sent"),
            unit="Bps",
            width=12,
        ),
        course(
            "Residues left out a second, by kind",
            "Protein residues of files that tokens do not cover.",
            (f"sum by (kind) (rate(foldmint_left_out_residues_total{{{SERVERS}}}{RATE}))", "{{kind}}"),
            width=12,
        ),
    ]
