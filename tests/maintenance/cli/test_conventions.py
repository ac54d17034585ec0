"""What all commands have alike: help, errors, progress, JSON on standard output."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from foldmint.command_line import as_typed
from foldmint_maintenance.cli import main
from foldmint_maintenance.cli.help_text import EPILOGS, GROUPS
from foldmint_maintenance.cli.progress import PhaseDisplay, TrainingDisplay, remaining
from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_tokenizer.model import Model


def _commands() -> dict[str, Any]:
    """All commands, by what is typed."""
    group: Any = typer.main.get_command(main.app)
    own = {name: one for name, one in group.commands.items() if name != "codebooks"}
    return own | {f"codebooks {name}": one for name, one in group.commands["codebooks"].commands.items()}


def _run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = CliRunner(env={"COLUMNS": "100"}).invoke(main.app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", _commands())
def test_help_has_examples_and_exit_codes(command: str) -> None:
    status, short, _ = _run(*command.split(), "-h")
    assert (status, _run(*command.split(), "--help")[1]) == (0, short)
    assert "Examples:" in short
    assert f"$ foldmint-maintenance {command}" in short
    assert "Exit codes:" in short


def test_options_are_in_groups_and_show_their_choices() -> None:
    _, out, _ = _run("repair", "-h")
    titles = ("Options:", "Counts of hits:", "Gates:", "What is written:", "Connections:", "How it runs:")
    for title in titles:
        assert f"\n{title}\n" in out
    assert "repair|finetune|full" in out
    parameters = {parameter.name for command in _commands().values() for parameter in command.params}
    assert GROUPS.keys() <= parameters, "a group of an option that no command has"
    functions = {command.callback.__name__ for command in _commands().values()}
    assert EPILOGS.keys() == functions


def test_the_version() -> None:
    status, out, _ = _run("--version")
    assert (status, out.split()[0]) == (0, "foldmint")


def test_errors_name_options_as_they_are_typed() -> None:
    options = {"max_residues": "--max-residues", "rounds": "--rounds"}
    assert as_typed("max_residues must not be below min", options) == "--max-residues must not be below min"
    assert as_typed("rounds, which are rounds: rounds", options) == "--rounds, which are rounds: rounds"
    status, _, err = _run("ingest", "x", "-o", "y", "--min-residues", "9", "--max-residues", "3")
    assert (status, "--max-residues must not be below" in err) == (2, True)


WRONG = {
    "repair --store s --data d --device abacus": "'--device'",
    "repair --store s --data d --rounds=-1": "'--rounds': must be greater than or equal to 0",
    "repair --store s": "--data or from --from-servers",
    "repair --store s --data d --scope full": "--scope full needs --output",
    "repair --store s --data d --prometheus localhost:9090": "http://",
    "repair --store s --data d --prometheus http://localhost --window soon": "'soon' is not a duration",
    "repair --store s --data d --report .": "'--report'",
    "train --data d -o j --device abacus": "'--device'",
    "train --data d -o j --set encoder.rounds=1": "'--set': encoder.rounds is not a setting",
    "train --data d -o j --set sizes.width=0": "'--set': sizes: ModelConfig.width must be a positive integer",
    "train --data d -o j --recipe nowhere": "'--recipe': there is no file 'nowhere'; the shipped recipes are",
    "train --data d -o j --stage last": "'--stage': there is no stage last",
    "evaluate --data d --json-file .": "'--json-file'",
    "usage --store s --max-psi 1": "--max-psi needs something",
    "usage --prometheus localhost:9090": "'--prometheus': 'localhost:9090' is not an address",
    "usage --servers http://localhost:1": "not a URL",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_option_is_told_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom foldmint_maintenance.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as ended:\n    code = ended.code\n"
        "sys.exit(77 if 'torch' in sys.modules else code)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert WRONG[command] in " ".join(done.stderr.split())


def test_json_on_standard_output_is_nothing_else(
    model: Model, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(records, Path("set.parquet"))
    store = tmp_path / "a-model"
    for command in (
        ("codebooks", "list", "--store", store),
        ("codebooks", "show", "--store", store),
        ("codebooks", "verify", "--store", store),
        ("usage", "--store", store),
        ("evaluate", "--model", store, "--data", "set.parquet"),
    ):
        status, out, err = _run(*command, "--json")
        assert status == 0, err
        json.loads(out)
        assert err, "people are told too"
    assert not Path("-").exists()


def test_json_goes_to_a_file_also_as_it_was_asked_for_before(model: Model, tmp_path: Path) -> None:
    store, file = tmp_path / "a-model", tmp_path / "told.json"
    command = ("codebooks", "show", "--store", store, "000001")
    status, out, err = _run(*command, "--json-file", file)
    assert (status, err) == (0, "")
    expected = json.loads(file.read_text())
    for old in (["--json", file], [f"--json={file}"]):
        file.unlink()
        status, shown, err = _run(*command, *old)
        assert (status, shown, json.loads(file.read_text())) == (0, out, expected)
        assert err == "warning: --json FILE is deprecated: use --json, or --json-file FILE\n"
    assert json.loads(_run("codebooks", "show", "--store", store, "--json", "-")[1]) == expected
    # What follows is a version, no file.
    assert json.loads(_run("codebooks", "show", "--store", store, "--json", "000001")[1]) == expected
    status, _, err = _run(*command, "--json", "--json-file", file)
    assert (status, "give one of them" in err) == (2, True)


def test_phases_are_told_with_the_time_that_is_left() -> None:
    now = 0.0
    out = io.StringIO()
    display = PhaseDisplay(Console(file=out), lambda: now)
    advance = display.phase("computing vectors", 1000)
    for moment in (1.0, 20.0, 40.0, 60.0, 80.0):
        now = moment
        advance(200)
    count = display.phase("reading chains", None)
    now = 200.0
    count(7)
    display.close()
    assert out.getvalue().splitlines() == [
        "computing vectors: 600 of 1,000, 27 s left",
        "computing vectors: 1,000 of 1,000",
        "reading chains: 7",
    ]


class Step(NamedTuple):
    step: int
    loss: float


def test_steps_of_a_training_are_told_with_the_time_that_is_left() -> None:
    now = 0.0
    out = io.StringIO()
    display = TrainingDisplay(Console(file=out, width=100), 2, lambda: now)
    for step in range(1, 7):
        display.report(Step(step, 0.5), 6)
        now += 60.0
    count = display.phase("k-means", 1000)
    now += 40.0
    count(400)
    count(600)
    display.report(Step(1, 0.5), 2)  # another stage
    display.report(Step(2, 0.5), 2)
    display.close()
    assert out.getvalue().splitlines() == [
        "step 2/6  loss 0.5  4 min 0 s left",
        "step 4/6  loss 0.5  2 min 0 s left",
        "step 6/6  loss 0.5",
        "k-means: 400 of 1,000, 1 min 0 s left",
        "k-means: 1,000 of 1,000",
        "step 2/2  loss 0.5",
    ]

    # A terminal shows one bar at a time.
    shown = io.StringIO()
    display = TrainingDisplay(Console(file=shown, width=100, force_terminal=True), 2, lambda: now)
    display.phase("k-means", 10)(5)
    display.report(Step(1, 0.5), 2)
    display.phase("assigning codes", 10)(10)
    display.report(Step(2, 0.5), 2)
    display.close()
    assert "k-means" in shown.getvalue()
    assert "assigning codes" in shown.getvalue()
    assert remaining(1, 100, 100.0) == "2 h 46 min left"
    assert remaining(0, 100, 100.0) == ""
