"""Grafana's dashboard is what its code says, and has a place for each metric."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from helpers.monitoring.grafana_page import GRAFANA, committed_dashboard, queries
from helpers.support import ROOT

RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
# Of no use in a panel: a setting.
NOT_SHOWN = {"foldmint_usage_window_seconds"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return committed_dashboard()


def test_the_committed_dashboard_is_what_its_code_makes(tmp_path: Path) -> None:
    made = tmp_path / "dashboard.json"
    subprocess.run([sys.executable, str(GRAFANA / "dashboard.py"), str(made)], check=True)
    assert made.read_text(encoding="utf-8") == (GRAFANA / "dashboard.json").read_text(encoding="utf-8"), (
        "`python deploy/grafana/dashboard.py` writes it anew"
    )


def test_panels_have_their_places_and_one_data_source(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken), "panels lie on each other"
    assert {x for x, _ in taken} == set(range(24))
    sources = re.findall(r'"uid": "([^"]+)"', json.dumps({**dashboard, "uid": None}))
    assert set(sources) == {"${datasource}"}
    for panel in panels:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs)


def test_each_metric_is_in_a_panel(dashboard: dict[str, Any]) -> None:
    """Itself, or through what the rules record of it."""
    shown = " ".join(query.expr for query in queries(dashboard))
    recorded = {
        rule["record"]: rule["expr"]
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    while used := [name for name in recorded if name in shown]:
        shown += " ".join(recorded.pop(name) for name in used)
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").split("## Bulk job")[0]
    metrics = set(re.findall(r"(?m)^\| `(foldmint_\w+)` \|", page))
    assert len(metrics) > 50
    assert {name for name in metrics if name not in shown} == NOT_SHOWN


def test_what_is_provisioned_fits(dashboard: dict[str, Any]) -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/foldmint.yaml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    # As often as the shipped Prometheus scrapes.
    scraping = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/foldmint.yaml").read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/etc/grafana/dashboards")
    assert dashboard["uid"] == "foldmint"
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["grafana"]
    assert {
        "./grafana/provisioning:/etc/grafana/provisioning:ro",
        "./grafana/dashboard.json:/etc/grafana/dashboards/foldmint.json:ro",
    } <= set(compose["volumes"])
    # The library that checks what is made of tables is of the Grafana that runs there.
    library = json.loads((ROOT / "tests/grafana/package.json").read_text())["dependencies"]
    assert compose["image"] == f"grafana/grafana:{library['@grafana/data']}"
