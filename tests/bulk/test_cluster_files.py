"""What deploy/ has for bulk jobs on clusters: files of their schemas, commands that exist and do a whole job."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import typer
import yaml  # type: ignore[import-untyped]
from jsonschema import Draft7Validator
from pyarrow import parquet

from foldmint_bulk.cli import main
from foldmint_bulk.cli.help_text import FAILED
from helpers.support import DATA, ROOT

SLURM = ROOT / "deploy/slurm/foldmint-bulk.sh"
JOB = ROOT / "deploy/kubernetes/bulk-job.yaml"
CRONJOB = ROOT / "deploy/kubernetes/components/repair/cronjob.yaml"
RAYJOB = ROOT / "deploy/ray/rayjob.yaml"
CLUSTER = ROOT / "deploy/ray/cluster.yaml"
IMAGE = ROOT / "deploy/ray/Dockerfile"
KUBERNETES = "1.33"
SLICES = 3


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    folder = tmp_path / "structures"
    folder.mkdir()
    for number in range(2 * SLICES):
        shutil.copy(DATA / "1gbt.cif.gz", folder / f"{number}.cif.gz")
    return folder


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def _job() -> dict[str, Any]:
    (job,) = _documents(JOB)
    return job


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of arguments after `foldmint-bulk`."""
    command: Any = typer.main.get_command(main.app)
    parsed: dict[str, Any] = command.make_context("foldmint-bulk", list(arguments)).params
    return parsed


def _sources(out: Path) -> list[str]:
    """Of all rows of a job that is done, sorted, each without its folder."""
    assert (out / "DONE").exists()
    rows = [row for part in out.glob("parts/*/*.parquet") for row in parquet.read_table(part).to_pylist()]
    return sorted(Path(row["source"]).name for row in rows)


def _run(command: list[str], variables: dict[str, str]) -> None:
    """Run a command in which `foldmint-bulk` is the one that is installed here."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    others = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RAY_"))}
    done = subprocess.run(
        command, env={**others, **variables, "PATH": path}, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_array_of_slurm_does_the_job_in_slices(structures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(SLICES):
        assert not (out / "DONE").exists()
        variables = {
            "SLURM_ARRAY_TASK_ID": str(10 + 2 * index),
            "SLURM_ARRAY_TASK_MIN": "10",
            "SLURM_ARRAY_TASK_STEP": "2",
            "SLURM_ARRAY_TASK_COUNT": str(SLICES),
            "SLURM_CPUS_PER_TASK": "1",
        }
        _run(["bash", str(SLURM), str(structures), "--output", str(out), "--unit-structures=2"], variables)
    assert _sources(out) == [f"{number}.cif.gz" for number in range(2 * SLICES)]


def test_an_array_with_gpus_has_a_worker_for_each(tmp_path: Path) -> None:
    program = tmp_path / "foldmint-bulk"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "8",
        "SLURM_CPUS_PER_TASK": "15",
        "SLURM_GPUS_ON_NODE": "2",
    }
    done = subprocess.run(
        ["bash", str(SLURM), "in put", "-o", "out"], env=variables, text=True, capture_output=True, check=True
    )
    assert done.stdout.splitlines() == ["--workers=2", "--parsers=8", "--slice=3/8", "in put", "-o", "out"]


@pytest.mark.slow
def test_the_pods_of_the_indexed_job_do_the_job_in_slices(structures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (container,) = _job()["spec"]["template"]["spec"]["containers"]
    places = {"/data/structures": str(structures), "/data/tokens": str(out), "/100": f"/{SLICES}"}
    for index in range(SLICES):
        assert not (out / "DONE").exists()
        arguments = [one.replace("$(JOB_COMPLETION_INDEX)", str(index)) for one in container["args"]]
        for there, here in places.items():
            arguments = [one.replace(there, here) for one in arguments]
        _run([*container["command"], *arguments, "--unit-structures=2"], {})
    assert _sources(out) == [f"{number}.cif.gz" for number in range(2 * SLICES)]


def test_the_indexed_job_is_of_its_schema_and_has_as_many_slices_as_pods() -> None:
    job = _job()
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["foldmint-bulk"]
    index = next(one for one in container["args"] if one.startswith("--slice="))
    assert index == f"--slice=$(JOB_COMPLETION_INDEX)/{spec['completions']}"
    last = index.replace("$(JOB_COMPLETION_INDEX)", str(spec["completions"] - 1))
    parsed = _parsed([last if one == index else one for one in container["args"]])
    assert (parsed["inputs"], parsed["out"]) == (["/data/structures"], "/data/tokens")
    assert main._slice(parsed["slice_"]) == (spec["completions"] - 1, spec["completions"])
    codes = [
        code for rule in spec["podFailurePolicy"]["rules"] for code in rule.get("onExitCodes", {}).get("values", [])
    ]
    assert codes == [2, FAILED]
    assert spec["maxFailedIndexes"] <= spec["completions"]


def test_the_indexed_job_has_no_more_rights_than_the_repair() -> None:
    (cronjob,) = _documents(CRONJOB)
    theirs, own = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"], _job()["spec"]["template"]["spec"]
    for name in ("securityContext", "automountServiceAccountToken", "enableServiceLinks", "restartPolicy"):
        assert own[name] == theirs[name]
    assert own["containers"][0]["securityContext"] == theirs["containers"][0]["securityContext"]
    volumes = {volume["name"] for volume in own["volumes"]}
    assert {mount["name"] for mount in own["containers"][0]["volumeMounts"]} == volumes


def test_the_rayjob_has_valid_pods_and_a_command_that_exists() -> None:
    job, policy = _documents(RAYJOB)
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for template in (spec["submitterPodTemplate"], *(group["template"] for group in groups)):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {"name": "pod", **template["metadata"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    assert {group["template"]["spec"]["containers"][0]["image"] for group in groups} == {"foldmint-ray:0.1.0"}
    program, *arguments = shlex.split(spec["entrypoint"])
    parsed = _parsed(arguments)
    assert (program, parsed["engine"], parsed["ray_address"]) == ("foldmint-bulk", "ray", None)
    (workers,) = cluster["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert parsed["workers"] == workers["replicas"] * int(container["resources"]["requests"]["cpu"])
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_cluster_is_of_rays_schema() -> None:
    (cluster,) = _documents(CLUSTER)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    Draft7Validator(schema).validate(cluster)
    assert list(Draft7Validator(schema).iter_errors({**cluster, "nonsense": 1}))
    commands = [line for line in CLUSTER.read_text().splitlines() if "foldmint-bulk /" in line]
    (command,) = [line.split("'")[1] for line in commands]
    program, *arguments = shlex.split(command)
    assert (program, _parsed(arguments)["engine"]) == ("foldmint-bulk", "ray")


def test_versions_of_ray_are_one() -> None:
    (cluster,) = [one for one in _documents(RAYJOB) if one["kind"] == "RayJob"]
    version = cluster["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"FROM rayproject/ray:{version}-py311-cpu" in IMAGE.read_text()
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text().splitlines()
