"""What the benchmarks over the network send, and what they make of it."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.baselines.load import residues_of, whole
from benchmarks.speed import served


def test_whole_chains_up_to_so_many_residues() -> None:
    plan = whole([10, 20, 30], 45)
    assert [residues_of(structure) for structure in plan] == [10, 20, 30]


def test_bars_are_held_to_what_was_found() -> None:
    def figures(share: float, rate: float) -> dict[str, dict[str, float]]:
        return {
            served.IN_PROCESS: {"residues_per_second": rate, "share": 1.0},
            served.TOGETHER: {"share": 1.2},
            served.STREAM: {"share": 1.2 * share},
        }

    assert [bar["reached"] for bar in served.bars(figures(0.951, 4000))] == [True, True]
    assert [bar["reached"] for bar in served.bars(figures(0.949, 3999))] == [False, False]


@pytest.mark.slow
def test_a_few_chains_through_a_real_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        served.main(tmp_path / "served.json", residues=300, rounds=1, threads=1)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "served.json").read_text())
    (table,) = found["tables"]
    assert {"in process", "stream", "unary, 64 clients"} <= {row[0] for row in table["rows"]}
    assert all(row[1] > 0 for row in table["rows"])
    assert len(found["bars"]) == 2
    assert "stream" in capsys.readouterr().out
