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

from foldmint_maintenance.cli import main
from foldmint_maintenance.cli.help_text import EPILOGS
from foldmint_maintenance.repair.job_metrics import OUTCOMES
from foldmint_server.settings import Settings
from helpers.support import ROOT

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


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """What the real command line makes of arguments after `foldmint-maintenance repair`; SystemExit if it refuses."""
    command: Any = typer.main.get_command(main.app)
    repair = command.commands["repair"]
    try:
        parsed: dict[str, Any] = repair.make_context("repair", list(arguments)).params
    except Exception as error:
        raise SystemExit(str(error)) from error
    return parsed


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
    # Options would win over variables, which is what `systemctl edit` adds.
    (program,) = unit["ExecStart"]
    assert Path(program).name == "foldmint-server"
    variables = dict(one.partition("=")[::2] for one in unit["Environment"])
    assert all(name.startswith("FOLDMINT_") for name in variables)
    given = {name.removeprefix("FOLDMINT_").lower(): value for name, value in variables.items()}
    settings = Settings.model_validate(given)
    assert settings.model == "/var/lib/foldmint/store"
    # And what the page adds to them are settings, too.
    page = (ROOT / "docs/systemd.md").read_text(encoding="utf-8")
    added = dict(
        re.findall(r"(?m)^Environment=FOLDMINT_(\w+)=(.*)$", page.partition("[Service]")[2].partition("```")[0])
    )
    assert len(added) == 4
    Settings.model_validate(given | {name.lower(): value for name, value in added.items()})
    assert unit["Restart"] == ["on-failure"]  # 3, when the last device is lost, is a failure
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert int(unit["TimeoutStopSec"][0]) > settings.drain_seconds


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    for arguments in (["--store=x", "--no-such-option=1"], ["--data=x"], ["--store=x", "--scope=everything"]):
        with pytest.raises(SystemExit):
            _parsed(arguments)


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
