"""A server follows what its store says is in use, from a folder and from S3, and loses nothing when it cannot."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from foldmint.v1 import codebook_pb2, tokenizer_pb2
from foldmint_tokenizer.store.control import hash_of
from foldmint_tokenizer.store.model_store import Store
from helpers.chains import RealChain
from helpers.support import RunningServer, admin_of, metrics_of, request_of, running_server, stub_of
from helpers.waiting import wait_until

POLLING = ("--poll-seconds", "0.1")


def active(server: RunningServer) -> str:
    with stub_of(server) as stub:
        return stub.GetModel(tokenizer_pb2.GetModelRequest()).codebook_version


def awaited(server: RunningServer, version: str, seconds: float = 30) -> str:
    """The active version once it is the one expected, or the last after so many seconds."""
    until = time.monotonic() + seconds
    while (seen := active(server)) != version and time.monotonic() < until:
        time.sleep(0.05)
    return seen


def entries(log: Path, event: str) -> list[dict[str, str]]:
    """What a log tells of an event."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def logged(log: Path, event: str, seconds: float = 30) -> list[dict[str, str]]:
    """The same, once there is any."""
    until = time.monotonic() + seconds
    while not entries(log, event) and time.monotonic() < until:
        time.sleep(0.05)
    return entries(log, event)


def refused(server: RunningServer) -> float:
    return metrics_of(server)['foldmint_codebook_swaps_total{outcome="refused"}']


def test_a_server_follows_its_store(versions_copy: Path, tmp_path: Path) -> None:
    log, store = tmp_path / "log", Store(versions_copy)
    arguments = ("--model", str(versions_copy), *POLLING, "--log-level", "info")
    with running_server(*arguments, log=log) as server, admin_of(server) as admin:
        store.activate("000002")
        assert awaited(server, "000002") == "000002"
        # What an operator asks the server for, the store says.
        admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000003"))
        assert (active(server), store.history()) == ("000003", ["000001", "000002", "000003"])
        admin.RollbackCodebook(codebook_pb2.RollbackCodebookRequest())
        admin.RollbackCodebook(codebook_pb2.RollbackCodebookRequest())
        assert (active(server), store.history()) == ("000001", ["000001"])
        store.activate("000004")
        assert awaited(server, "000004") == "000004"

        # A version that is refused is tried once.
        bad = versions_copy / "codebooks/000006/codebook.safetensors"
        whole = bad.read_bytes()
        bad.write_bytes(whole[:-1])
        (versions_copy / "ACTIVE").write_text("000006\n")
        (entry,) = logged(log, "codebook refused")
        assert (entry["version"], entry["serving"]) == ("000006", "000004")
        assert "is damaged" in entry["reason"]
        bad.write_bytes(whole)
        time.sleep(1)
        assert active(server) == "000004"
        assert len(entries(log, "codebook refused")) == refused(server) == 1
        store.activate("000005")
        assert awaited(server, "000005") == "000005"
        store.activate("000006")
        assert awaited(server, "000006") == "000006"

        # A store that is gone is told once, and followed again when it is back.
        away = versions_copy.with_name("away")
        versions_copy.rename(away)
        (lost,) = logged(log, "the store cannot be reached; serving on")
        assert lost["serving"] == "000006"
        assert metrics_of(server)["foldmint_store_reachable"] == 0
        time.sleep(1)
        assert active(server) == "000006"
        assert len(entries(log, "the store cannot be reached; serving on")) == 1
        # What is bad when it is back is told, too.
        (away / "codebooks/000008/manifest.json").write_text("{")
        (away / "ACTIVE").write_text("000008\n")
        away.rename(versions_copy)
        logged(log, "the store is reached again")
        assert metrics_of(server)["foldmint_store_reachable"] == 1
        assert [one["version"] for one in entries(log, "codebook refused")] == ["000006", "000008"]
        store.activate("000007")
        assert awaited(server, "000007") == "000007"
        assert len(entries(log, "the store is reached again")) == 1
        # ACTIVE may say anything.
        (versions_copy / "ACTIVE").write_text("../../elsewhere\n")
        until = time.monotonic() + 30
        while refused(server) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        assert active(server) == "000007"
        store.activate("000001")
        assert awaited(server, "000001") == "000001"
        assert refused(server) == 3


def test_the_canary_and_the_way_back_stay_in_memory(own_versions: Path, short: list[RealChain]) -> None:
    store, name = Store(own_versions), "foldmint-0"
    arguments = ("--model", str(own_versions), *POLLING, "--keep-versions", "3", "--server-name", name)
    with running_server(*arguments) as server, stub_of(server) as stub, admin_of(server) as admin:

        def kept() -> set[str]:
            listed = admin.ListCodebooks(codebook_pb2.ListCodebooksRequest()).codebooks
            return {one.version for one in listed if one.kept}

        store.start_canary("000008", hash_of(name) / 2)  # on other servers
        wait_until(lambda: "000008" in kept())
        for version in ("000002", "000003", "000004", "000005"):
            admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version=version))
        assert kept() == {"000004", "000005", "000008"}
        assert stub.Tokenize(request_of(short[0], "000008")).codebook_version == "000008"
        for version in ("000004", "000003", "000002"):
            assert admin.RollbackCodebook(codebook_pb2.RollbackCodebookRequest()).codebook.version == version
        assert {"000002", "000008"} < kept()
        state = admin.GetUsage(codebook_pb2.GetUsageRequest()).store
        assert (state.active, state.canary, state.expected, state.follows) == ("000002", "000008", "000002", True)
        store.end_canary()
        wait_until(lambda: not admin.GetUsage(codebook_pb2.GetUsageRequest()).store.canary)
        admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000006"))
        admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000007"))
        assert "000008" not in kept()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """moto's server, a real one over HTTP, with a bucket named by its port; botocore tries only once."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(f"port-{port}")
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_a_store_in_s3_that_comes_and_goes(
    s3: ThreadedMotoServer, versions: Path, tmp_path: Path, short: list[RealChain]
) -> None:
    import s3fs

    port = s3.get_host_and_port()[1]
    log, place = tmp_path / "log", f"s3://port-{port}/store"
    s3fs.S3FileSystem().put(str(versions), place, recursive=True)
    with running_server("--model", place, *POLLING, "--log-level", "info", log=log) as server:
        assert active(server) == "000001"
        Store(place).activate("000002")
        assert awaited(server, "000002") == "000002"
        s3.stop()
        (lost,) = logged(log, "the store cannot be reached; serving on")
        assert lost["serving"] == "000002"
        with admin_of(server) as admin, pytest.raises(Exception, match="FAILED_PRECONDITION"):
            admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000005"), timeout=60)
        with stub_of(server) as stub:
            assert stub.Tokenize(request_of(short[0])).codebook_version == "000002"
        assert len(entries(log, "the store cannot be reached; serving on")) == 1
        back = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        back.start()
        try:
            Store(place).activate("000003")
            assert awaited(server, "000003") == "000003"
            assert len(entries(log, "the store is reached again")) == 1
        finally:
            back.stop()


@pytest.mark.slow
def test_a_store_in_s3_that_does_not_exist_is_refused(s3: ThreadedMotoServer, tmp_path: Path) -> None:
    log, place = tmp_path / "log", f"s3://port-{s3.get_host_and_port()[1]}/nowhere"
    with (
        pytest.raises(AssertionError, match="exit code"),
        running_server("--model", place, log=log),
    ):
        pass
    assert f"{place}/model.json cannot be read" in log.read_text()
    assert "Traceback" not in log.read_text()
