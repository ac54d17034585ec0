"""What the page's numbers are made of: rates, quantiles, and how often the store and the counters are read."""

import json
import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from foldmint_server.codebooks.manager import CodebookManager
from foldmint_server.codebooks.store_follower import StoreFollower
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.gpu import GpuMemory
from foldmint_server.metrics.registry import Metrics, create_metrics
from foldmint_server.web.dashboard.devices import Devices
from foldmint_server.web.dashboard.lineage import Lineage, summary
from foldmint_server.web.dashboard.traffic import Traffic, quantile
from foldmint_server.web.dashboard.usage_api import UsageApi
from foldmint_tokenizer.store.model_store import Store


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counting(clock: Clock, codes: int = 8) -> tuple[Metrics, CodeUsage]:
    usage = CodeUsage(codes, 60, clock)
    usage.activate("000001", 500.0)
    return create_metrics(CollectorRegistry()), usage


def codebooks(store: Store | None = None, **kept: Any) -> CodebookManager:
    """What the page reads of them."""
    active = SimpleNamespace(
        model="m", codebook_version="000001", codebook_digest="d", codes=8, manifest={"parent": None}, N=np.ones(8)
    )
    known = SimpleNamespace(active=active, activated={"000001": 500.0}, kept={"000001": active, **kept}, store=store)
    return cast(CodebookManager, known)


def follower(metrics: Metrics) -> StoreFollower:
    """Of a store that was not read yet."""
    return StoreFollower(codebooks(), "here", metrics)


def test_quantiles_are_those_of_prometheus() -> None:
    bounds = (0.1, 1.0, 10.0, math.inf)
    assert quantile(0.5, bounds, (10, 10, 10, 10)) == pytest.approx(0.05)
    assert quantile(0.5, bounds, (0, 10, 20, 20)) == pytest.approx(1.0)
    assert quantile(0.75, bounds, (0, 10, 20, 20)) == pytest.approx(5.5)
    assert quantile(0.99, bounds, (0, 0, 0, 7)) == 10.0  # all that is known: more than the last bound
    assert quantile(0.5, bounds, (0, 0, 0, 0)) is None
    assert quantile(0.5, (), ()) is None


def test_rates_and_latencies() -> None:
    clock = Clock()
    metrics, _ = counting(clock)
    traffic = Traffic(metrics, clock)
    assert traffic.as_json()["residues_per_second"] == []
    assert traffic.as_json()["latency"]["p50"] is None

    def answered(structures: int, residues: int, seconds: float) -> None:
        metrics.residues.labels("yes").inc(residues)
        metrics.requests.labels("Tokenize", "OK").inc(structures)
        metrics.requests.labels("GetModel", "OK").inc()  # no structure
        metrics.request_seconds.labels("GetModel").observe(0.0)
        for _ in range(structures):
            metrics.request_seconds.labels("Tokenize").observe(seconds)

    answered(3, 300, 0.2)
    told = traffic.as_json()
    assert (told["residues"], told["structures"]) == (300, 3)  # before a sample
    assert told["residues_per_second"] == []
    clock.now += 2
    traffic.sample()
    clock.now += 4  # a late sample
    answered(4, 400, 0.2)
    traffic.sample()
    told = traffic.as_json()
    assert told["residues_per_second"] == [150.0, 100.0]
    assert told["structures_per_second"] == [1.5, 1.0]
    assert (told["residues"], told["structures"]) == (700, 7)
    assert 0.1 < told["latency"]["p50"] <= told["latency"]["p99"] <= 0.25
    clock.now += 61
    traffic.sample()
    assert traffic.as_json()["latency"]["p50"] is None
    for _ in range(200):
        clock.now += 2
        traffic.sample()
    assert len(traffic.as_json()["residues_per_second"]) == 150


def test_many_askers_are_answered_from_one_reading() -> None:
    clock = Clock()
    metrics, usage = counting(clock)
    numbers = UsageApi(
        usage, 60, codebooks(), follower(metrics), Traffic(metrics, clock), Devices(metrics, ["cpu"]), clock
    )
    first = numbers.content("version")
    usage.record("000001", np.array([1, 1, 3]), np.ones(3, np.float32))
    assert numbers.content("version") is first
    assert json.loads(numbers.content("start").body)["hits"] == [0, 2, 0, 1, 0, 0, 0, 0]
    clock.now += 1
    second = numbers.content("version")
    assert json.loads(second.body)["hits"] == [0, 2, 0, 1, 0, 0, 0, 0]
    assert second.tag != first.tag
    clock.now += 1
    assert numbers.content("version").tag == second.tag  # nothing happened: a browser is sent nothing


def test_what_is_not_known_is_null() -> None:
    clock = Clock()
    metrics, usage = counting(clock)
    told = UsageApi(
        usage, 60, codebooks(), follower(metrics), Traffic(metrics, clock), Devices(metrics, ["cpu"]), clock
    ).as_json("version")
    assert told["window"] == {
        "seconds": 60,
        "residues": 0,
        "utilization": None,
        "perplexity": None,
        "dead": None,
        "proved_dead": None,
    }


def test_absent_hits_prove_something_only_where_they_were_due() -> None:
    clock = Clock()
    metrics, usage = counting(clock)
    devices = Devices(metrics, ["cpu"])
    api = UsageApi(usage, 60, codebooks(), follower(metrics), Traffic(metrics, clock), devices, clock)

    def recorded(*codes: int) -> dict[str, Any]:
        usage.record("000001", np.array(codes), np.ones(len(codes), np.float32))
        told: dict[str, Any] = api.as_json("version")["evidence"]
        return told

    assert recorded(*range(7)) == {"residues": 7, "needed": 80, "enough": False, "dead": []}
    assert recorded(*range(7), *range(7)) == {"residues": 21, "needed": 80, "enough": False, "dead": []}
    # Code 7 would have been hit, if it was as frequent as the codebook says.
    assert recorded(*(10 * [*range(7)])) == {"residues": 91, "needed": 80, "enough": True, "dead": [7]}
    # Structures that repeat say less: hits scatter far more than independent residues would have them.
    assert recorded(*(1000 * [0])) == {"residues": 1091, "needed": 80, "enough": True, "dead": []}


def test_how_busy_devices_are() -> None:
    clock = Clock()
    metrics, _ = counting(clock)
    metrics.describe(device="cuda:0", precision="float32", queued_residues=100, queued_detokenize_residues=50)
    memory = {"cuda:0": GpuMemory(3, 10, 2, 1)}
    devices = Devices(metrics, ["cuda:0", "cpu", "cpu"], "cuda:0", lambda: memory, clock)
    assert [(row["name"], row["work"], row["workers"], row["busy"]) for row in devices.as_json()] == [
        ("cuda:0", "encode", 1, None),
        ("cpu", "encode", 2, None),
        ("cuda:0", "decode", 1, None),
    ]

    def busy() -> list[float]:
        clock.now += 10
        devices.sample()
        return [row["busy"] for row in devices.as_json()]

    metrics.batch_seconds.labels("cuda:0").observe(5.0)
    metrics.batch_seconds.labels("cpu").observe(5.0)
    metrics.stage_seconds.labels("decode").observe(1.0)
    metrics.queued_residues.set(25)
    assert busy() == [0.5, 0.25, 0.1]
    metrics.batch_seconds.labels("cuda:0").observe(500.0)  # began long ago
    assert busy() == [1.0, 0.125, 0.05]
    first, *_, last = devices.as_json()
    assert (first["queued_residues"], first["queue_limit"]) == (25, 100)
    assert (last["queued_residues"], last["queue_limit"]) == (0, 50)
    assert first["memory"] == {"used": 3, "total": 10}
    for _ in range(7):
        last_minute = busy()
    assert last_minute == [0.0, 0.0, 0.0]


def test_the_courses_of_refusals_and_latency() -> None:
    clock = Clock()
    metrics, _ = counting(clock)
    traffic = Traffic(metrics, clock)
    for seconds in (0.2, None, None, None, None, None, 2.0):
        if seconds is not None:
            metrics.request_seconds.labels("Tokenize").observe(seconds)
            metrics.callers.refused("alice", "INTERNAL")
            metrics.callers.refused("", "RESOURCE_EXHAUSTED")
        clock.now += 2
        traffic.sample()
    told = traffic.as_json()
    assert told["refusals_per_second"] == [1, 0, 0, 0, 0, 0, 1]
    assert told["refusals"] == 4
    for name in ("latency_p50", "latency_p99"):
        fast, slow = told[name][:5], told[name][6]
        assert all(0.1 < one <= 0.25 for one in fast)  # of ten seconds each
        assert told[name][5] is None
        assert 1 < slow <= 2.5


def test_a_manifest_is_read_once(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store, manifest = Clock(), Store(versions), Mock(wraps=Store(versions).manifest)
    monkeypatch.setattr(store, "manifest", manifest)
    lineage = Lineage(codebooks(store), clock)
    assert len(lineage.as_json()["versions"]) == 8
    clock.now += 31
    assert len(lineage.as_json()["versions"]) == 8
    assert sorted(call.args for call in manifest.call_args_list) == [(f"{number:06d}",) for number in range(1, 9)]


def test_a_slow_store_keeps_one_caller_waiting(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reading, go_on = Store(versions), threading.Event(), threading.Event()
    about = store.about

    def slow() -> dict[str, Any]:
        reading.set()
        assert go_on.wait(10)
        return about()

    monkeypatch.setattr(store, "about", slow)
    lineage, answers = Lineage(codebooks(store), Clock()), []
    waiting = threading.Thread(target=lambda: answers.append(lineage.as_json()))
    waiting.start()
    assert reading.wait(10)
    told = lineage.as_json()  # at once
    assert [version["version"] for version in told["versions"]] == ["000001"]
    go_on.set()
    waiting.join()
    assert len(answers[0]["versions"]) == 8


def test_a_damaged_manifest_is_told_and_tried_again(versions_copy: Path) -> None:
    clock, path = Clock(), versions_copy / "codebooks/000004/manifest.json"
    text = path.read_text()
    lineage = Lineage(codebooks(Store(versions_copy)), clock)
    path.write_text("{")
    assert [v["version"] for v in lineage.as_json()["versions"] if v["damaged"]] == ["000004"]
    path.write_text(text)
    clock.now += 31
    assert [v["version"] for v in lineage.as_json()["versions"] if v["damaged"]] == []


@pytest.mark.parametrize("about", [None, [], "x", {"replaced": 3, "created": 5, "made_by": ["x"]}, {"made_by": ""}])
def test_manifests_of_other_makers(about: object) -> None:
    told = summary({"parent": "000001", "about": about})
    assert told == {"parent": "000001", "made_by": None, "created": None, "replaced": None, "damaged": False}


def test_what_a_repair_tells() -> None:
    about = {"made_by": "repair", "created": "2026-11-01T00:00:00+00:00", "replaced": [3, 5]}
    told = summary({"parent": "000001", "about": about})
    assert (told["made_by"], told["created"], told["replaced"]) == ("repair", "2026-11-01T00:00:00+00:00", 2)
