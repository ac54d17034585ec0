"""What tutorial and how-tos deploy: files of their schema, commands that exist, names that fit together."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from foldmint_client import Client
from foldmint_client.connection import Balance
from helpers.support import ROOT, RunningServer, metrics_of, missing

COMPOSE = ROOT / "deploy/compose.yaml"


def _compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return read


def _checked(path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_compose_file_is_of_its_schema(tmp_path: Path) -> None:
    done = _checked(COMPOSE)
    assert done.returncode == 0, done.stdout
    wrong = _compose()
    wrong["services"]["server"]["prots"] = []
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    assert _checked(tmp_path / "wrong.yaml").returncode == 1


def test_docker_takes_the_compose_file() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("docker compose is not installed; CI's machines have none")
    done = subprocess.run(
        ["docker", "compose", "--file", str(COMPOSE), "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_compose_file_mounts_is_there() -> None:
    services = _compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), volume
                assert mode == ["ro"], f"{target} is written to"
            else:
                assert source in _compose()["volumes"]
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{port} is open to others"
    assert (COMPOSE.parent / services["server"]["build"]["context"] / "Dockerfile").is_file()


def test_the_prometheus_of_the_compose_file_takes_what_is_mounted(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        missing("promtool", "`apt-get install prometheus` installs it")
    service = _compose()["services"]["prometheus"]
    (config,) = [part.partition("=")[2] for part in service["command"] if part.startswith("--config.file=")]
    _laid_out(service, tmp_path)
    command = ["promtool", "check", "config", str(tmp_path / config.lstrip("/"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = (tmp_path / config.lstrip("/")).parent
    rules = {path.name for path in (ROOT / "deploy/prometheus/rules").iterdir()}
    assert {path.name for path in (folder / "rules").iterdir()} == rules - {"repair.yml"}
    read = yaml.safe_load((folder / "prometheus.yml").read_text())
    (files,) = [job["file_sd_configs"][0]["files"] for job in read["scrape_configs"] if job["job_name"] == "foldmint"]
    (targets,) = yaml.safe_load((folder / files[0]).read_text())
    # The service's name, and the port as the Dockerfile has it.
    assert targets == {"targets": ["server:9464"]}
    assert "server" in _compose()["services"]
    assert "FOLDMINT_METRICS_LISTEN=0.0.0.0:9464" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _laid_out(service: dict[str, Any], folder: Path) -> None:
    """Put what a service mounts from here where its container would have it, below a folder."""
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            at = folder / target.lstrip("/")
            at.parent.mkdir(parents=True, exist_ok=True)
            at.symlink_to(COMPOSE.parent / source)


def test_the_grafana_of_the_compose_file_finds_data_and_dashboard(tmp_path: Path) -> None:
    service = _compose()["services"]["grafana"]
    _laid_out(service, tmp_path)
    (source,) = yaml.safe_load((tmp_path / "etc/grafana/provisioning/datasources/foldmint.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in _compose()["services"]
    (provider,) = yaml.safe_load((tmp_path / "etc/grafana/provisioning/dashboards/foldmint.yaml").read_text())[
        "providers"
    ]
    (dashboard,) = (tmp_path / provider["options"]["path"].lstrip("/")).glob("*.json")
    assert json.loads(dashboard.read_text())["title"] == "Foldmint"
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert tmp_path / home.lstrip("/") == dashboard


@pytest.mark.parametrize(("balance", "idle"), [("pick_first", 1), ("round_robin", 0)])
def test_a_client_takes_one_address_or_all_in_turn(
    server: RunningServer, decoding_server: RunningServer, data: Path, balance: Balance, idle: int
) -> None:
    servers = (server, decoding_server)
    count = 'foldmint_requests_total{method="Tokenize",status="OK"}'
    before = [metrics_of(one)[count] for one in servers]
    with Client(f"{server.address},{decoding_server.address}", balance=balance) as client:
        for _ in range(20):
            client.tokenize(data / "1a8o.pdb")
    calls = [metrics_of(one)[count] - was for one, was in zip(servers, before, strict=True)]
    assert sum(calls) == 20
    assert calls.count(0) == idle
