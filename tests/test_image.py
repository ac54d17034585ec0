"""The image without Docker: what its Dockerfile promises, and its build, step by step, in a folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.support import ROOT

DOCKERFILE = ROOT / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Step:
    """One instruction of a stage."""

    stage: int
    instruction: str
    text: str


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """All instructions; those before the first FROM are of stage -1."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Step] = []
    stage = -1
    for line in filter(None, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        stage += instruction == "FROM"
        found.append(Step(stage, instruction, rest))
    return found


def test_the_base_is_one_image_for_ever(steps: list[Step]) -> None:
    base, *stages = [step for step in steps if step.instruction == "FROM" or step.stage == -1]
    # torch is locked by wheels for this Python.
    assert re.fullmatch(r"BASE=python:3\.11-slim-[a-z]+@sha256:[0-9a-f]{64}", base.text)
    assert [step.text.split()[0] for step in stages] == ["${BASE}", "${BASE}"]


def test_nothing_is_installed_without_its_hash(steps: list[Step]) -> None:
    installs = [
        part
        for step in steps
        if step.instruction == "RUN"
        for part in re.split(r"&&|;", step.text)
        if re.search(r"\bpip\b.* install ", part)
    ]
    assert len(installs) == 4
    assert all("--require-hashes" in part or '"$@"' in part for part in installs[:3])
    assert any("set -- --no-deps --require-hashes" in step.text for step in steps)
    # The wheel that was just built.
    assert "--no-deps --no-index" in installs[3]
    assert not any(word in step.text for step in steps for word in ("curl", "wget", "apt-get"))


def test_the_server_is_nobody_in_particular(steps: list[Step]) -> None:
    users = [step for step in steps if step.instruction == "USER"]
    assert [step.text for step in users] == ["10001"]
    ran = [step for step in steps if step.stage == 1 and step.instruction == "RUN"]
    assert all(steps.index(step) < steps.index(users[0]) for step in ran)


@pytest.mark.parametrize("build", re.findall(r"TORCH_BUILD=(\w+)", DOCKERFILE.read_text(encoding="utf-8")))
def test_each_build_that_it_names_has_a_lock(build: str) -> None:
    assert (ROOT / "supply" / f"{build}.txt").is_file()


def test_all_packages_are_in_it(steps: list[Step]) -> None:
    """What is not there when the wheel is built is left out of it without an error."""
    copied = {
        name
        for step in steps
        if step.stage == 0 and step.instruction == "COPY"
        for name in step.text.split()[:-1]
        if (ROOT / name).is_dir()
    }
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {path.partition("/")[0] for path in packages} == copied - {"supply"}


def _copied(text: str, source: Path) -> None:
    *names, to = text.split()
    for name in names:
        if (ROOT / name).is_dir():
            # As .dockerignore has it.
            shutil.copytree(ROOT / name, source / to, ignore=shutil.ignore_patterns("__pycache__", "tests", "docs"))
        else:
            shutil.copy(ROOT / name, source / to)


@pytest.fixture(scope="module")
def built(steps: list[Step], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """/opt/foldmint, by the Dockerfile's own steps."""
    root = tmp_path_factory.mktemp("image")
    source, opt = root / "src", root / "opt"
    source.mkdir()
    # An index that cannot be reached gives way to what lies on the disk sooner.
    environment = {"PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin", "TORCH_BUILD": "cpu", "PIP_RETRIES": "0"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME"))}
    for step in steps:
        if step.stage == 0 and step.instruction == "COPY":
            _copied(step.text, source)
        elif step.stage == 0 and step.instruction == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(step.text))
        elif step.stage == 0 and step.instruction == "RUN":
            command = step.text.replace("/opt/", f"{opt}/")
            done = subprocess.run(
                ["/bin/sh", "-c", command], cwd=source, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
    yield opt / "foldmint"
    shutil.rmtree(root)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image has Python 3.11")
def test_the_build_makes_a_server_that_serves(built: Path) -> None:
    environment = {"PATH": f"{built / 'bin'}:/usr/bin:/bin"}
    command = [str(built / "bin/foldmint-server"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    command += ["--admin-listen", "127.0.0.1:0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            health = [str(built / "bin/foldmint"), "health", "--server", address]
            subprocess.run(health, env=environment, check=True, capture_output=True)
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image has Python 3.11")
@pytest.mark.parametrize("command", PROJECT["project"]["scripts"])
def test_each_command_runs_in_it(built: Path, command: str) -> None:
    environment = {"PATH": f"{built / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(
        [built / "bin" / command, "--help"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _canonical(name: str, version: str) -> tuple[str, str]:
    return re.sub(r"[-_.]+", "-", name), version


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image has Python 3.11")
def test_the_bill_in_the_image_is_of_what_is_in_it(built: Path) -> None:
    bill = json.loads((built / "sbom.cdx.json").read_text(encoding="utf-8"))
    listed = {(part["name"].lower(), part["version"]) for part in bill["components"]}
    folders = built.glob("lib/python3.11/site-packages/*.dist-info")
    there = {tuple(folder.name.removesuffix(".dist-info").lower().split("-")) for folder in folders}
    assert {_canonical(*part) for part in listed} | {("foldmint", "0.1.0")} == {_canonical(*part) for part in there}
    assert not (built / "bin/pip").exists()
