"""The repair job, by what it pushed or wrote when it last ended, for each store."""

from grafana_foundation_sdk.builders import stat, table
from grafana_foundation_sdk.models import common

from foldmint_dashboard.panels import (
    PanelBuilder,
    course,
    listing,
    number,
    property_of,
    query,
    rows,
    thresholds,
    transformation,
)


def outcome() -> stat.Panel:
    """What became of the last run."""
    return (
        number(
            "Last run",
            query(
                "max by (store, outcome) (foldmint_repair_last_run_outcome) == 1", "{{store}}: {{outcome}}", at_end=True
            ),
            width=6,
        )
        .text_mode(common.BigValueTextMode.NAME)
        .graph_mode(common.BigValueGraphMode.NONE)
    )


def gates() -> table.Panel:
    """What the last run's gates measured."""
    columns = {"A": "before", "B": "after", "C": "limit", "D": "passed"}
    return (
        listing(
            "Gates of the last run",
            "Figures that the repair must not worsen beyond their limits; if one does not pass, nothing is published.",
            *(rows(f"max by (store, gate) (foldmint_repair_gate_{name})", ref) for ref, name in columns.items()),
            width=12,
        )
        .transformations(
            [
                transformation("merge"),
                transformation(
                    "organize",
                    excludeByName={"Time": True},
                    indexByName={"store": 0, "gate": 1},
                    renameByName={f"Value #{ref}": name for ref, name in columns.items()},
                ),
            ]
        )
        .override_by_name(
            "passed",
            [
                property_of(
                    "mappings",
                    [
                        {
                            "type": "value",
                            "options": {
                                "0": {"text": "no", "color": "red", "index": 0},
                                "1": {"text": "yes", "color": "green", "index": 1},
                            },
                        }
                    ],
                ),
                property_of("custom.cellOptions", {"type": "color-text"}),
            ],
        )
    )


def panels() -> list[PanelBuilder]:
    """The row's panels, in their order."""

    def of_store(name: str) -> str:
        return f"max by (store) (foldmint_repair_{name})"

    return [
        outcome(),
        number(
            "Since the last success",
            query(f"time() - {of_store('last_success_timestamp_seconds')}", "{{store}}", at_end=True),
            unit="s",
            width=6,
        )
        .graph_mode(common.BigValueGraphMode.NONE)
        .thresholds(thresholds(8 * 86400, 16 * 86400)),
        number(
            "It took", query(of_store("last_run_duration_seconds"), "{{store}}", at_end=True), unit="s", width=6
        ).graph_mode(common.BigValueGraphMode.NONE),
        number(
            "Codebook after the run",
            query("max by (store, version) (foldmint_repair_codebook_info)", "{{version}}", at_end=True),
            width=6,
        )
        .text_mode(common.BigValueTextMode.NAME)
        .graph_mode(common.BigValueGraphMode.NONE),
        gates(),
        course(
            "Codes found dead, and replaced",
            "By the last run, at each time.",
            (of_store("dead_codes"), "{{store}} dead"),
            (of_store("replaced_codes"), "{{store}} replaced"),
            width=6,
        ),
        course(
            "Churn",
            "Share of tokens, of the chains that the gates measure, that the last run changed.",
            (of_store("churn_ratio"), "{{store}}"),
            unit="percentunit",
            width=6,
        ),
    ]
