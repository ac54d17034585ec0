"""The load that the network's benchmarks send, what is made of its times, and small real runs of both."""

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import general_servers, served
from benchmarks.general.load import (
    Part,
    Task,
    cpu_seconds,
    foldmint,
    load_client,
    mixed,
    percentiles,
    residues_of,
    serving,
    task_of,
    whole,
)
from benchmarks.performance import section


def test_whole_chains_come_in_order_and_again_until_there_are_enough_residues() -> None:
    plan = whole([50, 30], 131)
    assert plan == [[Part(0, 0, 50)], [Part(1, 0, 30)], [Part(0, 0, 50)], [Part(1, 0, 30)]]


def test_a_mixed_load_has_a_large_structure_after_so_many_small_ones() -> None:
    lengths = [150, 40, 120]
    plan = mixed(lengths, large=500, each=3, small=100, size=2)
    assert [residues_of(structure) for structure in plan] == [100, 40, 100, 500, 100, 100, 40, 500]
    assert all(part.stop <= lengths[part.chain] for structure in plan for part in structure)


def test_a_load_goes_to_the_client_and_comes_out_the_same() -> None:
    task = Task("grpc", "here:1", 3, [[Part(0, 0, 5), Part(2, 1, 4)], [Part(1, 0, 2)]])
    line = '{"kind": "grpc", "address": "here:1", "clients": 3, "structures": [[{"chain": 0, "start": 0, "stop": 5},'
    line += ' {"chain": 2, "start": 1, "stop": 4}], [{"chain": 1, "start": 0, "stop": 2}]]}'
    assert task_of(line) == task


def test_percentiles_are_times_that_were_measured() -> None:
    found = percentiles([number / 1000 for number in range(1, 102)] + [5.0])
    assert found["p50_ms"] == pytest.approx(52)
    assert found["p99_ms"] == pytest.approx(101)
    assert percentiles([0.25]) == {"p50_ms": 250, "p99_ms": 250}


def test_ratios_are_of_the_same_round() -> None:
    plan = [[Part(0, 0, 100)], [Part(0, 0, 300)]]
    runs = {
        general_servers.OURS: [general_servers.Round(1.0, [0.1, 0.9], 0.4), general_servers.Round(4.0, [0.2, 3], 0.4)],
        "other": [general_servers.Round(2.0, [1.0, 1.5], 0.8), general_servers.Round(8.0, [0.5, 7], 0.8)],
    }
    figures = general_servers.summary(runs, plan, large=300)
    assert figures["other"]["ratio"] == 2
    assert figures["other"]["cpu_us"] == pytest.approx(2000)
    assert figures["other"]["small_p99_ms"] == 1000
    assert figures["other"]["p99_ms"] == 7000
    found = {bar["measure"]: bar["reached"] for bar in general_servers.bars(figures)}
    assert found == {"throughput, against other": True, "p99 of small requests, against other": True}
    runs["other"] = runs[general_servers.OURS]
    worse = general_servers.bars(general_servers.summary(runs, plan, large=300))
    assert Counter(bar["reached"] for bar in worse) == {False: 2}


def test_a_server_that_does_not_start_is_told_of() -> None:
    with (
        load_client() as client,
        pytest.raises(general_servers.NotStarted, match="did not start"),
    ):
        general_servers.loaded(client, general_servers.Kind("grpc", ["true"]), 1, [[Part(0, 0, 10)]])


def test_structures_of_several_chains_are_answered_whole() -> None:
    with load_client() as client, serving(foldmint(1)) as server:
        for kind in ("grpc", "unary", "stream"):
            sent = client.run(Task(kind, server.address, 2, [[Part(0, 0, 20), Part(1, 5, 30)], [Part(2, 0, 16)]]))
            assert sent.tokens == 61
            assert sent.seconds > 0
            assert len(sent.each) == (0 if kind == "stream" else 2)
        assert cpu_seconds(server.process) > 0.1


def test_the_figures_of_a_run_render(tmp_path: Path) -> None:
    served.main(file=tmp_path / "served.json", residues=300, rounds=1, threads=0)
    figures = json.loads((tmp_path / "served.json").read_text())
    ways = {"in process", "in process, all in one call", "unary, 1 client", "unary, 8 clients", "stream"}
    assert ways <= set(figures["ways"])
    assert figures["ways"]["in process"]["share"] == 1
    assert all(row["residues_per_second"] > 0 for row in figures["ways"].values())
    assert "gRPC stream against in process" in section("served", tmp_path)
