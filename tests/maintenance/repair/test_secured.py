"""Maintenance of servers that want a token and speak TLS, with a Prometheus that wants a password."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner, Result

from foldmint_client import FoldmintError, Tls, Unauthenticated
from foldmint_client.connection import ConnectionOptions
from foldmint_maintenance.cli import main
from foldmint_maintenance.errors import ActivationFailed, UsageUnknown
from foldmint_maintenance.repair import rollout
from foldmint_maintenance.repair.canary import canary_of
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.repair.inputs import prepare_inputs
from foldmint_maintenance.usage.prometheus_api import Prometheus, read_entry
from foldmint_server.security.bearer_tokens import AccessToken, digest_of, format_tokens
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store, load_model
from helpers.distributed.distributed_repair import CONFIG
from helpers.monitoring.real_prometheus import free_port, prometheus
from helpers.support import RunningServer, running_server

TOKEN = "of-the-repair"  # noqa: S105
CA = trustme.CA()
# Of `pass:word`, by bcrypt, as Prometheus has it.
HASH = "$2b$04$dNkLT55TB9tK.FiV9qrvvOz0D2j/h3E5UNPD6FAoIw7SJsIwMu6p."


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a certificate of localhost, and its key."""
    folder = tmp_path_factory.mktemp("pem")
    own = CA.issue_cert("localhost", "127.0.0.1")
    CA.cert_pem.write_to_path(str(folder / "ca.pem"))
    own.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    own.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder


@pytest.fixture
def guarded(harmed: Path, pem: Path, tmp_path: Path) -> Iterator[RunningServer]:
    scopes = frozenset({"tokenize", "read", "admin"})
    (tmp_path / "tokens").write_text(format_tokens([AccessToken("repair", digest_of(TOKEN), scopes)]))  # type: ignore[arg-type]
    arguments = ["--model", str(harmed), "--poll-seconds", "0", "--reservoir", "500", "--threads", "1"]
    arguments += ["--tls-server-certificate", str(pem / "certificate.pem"), "--tls-server-key", str(pem / "key.pem")]
    arguments += ["--tokens-file", str(tmp_path / "tokens"), "--no-insecure-admin"]
    with running_server(*arguments) as running:
        yield running


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main.app, [str(one) for one in arguments])


def _quiet(_: str) -> None:
    pass


def test_servers_that_want_a_token_and_speak_tls(
    guarded: RunningServer, harmed: Path, pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: ConnectionOptions = {"tls": Tls(pem / "ca.pem"), "token": TOKEN}
    stranger: ConnectionOptions = {"tls": Tls(pem / "ca.pem")}
    canary = canary_of(load_model(harmed), Store(harmed).codebook("000001"))
    store = Store(harmed)
    with StoreLock(store.files) as lock:
        with pytest.raises(ActivationFailed, match=r"needs a token.*all servers are back"):
            rollout.activate(store, lock, [guarded.admin], "000001", canary, _quiet, **stranger)
        (swapped,) = rollout.activate(store, lock, [guarded.admin], "000001", canary, _quiet, **known)
        assert swapped.previous == "000002"
        monkeypatch.setenv("FOLDMINT_TOKEN", TOKEN)
        (swapped,) = rollout.activate(store, lock, [guarded.admin], "000002", None, _quiet, **stranger)
        assert swapped.previous == "000001"
        monkeypatch.delenv("FOLDMINT_TOKEN")

    model, job = load_model(harmed), RepairJob(str(harmed), CONFIG, servers=(guarded.admin,), connection=known)
    assert prepare_inputs(model, job, _quiet).about["servers"] == 1  # the canary's vectors
    with pytest.raises(Unauthenticated):
        prepare_inputs(model, RepairJob(str(harmed), CONFIG, servers=(guarded.admin,), connection=stranger), _quiet)
    with pytest.raises(FoldmintError):
        prepare_inputs(model, RepairJob(str(harmed), CONFIG, servers=(guarded.admin,)), _quiet)

    asked = ("--tls-ca", pem / "ca.pem", "--token-file", pem / "token")
    result = run("usage", "--servers", guarded.admin, "--json-file", tmp_path / "usage.json", *asked)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "usage.json").read_text())["version"] == "000002"
    result = run("repair", "--store", harmed, "--from-servers", guarded.admin, "--dry-run", *asked)
    assert result.exit_code == 0, result.output
    result = run("repair", "--store", harmed, "--from-servers", guarded.admin, "--dry-run")
    assert result.exit_code == 1
    assert TOKEN not in result.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--activate", "example.org:1", "--token-file", "token"], "in the clear"),
        (["--activate", "example.org:1", "--token-file", "absent"], "No such file"),
        (["--activate", "example.org:1", "--tls-ca", "absent"], "No such file"),
        (["--activate", "example.org:1", "--tls-key", "token"], "go together"),
        (["--prometheus", "http://example.org", "--prometheus-auth", "login"], "in the clear"),
        (["--prometheus", "http://localhost", "--prometheus-ca", "ca.pem"], "use https"),
        (["--prometheus", "https://localhost", "--prometheus-ca", "token"], "token: "),
        (["--prometheus", "https://localhost", "--prometheus-auth", "token"], "one line, NAME:PASSWORD"),
        (["--prometheus", "https://localhost", "--prometheus-auth", "absent"], "No such file"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], reason: str, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pem)
    Path("login").write_text("ann:pass:word\n")
    result = run("repair", "--store", "store", "--data", "data", *arguments)
    assert result.exit_code == 2, result.output
    assert reason in " ".join(result.stderr.replace("│", " ").split())
    assert TOKEN not in result.output
    assert "pass:word" not in result.output


def test_a_prometheus_with_a_password_and_a_certificate_of_our_own(pem: Path, tmp_path: Path) -> None:
    for name in ("certificate.pem", "key.pem"):
        shutil.copy(pem / name, tmp_path)
    tls = {"cert_file": "certificate.pem", "key_file": "key.pem"}
    (tmp_path / "web.yml").write_text(json.dumps({"tls_server_config": tls, "basic_auth_users": {"ann": HASH}}))
    (tmp_path / "login").write_text("ann:pass:word\n")
    (tmp_path / "wrong").write_text("ann:other\n")
    with prometheus(f"127.0.0.1:{free_port()}", tmp_path, web=tmp_path / "web.yml") as address:
        url = f"https://{address}"
        known = Prometheus(url, entry=read_entry(tmp_path / "login", pem / "ca.pem"))
        until = time.monotonic() + 60
        while True:
            try:
                assert known.now() == pytest.approx(time.time(), abs=60)
                break
            except UsageUnknown:
                assert time.monotonic() < until
                time.sleep(0.1)
        with pytest.raises(UsageUnknown, match="401"):
            Prometheus(url, entry=read_entry(tmp_path / "wrong", pem / "ca.pem")).now()
        with pytest.raises(UsageUnknown, match="401"):
            Prometheus(url, entry=read_entry(None, pem / "ca.pem")).now()
        with pytest.raises(UsageUnknown, match="CERTIFICATE_VERIFY_FAILED"):
            Prometheus(url, entry=read_entry(tmp_path / "login", None)).now()
        options: list[Any] = ["--prometheus-auth", tmp_path / "login", "--prometheus-ca", pem / "ca.pem"]
        result = run("usage", "--prometheus", url, "--window", "1h", *options)
        assert result.exit_code == 1
        assert "holds no foldmint_codebook_activated" in result.stderr
    assert "pass:word" not in repr(known.__dict__)
