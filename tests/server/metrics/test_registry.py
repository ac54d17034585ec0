"""docs/metrics.md tells of each metric that a live server, a GPU, repair and bulk jobs show, and of no other."""

import re
import runpy
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_bulk.cli.metrics import Metrics as BulkMetrics
from foldmint_maintenance.repair.job_metrics import JobMetrics
from helpers.monitoring.metrics_reference import OF_A_SERVER, PAGE, linted, shown, told
from helpers.support import ROOT, RunningServer, metrics_of, running_server


def page_of(server: RunningServer, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://{server.metrics}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (an address of our own)
        text: str = answer.read().decode()
    return text


def test_the_page_is_up_to_date() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "generate_metrics.py"))["page"]()
    assert written == PAGE.read_text(encoding="utf-8"), "run .venv/bin/python docs/generate_metrics.py"


def test_a_live_server_shows_what_the_page_tells(server: RunningServer, stub: rpc.TokenizerServiceStub) -> None:
    stub.GetModel(pb.GetModelRequest())
    assert shown(text_string_to_metric_families(page_of(server))) == told(*OF_A_SERVER)
    text = page_of(server, "application/openmetrics-text; version=1.0.0")
    families = open_metrics_families(text)  # type: ignore[no-untyped-call]
    assert shown(families) == told(*OF_A_SERVER)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["summary", "off"])
def test_less_is_shown_of_the_codes_where_less_is_asked_for(mode: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    counts = dict(re.findall(r"(?m)^\| `(full|summary|off)` \| ([\d,]+) \|", text))
    codes = told("Codes")
    kept = {"summary": codes.keys() - {"foldmint_code_hits_total"}, "off": {"foldmint_codebook_codes"}}[mode]
    limits = ["--max-queued-residues", "123456", "--max-queued-detokenize-residues", "7890"]
    with running_server("--code-metrics", mode, "--usage-window", "77", *limits) as server:
        found = page_of(server)
        values = metrics_of(server)
    expected = told("Requests and load", "Process") | {name: codes[name] for name in kept}
    assert shown(text_string_to_metric_families(found)) == expected
    assert linted(found) == ""
    samples = [sample for family in text_string_to_metric_families(found) for sample in family.samples]
    assert sum(any(sample.name.startswith(name) for name in kept) for sample in samples) == int(counts[mode])
    assert values["foldmint_queued_residues_limit"] == 123456
    assert values["foldmint_queued_detokenize_residues_limit"] == 7890
    assert values.get("foldmint_usage_window_seconds") == (77 if mode == "summary" else None)
    assert values["foldmint_codebook_codes"] == 4096
    # What alerts look at stands there from the start: to Prometheus, an increase from nothing is none.
    assert values["foldmint_ready"] == 1
    for reason in ("queue_full", "stopping"):
        assert values[f'foldmint_rejects_total{{reason="{reason}"}}'] == 0
    for method in ("Tokenize", "TokenizeStream", "Detokenize"):
        assert values[f'foldmint_requests_total{{method="{method}",status="INTERNAL"}}'] == 0
        for bound in ("0.001", "120.0", "300.0"):
            assert values[f'foldmint_request_duration_seconds_bucket{{le="{bound}",method="{method}"}}'] == 0


def test_an_unknown_choice_is_refused() -> None:
    from foldmint_server.settings import read_settings

    with pytest.raises(ValueError, match="'full', 'summary' or 'off'"):
        read_settings({"code_metrics": "some"}, None)


def test_the_repair_job_tells_what_the_page_tells(tmp_path: Path) -> None:
    gate = {"before": 1.0, "after": 1.0, "limit": 1.0, "passed": True}
    result = {"dead": 1, "replaced": [2], "gates": {"churn": gate}, "churn": 0.5, "version": "000002"}
    JobMetrics.of_result("s", "success", 1.0, 1.0, result).write(tmp_path / "x.prom")
    text = (tmp_path / "x.prom").read_text(encoding="utf-8")
    assert shown(text_string_to_metric_families(text)) == told("Repair job")


def test_a_bulk_job_tells_what_the_page_tells(tmp_path: Path) -> None:
    BulkMetrics(file=tmp_path / "x.prom").close()
    text = (tmp_path / "x.prom").read_text(encoding="utf-8")
    assert shown(text_string_to_metric_families(text)) == told("Bulk job")
    assert linted(text) == ""
