"""The rules for Prometheus: sound, tested both ways, and each alert with a section of the runbook."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from helpers.monitoring.real_prometheus import HASTE, HASTE_FOR, free_port, hastened
from helpers.support import ROOT, missing

FOLDER = ROOT / "deploy" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
TESTS = sorted((ROOT / "tests" / "prometheus").glob("*.yml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def promtool(*arguments: str | Path) -> str:
    """What promtool says; fails if it is not content."""
    if shutil.which("promtool") is None:
        missing("promtool, of Debian's package prometheus,", "`apt-get install prometheus` installs it")
    done = subprocess.run(["promtool", *map(str, arguments)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules with such a key, `alert` or `record`."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def alerts() -> dict[str, dict[str, Any]]:
    named = {rule["alert"]: rule for rule in rules("alert")}
    assert len(named) == len(rules("alert"))
    return named


def test_prometheus_takes_the_configuration_and_all_rules() -> None:
    said = promtool("check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in said
    found = [int(count) for count in re.findall(r"SUCCESS: (\d+) rules found", said)]
    assert (len(found), sum(found)) == (len(RULES), len(rules("alert")) + len(rules("record")))


def test_prometheus_takes_what_the_configuration_offers_for_kubernetes(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    (offered,) = re.findall(r"(?m)(?:^  # - job_name: .*\n)(?:^  # .*\n)+", text)
    before, _, after = text.partition("  - job_name: foldmint\n")
    changed = before + offered.replace("  # ", "  ") + after[after.index("\n\n") :]
    assert [job["job_name"] for job in yaml.safe_load(changed)["scrape_configs"]] == ["foldmint", "foldmint-repair"]
    assert yaml.safe_load(changed)["scrape_configs"][0]["kubernetes_sd_configs"] == [{"role": "pod"}]
    # Debian builds Prometheus without this discovery: all else of it is checked.
    changed = changed.replace("kubernetes_sd_configs:", "file_sd_configs:").replace("- role: pod", "- files: [x.yml]")
    shutil.copytree(FOLDER, tmp_path / "prometheus")
    (tmp_path / "prometheus" / "prometheus.yml").write_text(changed, encoding="utf-8")
    promtool("check", "config", tmp_path / "prometheus" / "prometheus.yml")


def test_prometheus_runs_with_it_and_finds_whom_to_scrape(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        missing("Debian's package prometheus", "`apt-get install prometheus` installs it")
    address = f"127.0.0.1:{free_port()}"
    options = [f"--storage.tsdb.path={tmp_path}", f"--web.listen-address={address}", "--log.level=warn"]

    def told(path: str) -> Any:
        with suppress(OSError), urllib.request.urlopen(f"http://{address}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]

    def urls() -> list[str]:
        return [target["scrapeUrl"] for target in (told("targets") or {"activeTargets": []})["activeTargets"]]

    with subprocess.Popen(["prometheus", f"--config.file={FOLDER / 'prometheus.yml'}", *options]) as process:
        try:
            until = time.monotonic() + 60
            while not urls() and time.monotonic() < until:
                time.sleep(0.2)
            assert urls() == ["http://localhost:9464/metrics"]
            groups = told("rules")["groups"]
        finally:
            process.terminate()
    assert sum(len(group["rules"]) for group in groups) == len(rules("alert")) + len(rules("record"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)


def test_each_alert_is_tested_with_series_that_make_it_fire_and_with_others() -> None:
    tested = [
        case
        for path in TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    for fires in (True, False):
        assert {case["alertname"] for case in tested if bool(case.get("exp_alerts")) == fires} == alerts().keys()


def test_each_recorded_series_is_tested_or_what_an_alert_that_is_tested_looks_at() -> None:
    looked_at = " ".join(rule["expr"] for rule in (*rules("alert"), *rules("record")))
    tested = " ".join(path.read_text(encoding="utf-8").replace("\\", "") for path in TESTS)
    for rule in rules("record"):
        assert rule["record"] in looked_at + tested, rule["record"]


def test_each_alert_has_its_section_of_the_runbook_and_each_section_its_alert() -> None:
    sections = re.findall(r"(?m)^## (.+)$", RUNBOOK.read_text(encoding="utf-8"))
    assert sections == list(alerts()), "in the order of the rules"
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_runbook_speaks_of_metrics_and_options_that_there_are() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    known = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z]+:)?(?:foldmint|process)_[a-z_]+(?::[a-z0-9_]+)?)[`{]", text)
    assert len(named) > 10
    for name in named:
        assert f"`{name.removesuffix('_bucket')}`" in known, name
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("server/foldmint_server", "client/foldmint_client", "maintenance/foldmint_maintenance")
        for path in (ROOT / folder).rglob("*.py")
    )
    options = set(OPTION.findall(text))
    assert len(options) > 10
    for option in options:
        assert f'"{option}"' in code or f" {option[2:].replace('-', '_')}: " in code, option
    for said in [*re.findall(r"`([a-z' ]+)` (?:in (?:the|its) log|has)", text), "the store cannot be reached"]:
        assert said in code, said


def test_the_hastening_of_rules_changes_times_alone(tmp_path: Path) -> None:
    for path, copy in zip(RULES, hastened(RULES, tmp_path), strict=True):
        before, after = path.read_text(encoding="utf-8"), copy.read_text(encoding="utf-8")
        assert before != after
        for span in {*HASTE.values(), *HASTE_FOR.values()}:
            after = re.sub(rf"(?<![\w:])({span})\b", "T", after)
        for span in {*HASTE, *HASTE_FOR}:
            before = re.sub(rf"(?<![\w:])({span})\b", "T", before)
        assert before == after
