"""The command foldmint-server: help, errors that name what was typed, early checks, and --check-config."""

import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer

from foldmint_server.cli.main import app
from foldmint_server.setting_groups import GROUPS
from foldmint_server.settings import Settings, read_settings
from foldmint_tokenizer.store.model_store import DEFAULT

COMMANDS: tuple[list[str], ...] = ([], ["tokens", "create"], ["tokens", "list"], ["tokens", "revoke"], ["password"])
FREE = [f"--{name}-listen=127.0.0.1:0" for name in ("metrics", "admin")] + ["--listen=127.0.0.1:0"]
# Prints at its end whether torch was loaded.
_WATCHED = """
import sys
from foldmint_server.cli.main import app
try:
    app(sys.argv[1:], prog_name="foldmint-server")
finally:
    print("torch:", "torch" in sys.modules)
"""


def run(*arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout without the line about torch, and stderr; fails if torch was loaded before an error."""
    code, loaded, out, err = watched(*arguments, **environment)
    assert not loaded
    return code, out, err


def watched(*arguments: str | Path, **environment: str) -> tuple[int, bool, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    out, _, loaded = done.stdout.rpartition("torch: ")
    return done.returncode, loaded.strip() == "True", out, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_and_exit_codes(command: list[str]) -> None:
    code, out, _ = run(*command, "-h")
    assert code == 0
    assert out == run(*command, "--help")[1]
    assert f"$ {' '.join(['foldmint-server', *command])}" in out
    assert "Exit codes:" in out


def test_options_are_in_the_groups_of_settings_and_show_their_choices() -> None:
    _, out, _ = run("-h")
    titles = [f"\n{(group.__doc__ or '').rstrip('.')}:\n" for group in GROUPS]
    places = [out.index(title) for title in titles]
    assert places == sorted(places)
    assert "--precision <float32|tf32|bf16>" in out
    assert run("--version")[1].split()[0] == "foldmint"
    group: Any = typer.main.get_command(app)
    assert {parameter.name for parameter in group.params} >= Settings.model_fields.keys()


WRONG = {
    "--nothing": "No such option: --nothing",
    "--precision half": "'--precision': 'half' is not one of",
    "--keep-versions 2": "'--keep-versions': must be greater than or equal to 3",
    "--max-chains many": "'--max-chains': must be an integer\n",
    "--stuck-seconds long": "'--stuck-seconds': must be a number\n",
    "--device cuda:0,abacus": "foldmint-server: --device: 'abacus' is not a device; devices are",
    "--stuck-seconds 0": "foldmint-server: --stuck-seconds: must be greater than 0, not 0.0",
    "--listen nowhere": "foldmint-server: --listen: 'nowhere' is not a HOST:PORT",
    "--anonymous write": "foldmint-server: --anonymous: 'write' does not match",
    "--anonymous read": "foldmint-server: --anonymous goes with --tokens-file",
    "--metrics-tls": "foldmint-server: --metrics-tls needs --tls-server-certificate and --tls-server-key",
    "--config none.toml": "foldmint-server: --config: settings file not found: none.toml",
    "tokens create a --scope all": "'--scope'",
    "tokens nothing": "No such command",
}


@pytest.mark.parametrize("typed", WRONG)
def test_wrong_usage(typed: str) -> None:
    code, _, err = run(*typed.split())
    assert code == 2
    assert WRONG[typed] in err
    for word in ("pydantic", "https://errors", "Input should", "Value error", "Traceback"):
        assert word not in err


def test_settings_of_the_environment_and_of_a_file_are_named_as_they_are_there(tmp_path: Path) -> None:
    file = tmp_path / "foldmint.toml"
    file.write_text('max_chain = 7\nmax_residues = "x"\ncompile = 3\n')
    code, _, err = run("--config", file, FOLDMINT_MAX_DELAY="2", FOLDMINT_THREADS="-1")
    assert code == 2
    assert sorted(err.splitlines()) == [
        "foldmint-server: FOLDMINT_MAX_DELAY: must be less than or equal to 1, not '2'",
        "foldmint-server: FOLDMINT_THREADS: must be greater than or equal to 0, not '-1'",
        f"foldmint-server: compile in {file}: must be true or false, not 3",
        f"foldmint-server: max_chain in {file} is not a setting (did you mean max_chains?)",
        f"foldmint-server: max_residues in {file}: must be an integer, not 'x'",
    ]
    file.write_text("max_chains = \n")
    code, _, err = run("--config", file)
    assert code == 2
    assert err.startswith(f"foldmint-server: --config: {file} is not TOML: ")


MISSING = {
    "--tokens-file": "no.toml",
    "--metrics-auth": "none",
    "--model": "./no/store",
}


@pytest.mark.parametrize("option", MISSING)
def test_a_start_fails_before_torch_is_loaded(option: str) -> None:
    code, _, err = run(option, MISSING[option])
    assert code == 1
    assert err.startswith(f"foldmint-server: {option}: ")
    assert len(err.splitlines()) == 1


def test_what_a_start_lacks_is_named_by_where_it_was_set(tmp_path: Path) -> None:
    file = tmp_path / "foldmint.toml"
    file.write_text('metrics_auth = "none"\n')
    code, _, err = run("--config", file, "--model", "./no/store", FOLDMINT_TOKENS_FILE="no.toml")
    assert code == 1
    named = [line.split(": ")[1] for line in err.splitlines()]
    assert sorted(named) == ["--model", "FOLDMINT_TOKENS_FILE", f"metrics_auth in {file}"]


def test_all_that_is_wrong_with_a_configuration_is_printed(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "store")
    with (tmp_path / "store/encoder.safetensors").open("r+b") as file:
        file.truncate(1000)
    (tmp_path / "cert.pem").write_text("no certificate")
    wrong: list[str | Path] = [
        "--model",
        tmp_path / "store",
        "--tokens-file",
        tmp_path / "none",
        "--metrics-auth",
        tmp_path / "none",
    ]
    wrong += ["--tls-server-certificate", tmp_path / "cert.pem", "--tls-server-key", tmp_path / "cert.pem"]
    wrong += ["--tls-client-ca", tmp_path / "cert.pem", "--metrics-listen", "127.0.0.1:0"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, out, err = watched("--check-config", *wrong, "--listen", address, "--admin-listen", address)
    assert (code, out) == (1, "")
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["foldmint-server", "--tokens-file"],
        ["foldmint-server", "--metrics-auth"],
        ["foldmint-server", "--tls-server-certificate, --tls-server-key"],
        ["foldmint-server", "--tls-client-ca"],
        ["foldmint-server", "--listen"],
        ["foldmint-server", "--admin-listen"],
        ["foldmint-server", "--model"],
    ]


def test_a_configuration_that_can_be_used_is_printed_and_can_be_read_again(tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    pair.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    file = tmp_path / "foldmint.toml"
    file.write_text(
        f'tls_server_certificate = "{tmp_path}/cert.pem"\ntls_server_key = "{tmp_path}/key.pem"\nmax_chains = 7\n'
    )
    environment = {"FOLDMINT_MAX_DELAY": "0.5", "FOLDMINT_MAX_RESIDUE": "5"}
    collector = "http://user:secret@127.0.0.1:4317"
    code, _, out, err = watched("--check-config", "--config", file, "--otlp-endpoint", collector, *FREE, **environment)
    assert (code, err.splitlines()[0]) == (
        0,
        "foldmint-server: warning: unknown environment variable, ignored: FOLDMINT_MAX_RESIDUE "
        "(did you mean FOLDMINT_MAX_RESIDUES?)",
    )
    assert "secret" not in out + err
    assert "PRIVATE KEY" not in out
    values = tomllib.loads(out)
    assert values.keys() | {"model"} == Settings.model_fields.keys()
    assert (values["max_chains"], values["max_delay"], values["otlp_endpoint"]) == (7, 0.5, "http://…@127.0.0.1:4317")
    file.write_text(out)
    assert read_settings({}, file).max_chains == 7
