"""The repair job's metrics: in a file, at a real Pushgateway, and what of them a run that fails leaves alone."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from foldmint_maintenance.errors import MetricsExportError
from foldmint_maintenance.repair.job_metrics import OUTCOMES, JobMetrics, recorded
from foldmint_tokenizer.errors import StoreLocked
from helpers.monitoring.real_prometheus import awaited, free_port, prometheus
from helpers.support import missing

STORE = "s3://bucket/a store"
RESULT: dict[str, Any] = {
    "dead": 3,
    "replaced": [7, 9],
    "published": True,
    "version": "000002",
    "parent": "000001",
    "gates": {
        "quantization_error": {"before": 2.5, "after": 2.25, "limit": 2.525, "passed": True},
        "churn": {"before": 0.0, "after": 0.625, "limit": 0.5, "passed": False},
    },
    "churn": 0.625,
}


def _success(finished: float = 1000.5) -> JobMetrics:
    return JobMetrics.of_result(STORE, "success", finished, 60.0, RESULT)


def _failure(outcome: str = "error", finished: float = 2000.0) -> JobMetrics:
    return JobMetrics.of_result(STORE, outcome, finished, 5.0, None)


def _values(text: str) -> dict[str, float]:
    """Each sample of a store by name and other labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        " ".join(
            [sample.name.removeprefix("foldmint_repair_"), *(sample.labels.get(key, "") for key in _KEYS)]
        ).strip(): sample.value
        for sample in samples
        if sample.labels.get("store") == STORE
    }


_KEYS = ("gate", "outcome", "version")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foldmint.prom"


def test_a_file_tells_what_a_run_did(path: Path) -> None:
    _success().write(path)
    values = _values(path.read_text())
    assert values == {
        "last_success_timestamp_seconds": 1000.5,
        "last_run_timestamp_seconds": 1000.5,
        "last_run_duration_seconds": 60.0,
        "last_run_outcome  success": 1.0,
        **{f"last_run_outcome  {outcome}": 0.0 for outcome in OUTCOMES.values() if outcome != "success"},
        "dead_codes": 3.0,
        "replaced_codes": 2.0,
        "churn_ratio": 0.625,
        "codebook_info   000002": 1.0,
        "gate_before quantization_error": 2.5,
        "gate_after quantization_error": 2.25,
        "gate_limit quantization_error": 2.525,
        "gate_passed quantization_error": 1.0,
        "gate_before churn": 0.0,
        "gate_after churn": 0.625,
        "gate_limit churn": 0.5,
        "gate_passed churn": 0.0,
    }
    assert [each.name for each in path.parent.iterdir()] == ["foldmint.prom"]


def test_a_run_that_fails_leaves_the_last_success(path: Path) -> None:
    _failure("locked", 500.0).write(path)
    assert "last_success_timestamp_seconds" not in _values(path.read_text())
    _success().write(path)
    _failure().write(path)
    values = _values(path.read_text())
    assert (values["last_success_timestamp_seconds"], values["last_run_timestamp_seconds"]) == (1000.5, 2000.0)
    assert (values["last_run_outcome  error"], values["last_run_outcome  success"]) == (1.0, 0.0)
    # What it did not come to stands as it was.
    assert (values["dead_codes"], values["gate_after churn"], values["codebook_info   000002"]) == (3.0, 0.625, 1.0)
    refused = RESULT | {"replaced": [], "gates": {"perplexity": RESULT["gates"]["churn"]}, "version": "000001"}
    JobMetrics.of_result(STORE, "gate_failed", 3000.0, 50.0, refused).write(path)
    values = _values(path.read_text())
    assert (values["last_success_timestamp_seconds"], values["last_run_timestamp_seconds"]) == (1000.5, 3000.0)
    assert {name for name in values if name.startswith("gate_passed")} == {"gate_passed perplexity"}
    assert [name for name in values if name.startswith("codebook_info")] == ["codebook_info   000001"]
    JobMetrics.of_result(STORE, "success", 4000.0, 9.0, RESULT | {"gates": {}, "churn": None, "replaced": []}).write(
        path
    )
    values = _values(path.read_text())
    assert (values["last_success_timestamp_seconds"], values["replaced_codes"]) == (4000.0, 0.0)
    assert not any(name.startswith(("gate", "churn")) for name in values)


@pytest.mark.parametrize("metrics", [_success(), _failure()], ids=["success", "failure"])
def test_promtool_has_nothing_to_say(metrics: JobMetrics, path: Path) -> None:
    if shutil.which("promtool") is None:
        missing("promtool", "`apt-get install prometheus` installs it")
    metrics.write(path)
    for _ in range(2):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=path.read_text(), text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        _failure().write(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not { metrics", "holds something else than metrics"),
        (b"node_load1 0.5\n", "holds metrics that are not this job's"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_file_of_something_else_is_not_overwritten(content: bytes, reason: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(MetricsExportError, match=reason), recorded(STORE, path, None, pytest.fail):
        pytest.fail("the job must not begin")
    with pytest.raises(MetricsExportError, match=reason):
        _failure().write(path)
    assert path.read_bytes() == content
    with (
        pytest.raises(MetricsExportError, match=r"names end with \.prom"),
        recorded(STORE, path.with_suffix(""), None, print),
    ):
        pytest.fail("the job must not begin")


def test_a_file_is_of_one_store(path: Path) -> None:
    JobMetrics.of_result("elsewhere", "success", 10.0, 1.0, RESULT).write(path)
    _failure().write(path)
    assert "last_success_timestamp_seconds" not in _values(path.read_text())
    assert "elsewhere" not in path.read_text()


ENDINGS: dict[str, tuple[BaseException | None, str]] = {
    "well": (None, "success"),
    "a gate that failed": (typer.Exit(3), "gate_failed"),
    "another run's lock": (typer.Exit(4), "locked"),
    "a swap that failed": (typer.Exit(5), "not_activated"),
    "a signal": (typer.Exit(130), "stopped"),
    "an error": (typer.Exit(1), "error"),
    "a wrong option": (typer.BadParameter("no"), "error"),
    "an exit code that is not known": (typer.Exit(77), "error"),
    "an exception": (StoreLocked("no"), "error"),
    "Control-C": (KeyboardInterrupt(), "error"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_is_recorded(name: str, path: Path) -> None:
    error, outcome = ENDINGS[name]
    times = iter([100.0, 130.0])
    expected = [] if error is None else [type(error)]
    with suppress(*expected), recorded(STORE, path, None, pytest.fail, lambda: next(times)) as record:
        record.result = RESULT
        if error is not None:
            raise error
    values = _values(path.read_text())
    assert [key for key, value in values.items() if key.startswith("last_run_outcome") and value] == [
        f"last_run_outcome  {outcome}"
    ]
    assert (values["last_run_duration_seconds"], values["last_run_timestamp_seconds"]) == (30.0, 130.0)
    assert ("last_success_timestamp_seconds" in values, values["dead_codes"]) == (error is None, 3.0)


def test_metrics_that_cannot_be_told_do_not_fail_the_run(tmp_path: Path, path: Path) -> None:
    told: list[str] = []
    folder = tmp_path / "folder.prom"
    with recorded(STORE, folder / "x.prom", f"127.0.0.1:{free_port()}", told.append) as record:
        record.result = RESULT
        folder.touch()
    assert [line.startswith("the job's metrics were not ") for line in told] == [True, True]
    with recorded(STORE, path, "http://[bad", told.append):
        pass
    assert "http://[bad" in told[2]
    assert _values(path.read_text())["last_run_outcome  success"] == 1.0
    with recorded(STORE, None, None, pytest.fail):
        pass


def test_an_outcome_is_one_of_a_few() -> None:
    with pytest.raises(ValueError, match="outcome must be one of success, error"):
        _failure("fine")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """The address of a real Pushgateway."""
    if shutil.which("prometheus-pushgateway") is None:
        missing("a Pushgateway", "`apt-get install prometheus-pushgateway` installs it")
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}", "--log.level=error"]
    command += [f"--persistence.file={tmp_path / 'pushed'}"]  # Debian's has one that all share
    with subprocess.Popen(command) as process:
        try:
            until = time.monotonic() + 20
            while not _asked(address, "/-/ready") and time.monotonic() < until:
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()


def _asked(address: str, path: str) -> str:
    """The text that is served there; empty if none is."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return ""


def test_a_pushgateway_shows_them_to_prometheus(gateway: str, tmp_path: Path) -> None:
    url = f"http://{gateway}"
    _success(1000.5).push(url)
    JobMetrics.of_result("elsewhere", "success", 77.0, 1.0, None).push(url)
    _failure("gate_failed", 2000.0).push(url)
    values = _values(_asked(gateway, "/metrics"))
    assert (values["last_success_timestamp_seconds"], values["last_run_timestamp_seconds"]) == (1000.5, 2000.0)
    assert (values["last_run_outcome  gate_failed"], values["last_run_outcome  success"]) == (1.0, 0.0)
    assert (values["dead_codes"], values["gate_after churn"]) == (3.0, 0.625)
    groups = json.loads(_asked(gateway, "/api/v1/metrics"))["data"]
    assert {group["labels"]["store"] for group in groups} == {STORE, "elsewhere"}
    assert {group["labels"]["job"] for group in groups} == {"foldmint_repair"}
    with prometheus(gateway, tmp_path) as address:
        query = f'max by (store) (foldmint_repair_last_success_timestamp_seconds{{store="{STORE}"}})'
        # Without honor_labels, Prometheus calls the pushed job exported_job; the store's label is its own.
        assert awaited(address, query, 1000.5) == 1000.5
    JobMetrics.of_result(STORE, "success", 3000.0, 1.0, RESULT | {"gates": {}}).push(url)
    values = _values(_asked(gateway, "/metrics"))
    assert values["last_success_timestamp_seconds"] == 3000.0
    assert not any(name.startswith("gate") for name in values)


def test_a_pushgateway_that_is_not_there_is_told() -> None:
    with pytest.raises(MetricsExportError, match="the job's metrics were not pushed to http://127"):
        _success().push(f"http://127.0.0.1:{free_port()}")
