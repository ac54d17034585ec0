"""The commands that say what servers serve, with real servers that follow, restart, or cannot follow."""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foldmint_client import Backbone, Client, FailedPrecondition, Health
from foldmint_client.admin import CodebookAdmin, StoreState
from foldmint_maintenance.cli import main
from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.store.edit import pruned
from foldmint_maintenance.store.listing import listed, verified
from foldmint_tokenizer.store.control import hash_of
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store
from helpers.support import RunningServer, metrics_of, running_server
from helpers.waiting import wait_until

POLLING = ("--poll-seconds", "0.1", "--threads", "1")


@pytest.fixture
def folder(harmed: Path) -> Path:
    """A store of three versions, of which the first was never active but at the beginning, and the second is."""
    Store(harmed).publish(Store(harmed).codebook("000001").codebook, parent="000002", about={})
    return harmed


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, folder: Path) -> str:
    """Where that store lies."""
    if request.param == "folder":
        return str(folder)
    import s3fs

    there = f"{request.getfixturevalue('bucket')}/{folder.parent.name}"
    s3fs.S3FileSystem().put(str(folder), there, recursive=True)
    return there


def _run(command: str, store: str | Path, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of `codebooks COMMAND --store STORE`."""
    given = ["codebooks", command, "--store", str(store), *map(str, arguments)]
    result = CliRunner(env={"COLUMNS": "500"}).invoke(main.app, given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@contextmanager
def _servers(store: str | Path, *names: str) -> Iterator[list[RunningServer]]:
    with ExitStack() as running:
        arguments = ("--model", str(store), *POLLING)
        yield [running.enter_context(running_server(*arguments, "--server-name", name)) for name in names]


def _state(server: RunningServer) -> StoreState:
    with CodebookAdmin(server.admin) as admin:
        state = admin.usage().store
    assert state is not None
    return state


def _serving(*servers: RunningServer) -> list[str]:
    """What each server answers by that is asked for no version."""
    served = []
    for server in servers:
        with Client(server.address) as client:
            served.append(client.model().codebook_version)
    return served


def _all(servers: list[RunningServer]) -> tuple[str, str]:
    return "--servers", ",".join(server.admin for server in servers)


def test_what_was_activated_or_rolled_back_outlives_a_restart(place: str) -> None:
    with _servers(place, "a") as servers:
        status, told = _run("activate", place, "000003", *_all(servers))
        assert (status, told.splitlines()) == (
            0,
            ["codebook 000003 is active in the store", f"{servers[0].admin} (a) serves codebook 000003"],
        )
        assert _serving(*servers) == ["000003"]
    with _servers(place, "a") as servers:
        assert _serving(*servers) == ["000003"]
        assert _run("rollback", place, "--from", "000003", *_all(servers))[0] == 0
        assert _serving(*servers) == ["000002"]
        status, told = _run("rollback", place, "--from", "000003", *_all(servers))
        assert (status, "codebook 000002 is active, not '000003'" in told) == (1, True)
        # The runbook's way from before: by a server.
        with CodebookAdmin(servers[0].admin) as admin:
            assert admin.rollback().codebook.version == "000001"
    with _servers(place, "a") as servers:
        assert _serving(*servers) == ["000001"]
        status, told = _run("rollback", place, *_all(servers))
        assert (status, "no codebook was active before 000001" in told) == (1, True)
        with CodebookAdmin(servers[0].admin) as admin:
            admin.activate("000002")
    assert Store(place).history() == ["000001", "000002"]


def test_a_canary_on_some_of_several_servers(folder: Path, records: list[Record]) -> None:
    names = sorted((f"foldmint-{number}" for number in range(20)), key=hash_of)
    names = [names[0], names[10], names[19]]
    first, second = (hash_of(name) for name in names[:2])
    share = f"{100 * (first + second) / 2:.6f}%"
    chain = Backbone(records[0].coordinates, records[0].residue_index)
    with _servers(folder, *names) as servers:
        status, told = _run("canary", folder, "000003", "--share", share, *_all(servers))
        assert status == 0
        assert [line.partition("serves ")[2] for line in told.splitlines()[2:]] == [
            "codebook 000003 as a canary",
            "codebook 000002",
            "codebook 000002",
        ]
        assert _serving(*servers) == ["000003", "000002", "000002"]
        state = _state(servers[0])
        assert (state.active, state.canary, state.server_name, state.follows) == ("000002", "000003", names[0], True)
        # Whoever names a version gets it, everywhere.
        for server in servers:
            with Client(server.address) as client:
                for version in ("000002", "000003"):
                    assert client.tokenize(chain, codebook_version=version).codebook_version == version
        found = metrics_of(servers[1])
        assert found['foldmint_store_active_info{version="000002"}'] == 1
        assert found['foldmint_store_canary_share{version="000003"}'] == pytest.approx((first + second) / 2)
        assert [metrics_of(server)["foldmint_codebook_follows_store"] for server in servers] == [1, 1, 1]
        # A server that serves it cannot be told to make something else of it.
        with CodebookAdmin(servers[0].admin) as admin:
            changes: list[Callable[[], object]] = [lambda: admin.activate("000001"), admin.rollback]
            for change in changes:
                with pytest.raises(FailedPrecondition, match=f"{names[0]}, serves the canary 000003"):
                    change()
        assert Store(folder).control().active == "000002"
        # Versions that are in use by some, or are to be gone back to, stay.
        assert [one.version for one in listed(Store(folder)) if one.canary] == ["000003"]
        assert verified(Store(folder)).problems == ()
    with _servers(folder, names[0]) as servers:
        assert _serving(*servers) == ["000003"]
        status, told = _run("canary", folder, "000001", "--share", f"{first / 2}", *_all(servers))
        assert (status, f"{names[0]}, does above {first:.2%}" in told) == (0, True)
        assert _serving(*servers) == ["000002"]
        _run("canary", folder, "000003", "--share", "1", *_all(servers))
        assert _serving(*servers) == ["000003"]
        assert _run("canary", folder, "--end", *_all(servers))[0] == 0
        assert _serving(*servers) == ["000002"]
        _run("canary", folder, "000003", "--share", "100%", *_all(servers))
        assert _run("activate", folder, "000003", *_all(servers))[0] == 0
        assert (_serving(*servers), Store(folder).canary()) == (["000003"], None)
        assert not [name for name in metrics_of(servers[0]) if name.startswith("foldmint_store_canary_share")]


def test_servers_that_cannot_follow(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    store, about = Store(folder), json.loads((folder / "model.json").read_text())
    with (
        _servers(folder, "a") as servers,
        _servers(elsewhere, "b") as others,
        running_server("--model", str(folder), "--poll-seconds", "0") as still,
    ):
        every = [*servers, *others, still]
        status, told = _run("activate", folder, "000001", *_all(every), "--timeout", "3")
        assert status == 5
        assert "2 of 3 servers do not follow the store" in told
        assert f"{others[0].admin}: in its store, ACTIVE is 000002: another store, or it lags" in told
        assert f"{still.admin}: it reads its store at its start alone (--poll-seconds 0); it serves 000002" in told
        assert store.active() == "000001"
        # It takes what the store says once it is told to, which needs no write.
        with StoreLock(store.files), CodebookAdmin(still.admin) as admin:
            assert admin.activate("000001").previous_version == "000002"
        status, told = _run("activate", folder, "000001", "--servers", "127.0.0.1:9", "--timeout", "0.5")
        assert (status, "127.0.0.1:9: it did not report what it serves: " in told) == (5, True)

        # A version of an encoder that was exchanged under a server that runs.
        version = store.publish(store.codebook().codebook, parent="000001", about={}).version
        manifest = folder / "codebooks" / version / "manifest.json"
        told_of = json.loads(manifest.read_text()) | {"encoder_sha256": "1" * 64}
        manifest.write_text(json.dumps(told_of))
        (folder / "model.json").write_text(json.dumps(about | {"encoder_sha256": "1" * 64}))
        status, told = _run("activate", folder, version, *_all(servers))
        assert status == 5
        assert f"codebook {version} belongs to another encoder than this server runs; it serves 000001" in told
        state, found = _state(servers[0]), metrics_of(servers[0])
        assert (state.active, state.expected, state.serving, state.follows) == (version, version, "000001", False)
        assert "another encoder" in state.problem
        assert (found["foldmint_codebook_follows_store"], found["foldmint_ready"]) == (0, 1)
        assert found[f'foldmint_store_active_info{{version="{version}"}}'] == 1
        (folder / "model.json").write_text(json.dumps(about))
        assert _run("rollback", folder, *_all(servers))[0] == 0
        assert metrics_of(servers[0])["foldmint_codebook_follows_store"] == 1


@pytest.mark.parametrize(
    ("file", "content", "command", "reason", "repair"),
    [
        ("ACTIVE", "nonsense/\n", ["rollback"], "does not name a version", ["activate", "000003"]),
        ("ACTIVE", "000077\n", ["canary", "000077", "--share", "10%"], "manifest.json cannot be read", ["rollback"]),
        ("CANARY", "{", ["activate", "000003"], "CANARY is not valid JSON", ["canary", "--end"]),
        ("CANARY", '{"version": "000077", "share": 1}', ["activate", "000077"], "cannot be read", ["canary", "--end"]),
    ],
    ids=["damaged ACTIVE", "dangling ACTIVE", "damaged CANARY", "dangling CANARY"],
)
def test_a_store_that_makes_no_sense(
    folder: Path, file: str, content: str, command: list[str], reason: str, repair: list[str]
) -> None:
    with _servers(folder, "a") as servers:
        (folder / file).write_text(content)
        wait_until(lambda: metrics_of(servers[0])["foldmint_codebook_follows_store"] == 0)
        assert _serving(*servers) == ["000002"]
        assert file in _state(servers[0]).problem or "000077" in _state(servers[0]).problem
        assert metrics_of(servers[0])["foldmint_ready"] == 1
        with Client(servers[0].address) as client:
            assert client.health() is Health.SERVING
        before = {name: (folder / name).read_text() for name in ("ACTIVE", "HISTORY")}
        status, told = _run(command[0], folder, *command[1:])
        assert (status, reason in told) == (1, True), told
        assert {name: (folder / name).read_text() for name in before} == before
        assert any(file in problem for problem in verified(Store(folder)).problems)
        status, told = _run(repair[0], folder, *repair[1:], *_all(servers))
        assert status == 0, told
        assert _state(servers[0]).follows


def test_a_server_that_cannot_write_to_its_store(folder: Path, tmp_path: Path) -> None:
    """In an archive, which nobody writes to."""
    archive = tmp_path / "store.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, f"store/{path.relative_to(folder)}")
    with (
        running_server("--model", f"zip://store::{archive}", "--threads", "1") as server,
        CodebookAdmin(server.admin) as admin,
    ):
        changes: dict[str, Callable[[], object]] = {
            "activate 000003": lambda: admin.activate("000003"),
            "rollback --from 000002": admin.rollback,
        }
        for command, change in changes.items():
            reason = f"this server cannot change its store: .*`foldmint-maintenance codebooks {command} --store STORE`"
            with pytest.raises(FailedPrecondition, match=reason):
                change()
        assert _serving(server) == ["000002"]
        assert admin.activate("000002").codebook.version == "000002"


def test_two_commands_at_once_come_one_after_another(folder: Path) -> None:
    command = [sys.executable, "-m", "foldmint_maintenance.cli", "codebooks", "activate", "--store", str(folder)]
    runs = [subprocess.Popen([*command, version]) for version in ("000001", "000003")]
    assert [run.wait(300) for run in runs] == [0, 0]
    history = Store(folder).history()
    assert (history[:2], sorted(history[2:])) == (["000001", "000002"], ["000001", "000003"])
    assert Store(folder).active() == history[-1]


def test_another_run_at_the_store_is_not_waited_for_long(folder: Path) -> None:
    with StoreLock(Store(folder).files):
        began = time.monotonic()
        status, told = _run("activate", folder, "000003")
        assert (status, "is locked by process" in told) == (4, True)
        assert time.monotonic() - began < 60
    assert Store(folder).active() == "000002"


def test_versions_that_servers_may_go_back_to_are_not_pruned(folder: Path) -> None:
    store = Store(folder)
    for _ in range(4):
        store.publish(store.codebook("000001").codebook, parent=None, about={})
    store.activate("000005")
    store.start_canary("000003", 0.1)
    done = pruned(store, 1)
    assert done.removed == ("000001", "000004", "000006")
    assert store.versions() == ["000002", "000003", "000005", "000007"]
    assert done.kept == {
        "000002": "a rollback goes back to it",
        "000003": "it is the canary",
        "000005": "it is in use",
    }
    with pytest.raises(Exception, match="000003 is the canary"):
        store.remove("000003")


@pytest.mark.parametrize(
    "arguments",
    [
        ["canary", "000003"],
        ["canary", "--share", "10%"],
        ["canary", "000003", "--share", "10%", "--end"],
        ["canary", "000003", "--share", "0"],
        ["canary", "000003", "--share", "110%"],
        ["canary", "000003", "--share", "some"],
        ["activate", "000003", "--token-file", "absent"],
    ],
)
def test_options_that_do_not_fit(folder: Path, arguments: list[str]) -> None:
    assert _run(arguments[0], folder, *arguments[1:])[0] == 2
    assert (Store(folder).active(), Store(folder).canary()) == ("000002", None)


def test_what_is_no_store_stays_nothing(tmp_path: Path) -> None:
    for command in (["activate", "000001"], ["rollback"], ["canary", "000001", "--share", "10%"], ["canary", "--end"]):
        status, told = _run(command[0], tmp_path / "typo", *command[1:])
        assert (status, "cannot be read" in told) == (1, True)
    assert not (tmp_path / "typo").exists()
