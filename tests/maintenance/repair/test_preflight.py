"""What a repair finds out before it begins, and what it writes however it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest
import s3fs
from typer.testing import CliRunner

from foldmint_client.admin import CodebookAdmin
from foldmint_maintenance.cli import main
from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_maintenance.repair import preflight
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_server.security.bearer_tokens import AccessToken, Scope, digest_of, format_tokens
from foldmint_tokenizer.store.model_store import Store
from helpers.distributed.distributed_repair import CONFIG, LIMITS
from helpers.monitoring.real_prometheus import free_port
from helpers.support import RunningServer, running_server

QUICK = ("--row-steps", "3", "--residues", "1000", "--rounds", "2", "--threads", "1", "--max-churn", "1", "--force")


def _run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, ["repair", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def _json(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def test_all_problems_are_told_at_once_and_nothing_is_made(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    wanted = tmp_path / "stroe"
    status, _, err = _run(
        *("--store", wanted, "--data", tmp_path / "absent.parquet", "--activate", nobody),
        *("--prometheus", f"http://{nobody}", "--json-file", tmp_path / "new" / "told.json"),
        *("--report", tmp_path / "told.html", "--metrics-file", tmp_path / "job.prom"),
    )
    assert status == 1
    assert "the repair was not begun, 4 problems found" in err
    told = _json(tmp_path / "new" / "told.json")
    for place in ("--store: ", "--data: there is no ", f"--activate: {nobody} cannot be asked", "--prometheus: "):
        assert place in err
        assert any(problem.startswith(place.strip()) for problem in told["problems"]), place
    assert not wanted.exists()
    # A report, though nothing was done.
    assert (told["outcome"], told["published"], told["dead"], told["store"]) == ("error", False, None, str(wanted))
    assert told["started"] <= told["finished"]
    page = (tmp_path / "told.html").read_text()
    assert "<h2>Problems</h2>" in page
    assert "It ended with an error." in page
    assert re.search(r'outcome="error",store="[^"]+"} 1.0', (tmp_path / "job.prom").read_text())


@pytest.mark.parametrize("scopes", [("tokenize", "read"), ("tokenize", "admin"), ("read", "admin")])
def test_a_token_that_may_not_swap_is_told_before_the_work(
    scopes: tuple[Scope, ...], harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path
) -> None:
    """Each run used to end with 5, leaving a version behind."""
    (tmp_path / "tokens").write_text(format_tokens([AccessToken("repair", digest_of("of-repair"), frozenset(scopes))]))
    (tmp_path / "token").write_text("of-repair\n")
    arguments = ("--model", str(harmed), "--threads", "1", "--tokens-file", str(tmp_path / "tokens"))
    with running_server(*arguments, "--no-insecure-admin") as server:
        asked = ("--store", harmed, "--data", parquet, "--gate-data", gate_data, "--activate", server.admin, *QUICK)
        known = (*asked, "--token-file", tmp_path / "token")
        for more in ((), ("--dry-run",)):
            status, _, err = _run(*known, *more)
            if scopes == ("tokenize", "admin"):  # admin may read
                assert status == 0, err
                continue
            assert status == 1
            assert "does not let this job" in err
            assert "give the token the scopes tokenize, read and admin" in err
        status, _, err = _run(*asked, "--dry-run")
        assert (status, "send a token of the scopes tokenize, read and admin (--token-file)" in err) == (1, True)
    versions = ["000001", "000002", *(["000003"] if scopes == ("tokenize", "admin") else [])]
    assert Store(harmed).versions() == versions


def test_a_server_of_another_store_is_told(
    harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path, server: RunningServer
) -> None:
    other = tmp_path / "other"
    shutil.copytree(harmed, other)
    Store(harmed).publish(Store(harmed).codebook().codebook, parent="000002", about={})
    with running_server("--model", str(other), "--threads", "1") as copied:
        status, _, err = _run(
            *("--store", harmed, "--data", parquet, "--gate-data", gate_data, "--dry-run", "--force"),
            *("--activate", f"{copied.admin},{server.admin}"),
        )
    assert status == 1
    assert f"{copied.admin} does not follow {harmed}: it does not know codebook 000003" in err
    assert f"{server.admin} serves another encoder" in err
    assert "2 problems found" in err


def test_servers_that_keep_no_vectors_are_told(harmed: Path) -> None:
    with running_server("--model", str(harmed), "--threads", "1") as server:
        status, _, err = _run("--store", harmed, "--from-servers", server.admin, "--dry-run")
    assert (status, "start it with --reservoir N, or use --data" in err) == (1, True)


def test_data_that_are_too_few_are_told(harmed: Path, parquet: Path, gate_data: Path, records: list[Record]) -> None:
    job = RepairJob(str(harmed), RepairConfig(), parquet, gate_data=gate_data)
    (problem,) = preflight.preflight(job).problems
    assert str(problem).startswith("--gate-data: the gates' data are 6 chains with 255 residues")
    assert "--force" in problem.remedy
    (problem,) = preflight.preflight(RepairJob(str(harmed), RepairConfig(), parquet)).problems
    assert problem.what.startswith("--data: the gates' data are")
    assert preflight.preflight(RepairJob(str(harmed), RepairConfig(force=True), parquet)).problems == []
    assert preflight.preflight(RepairJob(str(harmed), CONFIG, parquet, gate_data=gate_data)).problems == []
    # As much is kept for the gates as they need, of a set that has it.
    many = [
        Record(f"{n:03d}_A", one.sequence, one.residue_index, one.coordinates) for n in range(20) for one in records
    ]
    write_parquet(many, parquet)
    needs = RepairConfig(min_gate_chains=50, min_gate_residues=1000, gate_share=0.05, limits=LIMITS)
    assert preflight.preflight(RepairJob(str(harmed), needs, parquet)).problems == []


def test_a_disk_that_is_full_is_told(
    harmed: Path, parquet: Path, gate_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shutil.disk_usage(harmed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: whole._replace(free=2**20))
    (problem,) = preflight.preflight(RepairJob(str(harmed), CONFIG, parquet, gate_data=gate_data)).problems
    assert "1 MiB are free" in problem.what


def test_files_that_cannot_be_written_are_told_first(harmed: Path, parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = _run(
        *("--store", harmed, "--data", parquet, "--force", "--dry-run"),
        *("--report", tmp_path / "file" / "x.html", "--metrics-file", "/proc/nowhere/x.prom"),
    )
    assert status == 1
    assert f"--report: {tmp_path / 'file' / 'x.html'} cannot be written" in err
    assert "1 problem found" in err, "the metrics' file is not needed"


def test_a_dry_run_proves_that_a_bucket_can_be_written(
    harmed: Path, parquet: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an object that is gone afterwards; who may only read is told so before the work."""
    s3 = s3fs.S3FileSystem()
    s3.put(f"{harmed}/", f"{bucket}/store/", recursive=True)
    before = s3.find(f"{bucket}/store")
    asked = ("--store", f"{bucket}/store", "--data", parquet, "--dry-run", "--force", "--threads", "1")
    status, _, err = _run(*asked)
    assert status == 0, err
    assert s3.find(f"{bucket}/store") == before

    key = _reader(os.environ["AWS_ENDPOINT_URL"])
    with _permissions_enforced(os.environ["AWS_ENDPOINT_URL"]):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
        s3fs.S3FileSystem.clear_instance_cache()
        status, _, err = _run(*asked)
    s3fs.S3FileSystem.clear_instance_cache()
    assert status == 1
    assert f"--store: {bucket}/store cannot be written: " in err
    assert "the repair was not begun, 1 problem found" in err


def _reader(endpoint: str) -> tuple[str, str]:
    """Key and secret of a user who may read and list all buckets."""
    iam = botocore.session.get_session().create_client("iam", endpoint_url=endpoint)
    iam.create_user(UserName="reader")
    allowed = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*", "s3:Head*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


@contextmanager
def _permissions_enforced(endpoint: str) -> Iterator[None]:
    """moto lets everything pass until it is told how many calls are exempt."""
    host = endpoint.removeprefix("http://")

    def exempt(calls: str) -> None:
        with closing(HTTPConnection(host, timeout=30)) as connection:
            connection.request("POST", "/moto-api/reset-auth", calls, {"Content-Type": "text/plain"})
            assert connection.getresponse().status == 200

    exempt("0")
    try:
        yield
    finally:
        exempt("inf")


def test_a_dry_run_says_would(harmed: Path, parquet: Path, gate_data: Path) -> None:
    asked = ("--store", harmed, "--data", parquet, "--gate-data", gate_data, *QUICK)
    status, out, err = _run(*asked, "--dry-run")
    assert status == 0, err
    assert "3 codes dead, 3 would be replaced; nothing was published" in out
    status, out, _ = _run(*asked)
    assert (status, "3 codes dead, 3 replaced; published codebook 000003" in out) == (0, True)


def test_json_goes_to_standard_output(
    harmed: Path, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = _run("--store", harmed, "--data", parquet, "--dry-run", "--force", "--json")
    assert (status, json.loads(out)["dead"]) == (0, 3)
    assert "3 codes dead" in err
    assert not (tmp_path / "-").exists()


def test_a_swap_that_fails_is_reported_server_by_server(
    harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path
) -> None:
    """With exit code 5 there was no report, though the runbook sends people there."""
    copied = tmp_path / "copied"
    shutil.copytree(harmed, copied)
    arguments = ("--threads", "1", "--poll-seconds", "0", "--model")
    with (
        running_server(*arguments, str(harmed)) as first,
        running_server(*arguments, str(copied)) as second,  # of the same versions, but it will not see the new one
        running_server(*arguments, str(harmed)) as third,
    ):
        status, _, err = _run(
            *("--store", harmed, "--data", parquet, "--gate-data", gate_data, *QUICK),
            *("--activate", ",".join((first.admin, second.admin, third.admin))),
            *("--json-file", tmp_path / "told.json", "--report", tmp_path / "told.html"),
            *("--metrics-file", tmp_path / "job.prom"),
        )
        assert status == 5, err
        for server in (first, second, third):
            with CodebookAdmin(server.admin) as admin:
                assert admin.codebook().version == "000002"
    told = _json(tmp_path / "told.json")
    assert (told["outcome"], told["published"], told["activated"]) == ("not_activated", True, False)
    assert (told["dead"], told["version"], told["parent"]) == (3, "000003", "000002")
    outcomes = {one["address"]: (one["outcome"], one["version"], one["previous"]) for one in told["servers"]}
    assert outcomes[first.admin] == ("brought back", "000003", "000002")
    assert outcomes[second.admin][:2] == ("failed", "000003")
    assert outcomes[third.admin][:2] == ("not asked", "000003")
    assert second.admin in told["error"]
    assert all(gate["meaning"] for gate in told["gates"].values())
    page = (tmp_path / "told.html").read_text()
    for text in ("<h2>Servers</h2>", "brought back", "<h2>Gates</h2>", "mean squared distance", "Begun 20"):
        assert text in page
    metrics = (tmp_path / "job.prom").read_text()
    assert re.search(r'outcome="not_activated",store="[^"]+"} 1.0', metrics)
    assert 'version="000002"} 1.0' in metrics, "the one that is in use"


def test_a_stop_is_reported(harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "foldmint_maintenance.cli", "repair", "--store", str(harmed), *QUICK]
    command += ["--data", str(parquet), "--gate-data", str(gate_data), "--json-file", str(tmp_path / "told.json")]
    command += ["--row-steps", "100000", "--report", str(tmp_path / "told.html")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("retraining"):
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    told = _json(tmp_path / "told.json")
    assert (told["outcome"], told["dead"], told["published"]) == ("stopped", 3, False)
    assert "SIGTERM" in told["error"]
    assert "It was stopped" in (tmp_path / "told.html").read_text()


def test_a_gate_that_fails_is_reported(harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path) -> None:
    asked = ("--store", harmed, "--data", parquet, "--gate-data", gate_data, *QUICK)
    status, _, _ = _run(
        *asked, "--max-churn", "0", "--json-file", tmp_path / "told.json", "--report", tmp_path / "told.html"
    )
    assert status == 3
    told = _json(tmp_path / "told.json")
    assert (told["outcome"], told["error"], told["gates"]["churn"]["passed"]) == ("gate_failed", "", False)
    assert "A gate failed" in (tmp_path / "told.html").read_text()
