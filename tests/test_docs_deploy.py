"""What tutorial and how-tos deploy: files of their schema, commands that exist, names that fit together."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml  # type: ignore[import-untyped]

from foldmint_client import Client
from foldmint_maintenance.cli import main as maintenance
from foldmint_server.cli import main
from foldmint_server.settings import Settings
from foldmint_tokenizer.store.model_store import DEFAULT, Store
from helpers.support import ROOT, RunningServer, metrics_of, missing

COMPOSE = ROOT / "deploy/compose.yaml"
SERVER = ROOT / "deploy/kubernetes/server.yaml"
CRONJOB = ROOT / "deploy/kubernetes/cronjob.yaml"
ROLLBACK = ROOT / "deploy/kubernetes/rollback.yaml"
KUBERNETES = "1.33"


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


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """What server.yaml has, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(SERVER.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("path", [SERVER, CRONJOB, ROLLBACK], ids=lambda path: path.stem)
def test_kubernetes_files_are_of_their_schema(path: Path) -> None:
    for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        one["spec"]["nonsense"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_the_rollback_is_a_command_that_exists_and_reaches_the_servers(objects: dict[str, dict[str, Any]]) -> None:
    (job,) = yaml.safe_load_all(ROLLBACK.read_text(encoding="utf-8"))
    pod = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["foldmint-maintenance", "codebooks", "rollback"]
    group: Any = typer.main.get_command(maintenance.app)
    given = group.commands["codebooks"].commands["rollback"].make_context("rollback", container["args"]).params
    service = objects["Service"]["metadata"]["name"]
    names = [f"{objects['StatefulSet']['metadata']['name']}-{number}.{service}:50052" for number in range(2)]
    assert given["servers"].split(",") == names
    (store,) = container["volumeMounts"]
    assert (store["mountPath"], store.get("readOnly", False)) == (given["store"], False)
    (claim,) = pod["spec"]["volumes"]
    assert claim["persistentVolumeClaim"]["claimName"] == objects["PersistentVolumeClaim"]["metadata"]["name"]
    (peer,) = [rule["from"][0] for rule in objects["NetworkPolicy"]["spec"]["ingress"] if "from" in rule]
    assert peer["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    # A second try would go back twice.
    assert job["spec"]["backoffLimit"] == 0


def _pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = objects["StatefulSet"]["spec"]["template"]["spec"]
    return pod


def test_the_servers_are_started_by_options_that_exist(objects: dict[str, dict[str, Any]]) -> None:
    (server,) = _pod(objects)["containers"]
    command: Any = typer.main.get_command(main.app)
    given = {name: value for name, value in command.make_context("server", server["args"]).params.items() if value}
    settings = Settings(**given)
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    for name, address in (
        ("grpc", settings.listen),
        ("metrics", settings.metrics_listen),
        ("admin", settings.admin_listen),
    ):
        assert address == f"0.0.0.0:{ports[name]}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["grpc"]["port"] == ports["grpc"]
    assert _pod(objects)["terminationGracePeriodSeconds"] > settings.drain_seconds
    assert settings.model == "/store"
    mounts = {mount["name"]: mount for mount in server["volumeMounts"]}
    assert mounts["store"]["readOnly"] is True
    assert mounts.keys() == {volume["name"] for volume in _pod(objects)["volumes"]}


def test_names_and_labels_fit_together(objects: dict[str, dict[str, Any]]) -> None:
    servers, service = objects["StatefulSet"], objects["Service"]
    labels = servers["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == servers["spec"]["selector"]["matchLabels"]
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert servers["spec"]["serviceName"] == service["metadata"]["name"]
    names = {port["name"] for port in _pod(objects)["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names
    open_to_all, to_the_repair = policy["ingress"]
    assert {port["port"] for port in open_to_all["ports"]} == {"grpc", "metrics"}
    cronjob = yaml.safe_load(CRONJOB.read_text(encoding="utf-8"))
    job = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    (allowed,) = to_the_repair["from"]
    assert allowed["podSelector"]["matchLabels"] == job["metadata"]["labels"]
    assert to_the_repair["ports"] == [{"port": "admin"}]
    (repair,) = job["spec"]["containers"]
    (activated,) = [part.partition("=")[2] for part in repair["args"] if part.startswith("--activate=")]
    own = servers["metadata"]["name"]
    assert activated.split(",") == [f"{own}-{number}.{own}:50052" for number in range(servers["spec"]["replicas"])]
    assert repair["image"] == _pod(objects)["containers"][0]["image"] == _pod(objects)["initContainers"][0]["image"]
    claims = {
        one["persistentVolumeClaim"]["claimName"]
        for one in job["spec"]["volumes"]
        if len(one) > 1 and one["name"] == "store"
    }
    assert claims == {objects["PersistentVolumeClaim"]["metadata"]["name"]}


def test_a_client_takes_one_address_or_all_in_turn(
    server: RunningServer, decoding_server: RunningServer, data: Path
) -> None:
    servers = (server, decoding_server)
    count = 'foldmint_requests_total{method="Tokenize",status="OK"}'
    page = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    (in_turn,) = re.findall(r"channel_options=(\[.*?\])\)", page)
    for options, idle in (((), 1), (ast.literal_eval(in_turn), 0)):
        before = [metrics_of(one)[count] for one in servers]
        with Client(f"ipv4:{server.address},{decoding_server.address}", channel_options=options) as client:
            for _ in range(20):
                client.tokenize(data / "1a8o.pdb")
        calls = [metrics_of(one)[count] - was for one, was in zip(servers, before, strict=True)]
        assert sum(calls) == 20
        assert calls.count(0) == idle


def test_the_servers_have_no_rights(objects: dict[str, dict[str, Any]]) -> None:
    pod = _pod(objects)
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod["initContainers"]):
        own = container["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.slow
def test_an_empty_store_gets_the_embedded_model_once(objects: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    (container,) = _pod(objects)["initContainers"]
    (script,) = container["args"]
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    store = tmp_path / "store"
    store.mkdir()
    (store / "codebooks").mkdir()  # what a pod left that was killed at it
    command = [*container["command"], script.replace("/store", str(store)).replace("python -c", f"{sys.executable} -c")]
    subprocess.run(command, check=True)
    assert Store(store).load().codebook.version == "000001"
    assert Store(store).load().encoder_digest == Store(DEFAULT).load().encoder_digest
    (store / "ACTIVE").write_text("000002\n")
    subprocess.run(command, check=True)
    assert (store / "ACTIVE").read_text() == "000002\n"
