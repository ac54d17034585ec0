"""The shipped units and manifests, run as they are: their own commands and environment, other places and ports."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foldmint_client import FailedPrecondition
from foldmint_client.admin import CodebookAdmin
from foldmint_maintenance.datasets.records import Record, read_parquet, write_parquet
from foldmint_tokenizer.store.model_store import DEFAULT, Store
from helpers.distributed.harmed_store import create_harmed_store
from helpers.kustomize import container_of, named, rendered
from helpers.monitoring.real_prometheus import awaited, prometheus
from helpers.support import DATA, ROOT, RunningServer, running_server, stub_of
from helpers.traffic import streamed

SYSTEMD = ROOT / "deploy/systemd"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Places:
    """What stands for what: places and addresses of a host or a cluster, and those of a test."""

    instead: Mapping[str, str]

    def of(self, text: str) -> str:
        """A text with other places, of two that fit the longer."""
        names = sorted(self.instead, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, names)), lambda found: self.instead[found[0]], text)

    def all_of(self, texts: Sequence[str]) -> list[str]:
        return [self.of(text) for text in texts]


def _unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit, each with its values."""
    text = re.sub(r"\\\n\s*", " ", (SYSTEMD / name).read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value.strip())
    return found


def _words(command: str) -> list[str]:
    """A command line split as systemd does: a backslash stands for the next character in quotes of both kinds."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escapedquotes = True, "", "\"'"
    return list(lexer)


@contextmanager
def _server(
    arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None, read_only: Path | None = None
) -> Iterator[RunningServer]:
    """A server with these arguments, on free ports; it may be told what to do only as they say.

    read_only: a folder that it cannot write to.
    """
    own = [one for one in arguments if not re.match(r"--(metrics-|admin-)?listen=", one)]
    allowed = () if "--insecure-admin" in own else ("--no-insecure-admin",)
    module, environment = "foldmint_server.cli", dict(environment or {})
    if read_only is not None:
        module, environment["FOLDMINT_TEST_READ_ONLY"] = "helpers.servers.read_only_server", str(read_only)
    with running_server(*own, *allowed, environment=environment, log=log, module=module, fresh=True) as running:
        yield running


def _run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FOLDMINT_")}
    kept |= {"OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=kept, cwd=folder, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, list[Record]]:
    """A folder with the sets of a repair, and the chains that callers send."""
    chains = list(read_parquet(DATA / "chains.parquet"))
    folder = tmp_path / "data"
    folder.mkdir()
    half = list(itertools.islice(chains, 0, None, 2))
    write_parquet(half, folder / "train.parquet")
    write_parquet(chains[1::2], folder / "val.parquet")
    return folder, half


def _repaired(told: Mapping[str, Any], servers: Sequence[str]) -> None:
    """Check that a run did all of its work, and that all servers serve the outcome."""
    assert (told["outcome"], told["published"], told["activated"], told["version"]) == ("success", True, True, "000003")
    assert [(one["address"], one["outcome"]) for one in told["servers"]] == [(one, "swapped") for one in servers]


@pytest.mark.slow
def test_systemds_units_work_as_shipped(sets: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, traffic = sets
    state = tmp_path / "state"
    (state / "data").parent.mkdir()
    folder.rename(state / "data")
    places = {"/var/lib/foldmint": str(state), "/etc/foldmint": str(tmp_path / "etc"), "/opt/foldmint/bin": str(BIN)}
    places |= {"/var/lib/prometheus/node-exporter": str(tmp_path / "collected"), "/var/cache": str(tmp_path / "cache")}
    own = Places(places)
    server, repair = _unit("foldmint-server.service"), _unit("foldmint-repair.service")

    # What the page says is done once; the user is this one.
    (tmp_path / "etc").mkdir(mode=0o700)
    page = (ROOT / "docs/systemd.md").read_text(encoding="utf-8")
    for made in re.findall(r"\$ runuser --user=foldmint -- (sh .*)", page):
        done = _run(own.all_of(shlex.split(made)), {}, tmp_path)
        assert done.returncode == 0, done.stderr
    # An empty store is filled; one that is not is left as it is.
    (prepare,) = server["ExecStartPre"]
    done = _run(own.all_of(_words(prepare)), {}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert Store(state / "store").load().encoder_digest == Store(DEFAULT).load().encoder_digest
    (state / "store").rename(tmp_path / "default")
    create_harmed_store(state / "store", traffic)
    assert _run(own.all_of(_words(prepare)), {}, tmp_path).returncode == 0
    assert Store(state / "store").active() == "000002"

    program, *arguments = own.all_of(_words(server["ExecStart"][0]))
    assert Path(program).name == "foldmint-server"
    settings = {name: own.of(value) for name, _, value in (one.partition("=") for one in server["Environment"])}
    with _server(arguments, tmp_path / "log", settings) as running, stub_of(running) as stub:
        watched = tmp_path / "prometheus"
        watched.mkdir()
        with prometheus(running.metrics, watched) as address:
            residues = streamed(stub, traffic)
            assert awaited(address, "sum(foldmint_code_hits_total)", residues) == residues
            own = Places({**places, "localhost:50052": running.admin, "localhost:9090": address})
            (credential,) = (value.partition(":") for value in repair["LoadCredential"])
            token = own.of(credential[2])
            environment = dict(one.partition("=")[::2] for one in repair["Environment"])
            environment = {
                name: token if value == f"%d/{credential[0]}" else value for name, value in environment.items()
            }
            command = own.all_of(_words(repair["ExecStart"][0]))
            done = _run(command, environment, tmp_path)
            assert done.returncode == 0, done.stderr
            _repaired(json.loads((state / "repair.json").read_text()), [running.admin])
            assert "<h2>Servers</h2>" in (state / "repair.html").read_text()
            assert "foldmint_repair_last_success" in (tmp_path / "collected/foldmint_repair.prom").read_text()
            # Without the token, as it was shipped before: told at once, and no version is left behind.
            done = _run(command, {}, tmp_path)
            assert done.returncode == 1
            assert "--token-file" in done.stderr
            assert Store(state / "store").versions() == ["000001", "000002", "000003"]
        assert _serving(running.admin) == "000003"
        # By the page's last commands; the canary of a single server, its activation, and the way back.
        last = re.findall(r"runuser --user=foldmint -- (\S*foldmint-maintenance codebooks [car].*)", page)
        assert len(last) == 3
        served = []
        for command in (shlex.split(line.replace("000002", "000001")) for line in last):
            done = _run(own.all_of(command), {"FOLDMINT_TOKEN_FILE": token}, tmp_path)
            assert done.returncode == 0, done.stderr
            served.append(_serving(running.admin))
        assert served == ["000001", "000001", "000003"]
    with _server(arguments, tmp_path / "log", settings) as again:
        assert _serving(again.admin) == "000003"


@pytest.mark.slow
def test_kubernetes_manifests_work_as_shipped(sets: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, traffic = sets
    objects = rendered("repair")
    filled = container_of(named(objects, "StatefulSet"), "initContainers")
    server = container_of(named(objects, "StatefulSet"))
    repair = container_of(named(objects, "CronJob", "foldmint-repair"))
    rollback = container_of(named(objects, "CronJob", "foldmint-rollback"))
    store = tmp_path / "store"
    store.mkdir()
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    own = Places({"/store": str(store), "/data": str(folder)})
    command = [*filled["command"], *own.all_of(filled["args"])]
    for _ in range(2):  # the second pod finds it filled
        done = _run(command, path, tmp_path)
        assert done.returncode == 0, done.stderr
    assert Store(store).load().encoder_digest == Store(DEFAULT).load().encoder_digest
    store.rename(tmp_path / "default")
    create_harmed_store(store, traffic)

    with ExitStack() as open_:
        (mount,) = [one for one in server["volumeMounts"] if one["name"] == "store"]
        read_only = store if mount["readOnly"] else None
        running = [
            open_.enter_context(_server(own.all_of(server["args"]), tmp_path / "log", read_only=read_only))
            for _ in range(2)
        ]
        watched = tmp_path / "prometheus"
        watched.mkdir()
        others = {"foldmint": [running[1].metrics]}
        address = open_.enter_context(prometheus(running[0].metrics, watched, others=others))
        residues = sum(streamed(open_.enter_context(stub_of(one)), traffic) for one in running)
        assert awaited(address, "sum(foldmint_code_hits_total)", residues) == residues
        admins = [one.admin for one in running]
        names = {f"foldmint-{number}.foldmint:50052": admin for number, admin in enumerate(admins)}
        own = Places({**own.instead, **names, "prometheus.monitoring:9090": address})
        command = [*repair["command"], *own.all_of(repair["args"]), "--json"]
        environment = {**path, **{one["name"]: str(tmp_path) for one in repair["env"]}}
        done = _run(command, environment, tmp_path)
        assert done.returncode == 0, done.stderr
        _repaired(json.loads(done.stdout), admins)
        assert [_serving(admin) for admin in admins] == ["000003", "000003"]
        # By themselves, servers cannot change the store, and say what can.
        with (
            CodebookAdmin(admins[0]) as asked,
            pytest.raises(FailedPrecondition, match="run `foldmint-maintenance codebooks activate 000002 "),
        ):
            asked.activate("000002")
        command = [*rollback["command"], *own.all_of(rollback["args"])]
        done = _run(command, path, tmp_path)
        assert done.returncode == 0, done.stderr
        assert [_serving(admin) for admin in admins] == ["000002", "000002"]
    # And so after a restart.
    with _server(own.all_of(server["args"]), tmp_path / "log") as again:
        assert _serving(again.admin) == "000002"


def _serving(admin: str) -> str:
    """The version that a server serves by default."""
    with CodebookAdmin(admin) as asked:
        return asked.codebook().version
