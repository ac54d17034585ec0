"""The locks of the image agree with what is tested and with each other; audits and bills of materials are true."""

import importlib.metadata
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers.support import ROOT

SUPPLY = ROOT / "supply"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Of the image.
EXTRAS = ("server", "maintenance", "bulk", "s3")
# The image's Python; markers of the machine are the same there.
TARGET = {"python_version": "3.11", "sys_platform": "linux", "platform_system": "Linux", "extra": ""}
UNKNOWN = 75


def _pins(path: Path) -> dict[str, Version]:
    """Canonical name -> version of a file of pins."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len({name for name, _ in found}) == len(found)
    return {canonicalize_name(name): Version(version) for name, version in found}


def _hashes(path: Path) -> dict[str, set[str]]:
    blocks = re.split(r"^(?=[A-Za-z0-9])", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        canonicalize_name(block.partition("==")[0]): set(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
        for block in blocks
        if "==" in block
    }


def _needs(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """What pyproject.toml asks for, with the extras that extras name."""
    asked = [*PROJECT["dependencies"], *(one for name in extras for one in PROJECT["optional-dependencies"][name])]
    for requirement in map(Requirement, asked):
        if requirement.name == "foldmint":
            yield from _needs(tuple(requirement.extras))
        else:
            yield requirement


LOCKS = {
    "cpu": {**_pins(SUPPLY / "cpu.txt"), **_pins(SUPPLY / "torch-cpu.txt")},
    "cu130": _pins(SUPPLY / "cu130.txt"),
    "build": _pins(SUPPLY / "build.txt"),
}


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_a_lock_has_the_versions_that_are_tested(lock: str) -> None:
    tested = _pins(ROOT / "constraints.txt")
    differing = {
        name: (str(version), str(tested[name]))
        for name, version in LOCKS[lock].items()
        if name in tested and version.public != tested[name].public
    }
    assert not differing, "`make lock` writes the locks anew"


@pytest.mark.parametrize("lock", ["cpu", "cu130"])
def test_a_lock_holds_all_that_the_image_asks_for(lock: str) -> None:
    lacking = [
        str(requirement)
        for requirement in _needs(EXTRAS)
        if not requirement.specifier.contains(LOCKS[lock].get(canonicalize_name(requirement.name), Version("0")))
    ]
    assert not lacking, "`make lock` writes the locks anew"
    extras = " ".join(f"--extra {name}" for name in EXTRAS)
    assert f"\nIMAGE := pyproject.toml {extras}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", ["cpu", "build"])
def test_a_lock_is_closed(lock: str) -> None:
    """The image installs with --no-deps: what its packages need is in the lock too."""
    pins = LOCKS[lock]
    for name in pins:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            assert lock == "build", f"{name} is locked, and not here to be tested"
            continue
        for requirement in map(Requirement, needs):
            if requirement.marker is None or requirement.marker.evaluate(TARGET):
                assert canonicalize_name(requirement.name) in pins, f"{name} needs {requirement}"
                assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_all_of_it_by_hash() -> None:
    for path in SUPPLY.glob("*.txt"):
        hashes = _hashes(path)
        assert hashes.keys() == _pins(path).keys()
        assert all(hashes.values()), path


def test_builds_differ_by_cuda_alone() -> None:
    cpu, cuda = LOCKS["cpu"], LOCKS["cu130"]
    assert {name: cuda[name].public for name in cpu} == {name: version.public for name, version in cpu.items()}
    assert all(re.match(r"(nvidia|cuda)-|triton$", name) for name in cuda.keys() - cpu.keys())
    assert any(name.startswith("nvidia-") for name in cuda)
    hashes, others = _hashes(SUPPLY / "cpu.txt"), _hashes(SUPPLY / "cu130.txt")
    assert all(others[name] == found for name, found in hashes.items())


def test_torch_for_cpus_needs_what_the_lock_was_made_for() -> None:
    (declared,) = tomllib.loads((SUPPLY / "torch-cpu.toml").read_text(encoding="utf-8"))["dependency-metadata"]
    assert Version(declared["version"]).public == LOCKS["cpu"]["torch"].public
    if not importlib.metadata.version("torch").endswith("+cpu"):
        pytest.skip("the torch that is installed is another build")
    real = [one for one in importlib.metadata.requires("torch") or [] if "extra ==" not in one]
    assert sorted(map(str, map(Requirement, declared["requires-dist"]))) == sorted(map(str, map(Requirement, real)))


class _Advisories(BaseHTTPRequestHandler):
    """An OSV service that knows of one vulnerability."""

    vulnerable: ClassVar[str | None] = None

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        one = {"id": "OSV-2026-1", "aliases": ["CVE-2026-1"], "summary": "a hole", "details": "a hole", "affected": []}
        answer: dict[str, Any] = {"vulns": [one]} if asked["package"]["name"] == self.vulnerable else {}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture(scope="module")
def advisories() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Advisories) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def _audit(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SUPPLY / "audit.py"), "--osv-url", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_audit_of_what_is_known_to_be_fine(advisories: str) -> None:
    answer = _audit(advisories)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    count = len({name for pins in LOCKS.values() for name in pins})
    assert answer.stdout == f"{count} packages: {count} looked up, 0 of them with known vulnerabilities\n"


def test_audit_names_what_is_vulnerable(advisories: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch, whose build for CPUs no advisory knows by its whole version."""
    monkeypatch.setattr(_Advisories, "vulnerable", "torch")
    answer = _audit(advisories)
    assert answer.returncode == 1
    assert answer.stdout.startswith("torch 2.13.0: CVE-2026-1 OSV-2026-1, mended in no version yet\n")


def test_an_audit_goes_by_what_is_accepted_with_a_reason(
    advisories: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_Advisories, "vulnerable", "torch")
    file = tmp_path / "accepted.txt"
    file.write_text("# until it is mended\nCVE-2026-1 no model is loaded by pickle here\n")
    answer = _audit(advisories, "--accepted", str(file))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "mended in no version yet; accepted: no model is loaded by pickle here\n" in answer.stdout
    file.write_text("CVE-2026-1\n")
    answer = _audit(advisories, "--accepted", str(file))
    assert answer.returncode == 1
    assert "is not of the form `ID REASON`" in answer.stderr


def test_audit_without_a_service_is_no_good_news() -> None:
    answer = _audit("http://127.0.0.1:9/v1/query")
    assert answer.returncode == UNKNOWN
    assert " packages: 0 looked up" in answer.stdout
    assert "nobody can tell of " in answer.stdout


@pytest.mark.slow
def test_bill_of_materials(tmp_path: Path) -> None:
    # As the Makefile has it, without bringing the environment up to date.
    command = ["make", "--old-file", ".venv/dev.stamp", "sbom", "LOCKS=torch-cpu", f"DIST={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    bill = json.loads((tmp_path / "torch-cpu.cdx.json").read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    (torch,) = bill["components"]
    assert torch["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert {hashed["content"] for hashed in torch["externalReferences"][0]["hashes"]} == _hashes(
        SUPPLY / "torch-cpu.txt"
    )["torch"]
