"""Help and completion: quick to come, complete, and with examples that the command understands."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foldmint_client.cli.main import app

ROOT = Path(__file__).parents[3]
GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands) if isinstance(GROUP, typer.core.TyperGroup) else []


def help_of(command: str) -> str:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    return result.stdout


def examples(command: str) -> list[str]:
    lines = [line.strip() for line in help_of(command).splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def foldmint(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    roots = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client"))
    code = "from foldmint_client.cli.main import app; app(prog_name='foldmint')"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": roots, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_all_commands_are_there() -> None:
    assert COMMANDS == ["compare", "detokenize", "health", "info", "tokenize", "usage", "watch"]


@pytest.mark.parametrize("arguments", [["--help"], ["tokenize", "--help"], ["watch", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    roots = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client"))
    code = (
        "import sys\nfrom foldmint_client.cli.main import app\napp(sys.argv[1:], standalone_mode=False)\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=True,
    )
    page, _, modules = done.stdout.rpartition("MODULES ")
    assert "Usage: " in page
    heavy = {"asyncio", "google", "grpc", "numpy", "pyarrow", "rich", "torch", "foldmint_tokenizer"}
    assert not heavy.intersection(modules.split())


WRONG = {
    "tokenize": ["--format", "xml", "x"],
    "tokenize x": ["--json", "x"],
    "detokenize": ["--format", "npz", "x"],
    "compare": ["--near", "2", "a", "b"],
    "usage": ["--top", "-1"],
    "watch": ["--interval", "0"],
    "info": ["--attempts", "9"],
    "health": ["--no-such-option"],
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_option_is_named_before_heavy_imports(command: str) -> None:
    roots = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client"))
    code = (
        "import sys, atexit\nfrom foldmint_client.__main__ import main\n"
        "atexit.register(lambda: print('MODULES', *{name.partition('.')[0] for name in sys.modules}))\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command.split()[0], *WRONG[command]],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert WRONG[command][0] in done.stderr.splitlines()[-1]
    assert not {"grpc", "numpy", "pyarrow", "rich"}.intersection(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_and_sections(command: str) -> None:
    text = help_of(command)
    assert CliRunner().invoke(app, [command, "-h"]).stdout == text
    for section in ("Output:", "Connection:", "TLS and token:", "Options:"):
        assert f"\n{section}\n" in text


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["info", "--timeout", "0"], "--timeout"),
        (["info", "--server", ""], "--server"),
        (["usage", "--admin", ""], "--admin"),
        (["usage", "--codebook-version", ""], "--codebook-version"),
        (["tokenize", "--codebook-version", "", str(ROOT / "tests/data/1a8o.cif")], "--codebook-version"),
        (["tokenize", "--failures", "-", "x"], "--failures"),
        (["detokenize", "--pae", "x"], "--pae"),
        (["info", "--tls-key", str(ROOT / "README.md")], "--tls-certificate"),
        (["info", "--tls-ca", "none.pem"], "--tls-ca"),
        (["info", "--token-file", "none"], "--token-file"),
    ],
)
def test_errors_name_the_option_as_typed(arguments: list[str], option: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"Invalid value for {option}:" in result.stderr.replace("'", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_manual(command: str) -> None:
    text = help_of(command)
    assert "Examples:" in text
    assert "Exit codes:" in text
    assert "--json" in text
    assert examples(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_understood(command: str) -> None:
    """Each is parsed as the command would; nothing is run."""
    assert isinstance(GROUP, typer.core.TyperGroup)
    seen = 0
    for line in examples(command):
        for part in line.replace("||", "|").split(" | "):
            words = shlex.split(part.partition(">")[0])
            if words[0] != "foldmint":
                continue
            parsed = GROUP.commands[words[1]].make_context(words[1], words[2:])
            assert parsed.info_name == words[1]
            seen += 1
    assert seen >= len(examples(command))


def test_completion_is_installed(tmp_path: Path) -> None:
    """By bash itself, which the command takes for the shell that it is run from."""
    roots = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client"))
    command = f"{sys.executable} -c 'from foldmint_client.cli.main import app; app(prog_name=\"foldmint\")'"
    for option, wanted in (("--show-completion", "complete -o default -F"), ("--install-completion", "installed in")):
        done = subprocess.run(
            ["bash", "--norc", "-c", f"{command} {option}; exit $?"],
            env={**os.environ, "PYTHONPATH": roots, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert wanted in done.stdout
    assert "foldmint" in (tmp_path / ".bashrc").read_text()


def test_commands_and_options_are_completed() -> None:
    done = foldmint(_FOLDMINT_COMPLETE="complete_bash", COMP_WORDS="foldmint to", COMP_CWORD="1")
    assert done.stdout.split() == ["tokenize"]
    done = foldmint(_FOLDMINT_COMPLETE="complete_bash", COMP_WORDS="foldmint tokenize --res", COMP_CWORD="2")
    assert done.stdout.split() == ["--resume"]
