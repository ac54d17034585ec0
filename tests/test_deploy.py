"""What lies in deploy/: files that parse, commands that the real command line takes, exit codes that are documented."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from foldmint_maintenance.cli import main
from foldmint_maintenance.cli.help_text import EPILOGS
from foldmint_maintenance.repair.job_metrics import OUTCOMES
from foldmint_server.settings import Settings
from helpers.support import ROOT

CRONJOB = ROOT / "deploy/kubernetes/cronjob.yaml"
SERVICE = ROOT / "deploy/systemd/foldmint-repair.service"
TIMER = ROOT / "deploy/systemd/foldmint-repair.timer"
SCHEDULE = ROOT / "docs/schedule.md"

# A wrong option is not an outcome of a run.
DOCUMENTED = {2, *OUTCOMES}


def _unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit, each with its values."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value.strip())
    return found


@pytest.fixture
def cronjob() -> dict[str, Any]:
    (document,) = yaml.safe_load_all(CRONJOB.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def _job(cronjob: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = cronjob["spec"]["jobTemplate"]["spec"]
    return spec


def _container(cronjob: dict[str, Any]) -> dict[str, Any]:
    (container,) = _job(cronjob)["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """What the real command line makes of arguments after `foldmint-maintenance repair`; SystemExit if it refuses."""
    command: Any = typer.main.get_command(main.app)
    repair = command.commands["repair"]
    try:
        parsed: dict[str, Any] = repair.make_context("repair", list(arguments)).params
    except Exception as error:
        raise SystemExit(str(error)) from error
    return parsed


def test_the_cronjob_runs_a_command_that_exists(cronjob: dict[str, Any]) -> None:
    container = _container(cronjob)
    assert container["command"] == ["foldmint-maintenance", "repair"]
    parsed = _parsed(container["args"])
    assert (parsed["store"], str(parsed["data"]), parsed["selector"]) == (
        "/store",
        "/data/train.parquet",
        'job="foldmint"',
    )
    assert all(parsed[name] for name in ("prometheus", "activate", "pushgateway", "gate_data", "threads"))
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/store", "/data", "/tmp"} == mounts  # noqa: S108


def test_the_service_runs_a_command_that_exists() -> None:
    (command,) = _unit(SERVICE)["ExecStart"]
    program, name, *arguments = shlex.split(command)
    assert (Path(program).name, name) == ("foldmint-maintenance", "repair")
    parsed = _parsed(arguments)
    assert (parsed["store"], parsed["activate"]) == ("/var/lib/foldmint/store", "localhost:50052")
    assert parsed["metrics_file"].suffix == ".prom"
    (writable,) = _unit(SERVICE)["ReadWritePaths"]
    assert parsed["metrics_file"].parent == Path(writable.lstrip("-"))
    for path in (Path(parsed["store"]), parsed["report"], parsed["json_file"]):
        assert path.is_relative_to("/var/lib/foldmint")


def test_the_servers_unit_has_options_that_exist_and_restarts_what_may_recover() -> None:
    unit = _unit(ROOT / "deploy/systemd/foldmint-server.service")
    (command,) = unit["ExecStart"]
    program, *arguments = shlex.split(command)
    assert Path(program).name == "foldmint-server"
    given = {name.lstrip("-").replace("-", "_"): value for name, _, value in (one.partition("=") for one in arguments)}
    settings = Settings.model_validate(given)
    assert settings.model == "/var/lib/foldmint/store"
    assert unit["Restart"] == ["on-failure"]  # 3, when the last device is lost, is a failure
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert int(unit["TimeoutStopSec"][0]) > settings.drain_seconds


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    for arguments in (["--store=x", "--no-such-option=1"], ["--data=x"], ["--store=x", "--scope=everything"]):
        with pytest.raises(SystemExit):
            _parsed(arguments)


def test_the_cronjob_is_one_run_at_a_time_bounded_and_without_rights(cronjob: dict[str, Any]) -> None:
    assert (cronjob["apiVersion"], cronjob["kind"]) == ("batch/v1", "CronJob")
    spec, job = cronjob["spec"], _job(cronjob)
    assert spec["concurrencyPolicy"] == "Forbid"
    assert len(spec["schedule"].split()) == 5
    assert min(spec["startingDeadlineSeconds"], job["activeDeadlineSeconds"], job["backoffLimit"]) > 0
    pod, container = job["template"]["spec"], _container(cronjob)
    # What podFailurePolicy asks for.
    assert pod["restartPolicy"] == "Never"
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert f"useradd --system --uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
    own = container["securityContext"]
    assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"], own["capabilities"]) == (
        False,
        True,
        {"drop": ["ALL"]},
    )
    assert pod["automountServiceAccountToken"] is False
    assert {"requests", "limits"} == container["resources"].keys()
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    by_codes = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [(rule["containerName"], rule["values"]) for rule in by_codes] == [(container["name"], [2, 3, 4, 5])]


def test_exit_codes_are_documented_and_what_units_go_by() -> None:
    table = [re.match(r"\| (\d+) \|", line) for line in SCHEDULE.read_text(encoding="utf-8").splitlines()]
    assert [int(match[1]) for match in table if match] == sorted(DOCUMENTED)
    unit = _unit(SERVICE)
    (fine,), (final,) = unit["SuccessExitStatus"], unit["RestartPreventExitStatus"]
    assert {OUTCOMES[int(code)] for code in fine.split()} == {"locked", "stopped"}
    assert {int(code) for code in final.split()} == {2, 3, 5}
    explained = EPILOGS["repair"].split("Exit codes:")[1]
    assert {int(code) for code in re.findall(r"(?m)^  (\d+) +[a-z]", explained)} == DOCUMENTED


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copies = []
    for unit in (SERVICE, TIMER):
        # The program that the unit names is not installed here; another is.
        text = unit.read_text(encoding="utf-8").replace("/opt/foldmint/bin/foldmint-maintenance", sys.executable)
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text, encoding="utf-8")
    done = _systemd_analyze("verify", "--man=no", *map(str, copies))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The score of 10 is a service that may do everything; the threshold is ten times a score.
    done = _systemd_analyze("security", "--offline=yes", "--threshold=25", str(copies[0]))
    assert done.returncode == 0, done.stdout
    (when,) = _unit(TIMER)["OnCalendar"]
    assert _systemd_analyze("calendar", when).returncode == 0
    assert _unit(TIMER)["Persistent"] == ["true"]


def _systemd_analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], text=True, capture_output=True, check=False)
