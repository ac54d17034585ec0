"""A new version handed to real servers: all serve it, or none does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foldmint_client.admin import CodebookAdmin
from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.errors import ActivationFailed, InvalidSet
from foldmint_maintenance.repair import rollout
from foldmint_maintenance.repair.canary import Canary, canary_from, canary_of
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.job import repair
from foldmint_maintenance.usage.sources import from_servers
from foldmint_maintenance.usage.statistics import CodeCounts
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store, load_model
from helpers.distributed.distributed_repair import CONFIG
from helpers.support import RunningServer, running_server, stub_of
from helpers.traffic import streamed


@pytest.fixture
def servers(harmed: Path) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Two servers of one store, whose second version is active, and which do not look for others."""
    arguments = ("--model", str(harmed), "--poll-seconds", "0", "--reservoir", "500", "--threads", "1")
    with running_server(*arguments) as first, running_server(*arguments) as second:
        yield first, second


def _served(*servers: RunningServer) -> list[str]:
    found = []
    for server in servers:
        with CodebookAdmin(server.admin) as admin:
            found.append(admin.codebook().version)
    return found


def _quiet(_: str) -> None:
    pass


def _canary(store: Path, version: str) -> Canary:
    model = load_model(store)
    return canary_of(model, Store(store).codebook(version))


def _activate(store: Path, addresses: list[str], *arguments: Any) -> list[rollout.Swapped]:
    opened = Store(store)
    with StoreLock(opened.files) as lock:
        return rollout.activate(opened, lock, addresses, *arguments)


def test_all_servers_serve_it(servers: tuple[RunningServer, RunningServer], harmed: Path) -> None:
    addresses = [server.admin for server in servers]
    swapped = _activate(harmed, addresses, "000001", _canary(harmed, "000001"), _quiet)
    assert [each.previous for each in swapped] == ["000002", "000002"]
    assert _served(*servers) == ["000001", "000001"]
    assert (Store(harmed).active(), Store(harmed).history()[-2:]) == ("000001", ["000002", "000001"])


def test_if_one_fails_all_go_back(servers: tuple[RunningServer, RunningServer], harmed: Path) -> None:
    first, second = servers
    addresses = [server.admin for server in servers]
    canary = _canary(harmed, "000001")

    wrong = replace(canary, tokens=(canary.tokens[0] + 1, *canary.tokens[1:]))
    with pytest.raises(ActivationFailed, match="tokens of the canary are not those that the manifest holds"):
        _activate(harmed, addresses, "000001", wrong, _quiet)
    assert _served(*servers) == ["000002", "000002"]

    third = Store(harmed).publish(Store(harmed).codebook("000001").codebook, parent="000002", about={}).version

    def tell(text: str) -> None:
        # The first has read it; then it is gone.
        if text.startswith(f"{first.admin} serves"):
            (harmed / "codebooks" / third / "codebook.safetensors").unlink()

    with pytest.raises(ActivationFailed, match=rf"{second.admin}: .*cannot be read.*all servers are back"):
        _activate(harmed, addresses, third, canary, tell)
    assert _served(*servers) == ["000002", "000002"]

    second.process.terminate()
    assert second.process.wait(60) == 0
    with pytest.raises(ActivationFailed, match=second.admin):
        _activate(harmed, addresses, "000001", canary, _quiet)
    assert _served(first) == ["000002"]


def test_a_repair_that_a_server_refuses_leaves_the_store_on_the_old_version(
    servers: tuple[RunningServer, RunningServer], harmed: Path, parquet: Path, gate_data: Path
) -> None:
    first, second = servers
    job = RepairJob(str(harmed), CONFIG, parquet, gate_data=gate_data, activate=(first.admin, "127.0.0.1:9"))
    with pytest.raises(ActivationFailed):
        repair(job, None, _quiet)
    assert Store(harmed).active() == "000002"
    assert _served(first, second) == ["000002", "000002"]
    # What was published stays, whole, and the next run makes another.
    done = repair(replace(job, activate=(first.admin, second.admin)), None, _quiet)
    assert done.version == "000004"
    assert _served(first, second) == ["000004", "000004"]
    told = canary_from(Store(harmed).manifest("000004"))
    assert told is not None
    assert told.tokens == _canary(harmed, "000004").tokens


def test_live_traffic_is_enough(
    servers: tuple[RunningServer, RunningServer], harmed: Path, records: list[Record]
) -> None:
    """No corpus: vectors from the servers' reservoirs, hits from their counts."""
    addresses = tuple(server.admin for server in servers)
    config = RepairConfig(rounds=3, limits=CONFIG.limits, min_exposure=5, min_gate_chains=0, min_gate_residues=0)
    job = RepairJob(str(harmed), config, servers=addresses, activate=addresses)

    def usage(store: Store, version: str) -> CodeCounts:
        return from_servers(addresses, version)

    with pytest.raises(InvalidSet, match="too few vectors"):
        repair(job, None, _quiet)
    for server in servers:
        with stub_of(server) as stub:
            streamed(stub, records)
    done = repair(job, usage, _quiet)
    assert {2, 5, 11} <= set(done.replaced)
    assert done.published
    assert _served(*servers) == [done.version, done.version]
    assert any("no chains to retrain" in note for note in done.notes)
    assert done.about["data"]["servers"] == 2
    for server in servers:
        with stub_of(server) as stub:
            streamed(stub, records)
    hits = from_servers(addresses, done.version).counts
    assert all(hits[code] > 0 for code in (2, 5, 11))
