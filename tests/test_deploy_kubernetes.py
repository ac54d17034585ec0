"""The manifests for Kubernetes: as kubectl renders them, of their schema, with options and names that exist."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml  # type: ignore[import-untyped]

from foldmint_maintenance.cli import main as maintenance
from foldmint_server.cli import main
from foldmint_server.settings import Settings
from foldmint_tokenizer.store.model_store import DEFAULT, Store
from helpers.kustomize import KUBERNETES, container_of, kubectl, named, offered, pod_of, rendered
from helpers.support import ROOT

VERSION = "1.33"
# Schemas of other projects' objects are not at hand; the tests below look at what these say.
CUSTOM = {"PodMonitor", "ScaledObject"}
SETS = [(), *((one,) for one in offered()), ("gpu", "podmonitor", "hpa", "repair"), ("gpu", "keda", "repair")]
PAGE = ROOT / "docs/kubernetes.md"


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """The base with the repair."""
    return rendered("repair")


def test_components_are_offered_and_explained() -> None:
    assert set(offered()) == {path.name for path in (KUBERNETES / "components").iterdir()}
    page = PAGE.read_text(encoding="utf-8")
    assert [one for one in offered() if f"`{one}`" not in page] == []


@pytest.mark.parametrize("components", SETS, ids=lambda one: "+".join(one) or "base")
def test_what_is_rendered_is_of_its_schema_and_fits_together(components: tuple[str, ...]) -> None:
    objects = rendered(*components)
    for one in objects:
        if one["kind"] in CUSTOM:
            continue
        kubernetes_validate.validate(one, VERSION, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**one, "spec": {**one["spec"], "nonsense": 1}}, VERSION, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    servers = named(objects, "StatefulSet")
    # An autoscaler's number is not set back by each apply.
    scaled = [one for one in objects if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert ("replicas" in servers["spec"]) == (not scaled)
    for one in scaled:
        assert one["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "foldmint"}
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in _claims(objects)} - {"foldmint-data"}
    assert claims == {named(objects, "PersistentVolumeClaim", "foldmint-store")["metadata"]["name"]}


def _claims(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pods = [pod_of(one) for one in objects if one["kind"] in ("StatefulSet", "CronJob")]
    return [volume for pod in pods for volume in pod["volumes"] if "persistentVolumeClaim" in volume]


@pytest.mark.parametrize("components", SETS, ids=lambda one: "+".join(one) or "base")
def test_the_servers_are_started_by_options_that_exist(components: tuple[str, ...]) -> None:
    servers = named(rendered(*components), "StatefulSet")
    server = container_of(servers)
    settings = _settings(server)
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    for name, address in (
        ("grpc", settings.listen),
        ("metrics", settings.metrics_listen),
        ("admin", settings.admin_listen),
    ):
        assert address == f"0.0.0.0:{ports[name]}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["grpc"]["port"] == ports["grpc"]
    assert pod_of(servers)["terminationGracePeriodSeconds"] > settings.drain_seconds
    # Callers find servers that were added, and their streams do not end all the time.
    assert 10 * settings.drain_seconds < settings.max_connection_age_seconds <= 3600
    assert settings.device == ("cuda" if "gpu" in components else "auto")
    assert settings.model == "/store"
    mounts = {mount["name"]: mount for mount in server["volumeMounts"]}
    assert mounts["store"]["readOnly"] is True
    assert mounts.keys() == {volume["name"] for volume in pod_of(servers)["volumes"]}


def _settings(server: dict[str, Any]) -> Settings:
    """What a server's arguments and variables say."""
    command: Any = typer.main.get_command(main.app)
    given = {name: value for name, value in command.make_context("server", server["args"]).params.items() if value}
    variables = {one["name"]: one["value"] for one in server["env"]}
    # The one folder that the server may write to.
    assert variables.pop("NUMBA_CACHE_DIR").startswith("/tmp/")  # noqa: S108
    variables = {name.removeprefix("FOLDMINT_").lower(): value for name, value in variables.items()}
    assert not given.keys() & variables.keys()
    return Settings(**given, **variables)


def test_each_server_has_a_gpu_and_the_image_for_it() -> None:
    objects = rendered("gpu", "repair")
    servers = named(objects, "StatefulSet")
    resources = container_of(servers)["resources"]
    assert (resources["requests"]["nvidia.com/gpu"], resources["limits"]["nvidia.com/gpu"]) == ("1", "1")
    assert (resources["requests"]["cpu"], resources["limits"]["memory"]) == ("4", "8Gi")
    images = {container_of(servers, kind)["image"] for kind in ("containers", "initContainers")}
    assert images == {"foldmint-cuda:0.1.0"}
    assert container_of(named(objects, "CronJob", "foldmint-repair"))["image"] == "foldmint:0.1.0"
    page = PAGE.read_text(encoding="utf-8")
    assert "docker build --tag foldmint-cuda:0.1.0 --build-arg TORCH_BUILD=cu130 ." in page


def test_one_line_names_the_image_of_another_registry() -> None:
    for components in ((), ("repair",), ("gpu", "repair")):
        for one in rendered(*components, images="newName: registry.example.org/ours"):
            if one["kind"] in ("StatefulSet", "CronJob"):
                for container in (*pod_of(one)["containers"], *pod_of(one).get("initContainers", ())):
                    assert container["image"] == "registry.example.org/ours:0.1.0"


def test_names_and_labels_fit_together(objects: list[dict[str, Any]]) -> None:
    servers, service = named(objects, "StatefulSet"), named(objects, "Service")
    labels = servers["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == servers["spec"]["selector"]["matchLabels"]
    assert named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    policy = named(objects, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert servers["spec"]["serviceName"] == service["metadata"]["name"]
    names = {port["name"] for port in container_of(servers)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names
    open_to_all, to_the_jobs = policy["ingress"]
    assert {port["port"] for port in open_to_all["ports"]} == {"grpc", "metrics"}
    (allowed,) = to_the_jobs["from"]
    assert to_the_jobs["ports"] == [{"port": "admin"}]
    own = servers["metadata"]["name"]
    addresses = [f"{own}-{number}.{own}:50052" for number in range(servers["spec"]["replicas"])]
    for name, option in (("foldmint-repair", "--activate="), ("foldmint-rollback", "--servers=")):
        job = named(objects, "CronJob", name)
        pods = job["spec"]["jobTemplate"]["spec"]["template"]
        assert allowed["podSelector"]["matchLabels"] == pods["metadata"]["labels"]
        (given,) = [part.partition("=")[2] for part in container_of(job)["args"] if part.startswith(option)]
        assert given.split(",") == addresses
        # The servers only read the store; jobs change it.
        (mount,) = [one for one in container_of(job)["volumeMounts"] if one["name"] == "store"]
        assert (mount["mountPath"], mount.get("readOnly", False)) == ("/store", False)


def test_autoscalers_follow_the_queue_and_keep_the_servers_that_the_repair_asks() -> None:
    (autoscaler,) = [one["spec"] for one in rendered("hpa") if one["kind"] == "HorizontalPodAutoscaler"]
    (scaled,) = [one["spec"] for one in rendered("keda") if one["kind"] == "ScaledObject"]
    repaired = named(rendered("repair"), "StatefulSet")["spec"]["replicas"]
    assert autoscaler["minReplicas"] == scaled["minReplicaCount"] == repaired
    assert autoscaler["maxReplicas"] == scaled["maxReplicaCount"] > repaired
    (pods,) = (one["pods"] for one in autoscaler["metrics"] if one["type"] == "Pods")
    (trigger,) = scaled["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
    assert trigger["metadata"]["query"] == f'sum({pods["metric"]["name"]}{{job="foldmint"}})'
    assert pods["metric"]["name"] in json.loads((ROOT / "tests/data/public-names.json").read_text())["metrics"]
    assert pods["target"] == {"type": "AverageValue", "averageValue": trigger["metadata"]["threshold"]}
    behavior = autoscaler["behavior"]
    assert scaled["advanced"] == {"horizontalPodAutoscalerConfig": {"behavior": behavior}}
    # The queue that asks for servers is well below the one that is full, and callers spread before one is taken away.
    settings = _settings(container_of(named(rendered(), "StatefulSet")))
    assert int(trigger["metadata"]["threshold"]) < settings.max_queued_residues / 4
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] > settings.max_connection_age_seconds
    # What prometheus-adapter must be told is in the page.
    rules = [yaml.safe_load(block) for block in re.findall(r"(?s)```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"))]
    (rule,) = [one for block in rules for one in block["rules"]["custom"]]
    assert rule["seriesQuery"].startswith(f"{pods['metric']['name']}{{")


def test_the_pod_monitor_finds_the_servers_as_one_job() -> None:
    objects = rendered("podmonitor")
    spec, servers = named(objects, "PodMonitor")["spec"], named(objects, "StatefulSet")
    labels = servers["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container_of(servers)["ports"]}
    # The job of the rules, of the repair and of KEDA's query; scraped as often as the rules need.
    assert labels[spec["jobLabel"]] == "foldmint"
    usual = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert endpoint["interval"] == usual


def test_the_repair_is_one_run_at_a_time_and_bounded(objects: list[dict[str, Any]]) -> None:
    cronjob = named(objects, "CronJob", "foldmint-repair")
    spec, job, container = cronjob["spec"], cronjob["spec"]["jobTemplate"]["spec"], container_of(cronjob)
    assert container["command"] == ["foldmint-maintenance", "repair"]
    parsed = _parsed(["repair"], container["args"])
    assert (parsed["store"], str(parsed["data"]), parsed["selector"]) == (
        "/store",
        "/data/train.parquet",
        'job="foldmint"',
    )
    assert all(parsed[name] for name in ("prometheus", "activate", "pushgateway", "gate_data", "threads"))
    assert {"/store", "/data", "/tmp"} == {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108
    assert spec["concurrencyPolicy"] == "Forbid"
    assert len(spec["schedule"].split()) == 5
    assert min(spec["startingDeadlineSeconds"], job["activeDeadlineSeconds"], job["backoffLimit"]) > 0
    assert pod_of(cronjob)["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    by_codes = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [(rule["containerName"], rule["values"]) for rule in by_codes] == [(container["name"], [2, 3, 4, 5])]


def _parsed(command: list[str], arguments: list[str]) -> dict[str, Any]:
    """What the real command line makes of arguments of `foldmint-maintenance COMMAND`."""
    group: Any = typer.main.get_command(maintenance.app)
    for name in command:
        group = group.commands[name]
    parsed: dict[str, Any] = group.make_context(command[-1], list(arguments)).params
    return parsed


def test_the_rollback_runs_when_asked_and_once(objects: list[dict[str, Any]]) -> None:
    cronjob = named(objects, "CronJob", "foldmint-rollback")
    container = container_of(cronjob)
    assert (cronjob["spec"]["suspend"], container["command"]) == (True, ["foldmint-maintenance", "codebooks"])
    command, *arguments = container["args"]
    given = _parsed(["codebooks", command], arguments)
    assert (command, given["store"]) == ("rollback", "/store")
    # A second try would go back twice.
    assert cronjob["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_the_page_starts_a_canary_by_the_rollbacks_template(objects: list[dict[str, Any]]) -> None:
    """As the page has it: kubectl patches the job, here without a cluster that would make it."""
    (patch,) = re.findall(r"--patch='(.*?)'", PAGE.read_text(encoding="utf-8"))
    template = named(objects, "CronJob", "foldmint-rollback")["spec"]["jobTemplate"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "canary"}, "spec": template["spec"]}
    command = [kubectl(), "patch", "--local", "--filename=-", "--type=json", f"--patch={patch}", "--output=yaml"]
    done = subprocess.run(command, input=yaml.safe_dump(job), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    patched = yaml.safe_load(done.stdout)
    kubernetes_validate.validate(patched, VERSION, strict=True)
    command_name, *arguments = container_of(patched)["args"]
    given = _parsed(["codebooks", command_name], arguments)
    assert (command_name, given["version"], given["store"]) == ("canary", "000002", "/store")
    assert given["servers"] in " ".join(container_of(job)["args"])


def test_nothing_has_rights(objects: list[dict[str, Any]]) -> None:
    for one in objects:
        if one["kind"] not in ("StatefulSet", "CronJob"):
            continue
        pod = pod_of(one)
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"].keys() == {"requests", "limits"}
    assert "useradd --system --uid 10001 " in (ROOT / "Dockerfile").read_text()


@pytest.mark.slow
def test_an_empty_store_gets_the_embedded_model_once(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    container = container_of(named(objects, "StatefulSet"), "initContainers")
    store = tmp_path / "store"
    (store / "codebooks").mkdir(parents=True)  # what a pod left that was killed at it
    words = [*container["command"], *container["args"]]
    command = [str(Path(sys.executable).parent / words[0]), *(word.replace("/store", str(store)) for word in words[1:])]
    subprocess.run(command, check=True)
    assert Store(store).load().codebook.version == "000001"
    assert Store(store).load().encoder_digest == Store(DEFAULT).load().encoder_digest
    (store / "ACTIVE").write_text("000002\n")
    subprocess.run(command, check=True)
    assert (store / "ACTIVE").read_text() == "000002\n"
