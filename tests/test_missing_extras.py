"""Without the packages of an extra, every command says in one line which extra to install."""

import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.support import ROOT

MODULES = {
    "foldmint": "foldmint_client.__main__",
    "foldmint-server": "foldmint_server.cli.__main__",
    "foldmint-maintenance": "foldmint_maintenance.cli.__main__",
    "foldmint-bulk": "foldmint_bulk.cli.__main__",
}
# A blocked package cannot be found, whether it is installed or not.
_RUN = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocked())
sys.argv = [sys.argv[2], *sys.argv[4:]]
from importlib import import_module
import_module(MODULE).main()
"""


def run(
    command: str, arguments: Collection[str], blocked: Collection[str], folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    module = MODULES[command]
    roots = [str(ROOT / folder) for folder in ("protos", "client", "server", "maintenance", "tokenizer", "bulk")]
    return subprocess.run(
        [sys.executable, "-c", _RUN.replace("MODULE", repr(module)), ",".join(blocked), command, "", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        cwd=folder,
    )


def closure(names: Collection[str], extras: Collection[str] = ()) -> set[str]:
    """Distributions that these need, themselves included; as they are installed here."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset(extras)) for name in names]
    while waiting:
        name, wanted = waiting.pop()
        if name in found and not wanted:
            continue
        found.add(name)
        waiting += [
            (canonicalize_name(needed.name), frozenset(needed.extras))
            for needed in requirements(name, wanted)
            if canonicalize_name(needed.name) not in found
        ]
    return found


def requirements(name: str, extras: Collection[str]) -> Iterator[Requirement]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


@cache
def import_names() -> dict[str, set[str]]:
    """Packages to import, by distribution."""
    names: dict[str, set[str]] = {}
    for package, distributions in packages_distributions().items():
        for distribution in distributions:
            names.setdefault(canonicalize_name(distribution), set()).add(package)
    return names


def beyond_the_base() -> set[str]:
    """Packages that an installation without extras does not have."""
    base = {package for name in closure(["foldmint"]) for package in import_names().get(name, ())}
    everything = {package for packages in import_names().values() for package in packages}
    return {name for name in everything - base if not name.startswith("foldmint") and name.isidentifier()}


def dependencies(extra: str) -> list[str]:
    """Distributions that an extra names, of other extras that it names too."""
    found: set[str] = set()
    for requirement in requirements("foldmint", [extra]):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            continue
        if canonicalize_name(requirement.name) == "foldmint":
            found.update(name for inner in requirement.extras for name in dependencies(inner))
        else:
            found.add(canonicalize_name(requirement.name))
    return sorted(found)


SERVE = [
    "--listen",
    "127.0.0.1:0",
    "--metrics-listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--max-residues",
]
# Valid usage, up to files that are not there: without its extra, a command does not come to look for them.
NEEDS = {
    "foldmint-server": ["--help", "tokens list", "password x --file none", " ".join([*SERVE, "10"])],
    "foldmint-maintenance": [
        "repair --store none --data none",
        "usage --data none",
        "train --data none --out none",
        "evaluate --data none",
        "ingest none --out none.parquet",
        "corpus --out none --package none",
        "import-esm3 --encoder none --out none",
        "codebooks list --store none",
        "codebooks show --store none",
        "codebooks verify --store none",
        "codebooks prune --store none --keep 3",
        "codebooks import --store none --from none",
    ],
}


def assert_hint(done: "subprocess.CompletedProcess[str]", command: str, extra: str) -> None:
    hint = rf"{command}: \w+ is not installed: pip install 'foldmint\[{extra}\]'\n"
    assert re.fullmatch(hint, done.stderr), done.stderr
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", NEEDS["foldmint-server"])
def test_the_server_without_its_extra(arguments: str) -> None:
    assert_hint(run("foldmint-server", arguments.split(), beyond_the_base()), "foldmint-server", "server")


@pytest.mark.parametrize("arguments", NEEDS["foldmint-maintenance"])
def test_maintenance_without_its_extra(arguments: str, tmp_path: Path) -> None:
    done = run("foldmint-maintenance", arguments.split(), beyond_the_base(), tmp_path)
    assert_hint(done, "foldmint-maintenance", "maintenance")


def test_bulk_without_its_extra(tmp_path: Path) -> None:
    done = run("foldmint-bulk", ["none", "-o", "none"], beyond_the_base(), tmp_path)
    assert_hint(done, "foldmint-bulk", "bulk")


@pytest.mark.parametrize("command", ["foldmint", "foldmint-maintenance", "foldmint-bulk"])
def test_help_needs_no_extra(command: str) -> None:
    done = run(command, ["--help"], beyond_the_base())
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout


def test_the_client_needs_no_extra_and_names_those_of_single_formats() -> None:
    assert run("foldmint", ["tokenize", "--help"], beyond_the_base()).returncode == 0
    done = run("foldmint", ["tokenize", "none.pdb", "--format", "parquet", "-o", "none.parquet"], ["pyarrow"])
    assert done.stderr == "error: Parquet needs pyarrow: pip install 'foldmint[parquet]'\n"
    assert done.returncode == 2


def test_a_store_in_s3_without_its_extra() -> None:
    done = run("foldmint-maintenance", ["codebooks", "list", "--store", "s3://bucket/store"], ["s3fs"])
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.endswith("pip install 'foldmint[s3]'\n")


def test_an_error_of_our_own_is_no_missing_extra() -> None:
    done = run("foldmint", ["--version"], ["foldmint_client"])
    assert "Traceback" in done.stderr
    done = run("foldmint-server", ["--help"], ["foldmint_tokenizer"])
    assert "pip install" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", dependencies("server"))
def test_the_server_without_one_package(package: str) -> None:
    """It may do without; what it cannot do is end in a traceback. An option that is wrong ends it if it could start."""
    done = run("foldmint-server", [*SERVE, "10", "--model", "none"], import_names()[package])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(r"pip install 'foldmint\[server\]'|there is no|cannot be read|none", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("package", dependencies("maintenance"))
def test_maintenance_without_one_package(package: str) -> None:
    for arguments in ("repair --store none --data none", "ingest none --out none.parquet"):
        done = run("foldmint-maintenance", arguments.split(), import_names()[package])
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        # What the package is not needed for goes on, and reports the missing inputs.
        reported = done.returncode == 2 or "the repair was not begun" in done.stderr
        assert len(done.stderr.splitlines()) == 1 or reported, done.stderr
