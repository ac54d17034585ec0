"""Variables FOLDMINT_… that no command reads are reported, by each command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from foldmint.environment import known_variables, unknown_variables, unknown_variables_warning
from foldmint_client.cli.main import app as client
from foldmint_maintenance.cli.main import app as maintenance
from foldmint_server.cli.main import app as server
from foldmint_server.settings import Settings
from helpers.support import ROOT, running_server

MODULES = {
    "foldmint": "foldmint_client",
    "foldmint-server": "foldmint_server.cli",
    "foldmint-maintenance": "foldmint_maintenance.cli",
    "foldmint-bulk": "foldmint_bulk.cli",
}


def variables_of(command: Any) -> Iterator[str]:
    """The variables that options of a command and those below it read."""
    for parameter in command.params:
        names = parameter.envvar or ()
        yield from [names] if isinstance(names, str) else names
    for below in getattr(command, "commands", {}).values():
        yield from variables_of(below)


def test_the_list_is_complete() -> None:
    """If this fails, change protos/foldmint/environment_variables.txt."""
    options = {name for app in (client, maintenance, server) for name in variables_of(typer.main.get_command(app))}
    settings = {f"FOLDMINT_{name.upper()}" for name in Settings.model_fields}
    assert known_variables() == options | settings | {"FOLDMINT_TOKEN"}


def test_the_warning_suggests_the_name_that_was_meant() -> None:
    known = {"FOLDMINT_SERVER", "FOLDMINT_TOKEN", "PATH", "OTHER_FOLDMINT_X"}
    assert unknown_variables_warning(known) is None
    assert unknown_variables_warning({*known, "FOLDMINT_SERVR", "FOLDMINT_COLOUR"}) == (
        "unknown environment variables, ignored: FOLDMINT_COLOUR, FOLDMINT_SERVR (did you mean FOLDMINT_SERVER?)"
    )


def test_variables_that_kubernetes_sets_are_not_reported() -> None:
    service = {
        "FOLDMINT_ADMIN_SERVICE_HOST",
        "FOLDMINT_ADMIN_SERVICE_PORT_GRPC",
        "FOLDMINT_ADMIN_PORT",
        "FOLDMINT_ADMIN_PORT_50052_TCP_ADDR",
        "FOLDMINT_SERVICE_HOST",
        "FOLDMINT_PORT_50051_TCP",
    }
    assert unknown_variables(service) == []
    assert unknown_variables({"FOLDMINT_PORT", "FOLDMINT_ADMIN_PORT"}) == ["FOLDMINT_ADMIN_PORT", "FOLDMINT_PORT"]


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("command", MODULES)
def test_a_command_warns_on_one_line(command: str, option: str) -> None:
    roots = os.pathsep.join(
        str(ROOT / name) for name in ("protos", "client", "server", "maintenance", "tokenizer", "bulk")
    )
    done = subprocess.run(
        [sys.executable, "-m", MODULES[command], option],
        env={**os.environ, "PYTHONPATH": roots, "FOLDMINT_SERVR": "gpu1:50051"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "warning: unknown environment variable, ignored: FOLDMINT_SERVR (did you mean FOLDMINT_SERVER?)"
    assert done.stderr == f"{command}: {expected}\n"


def test_the_server_warns_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(environment={"FOLDMINT_MAX_RESIDUE": "5"}, log=log):
        pass
    (event,) = (json.loads(line)["event"] for line in log.read_text().splitlines() if "MAX_RESIDUE" in line)
    assert re.fullmatch(r"unknown environment variable, ignored: FOLDMINT_MAX_RESIDUE \(did you mean .*\)", event)
