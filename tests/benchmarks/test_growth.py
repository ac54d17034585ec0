"""Long chains are what they are said to be, requests at once all come back, and bars fail where they should."""

import mmap
import urllib.request

import numpy as np
import pytest

from benchmarks._load import pieces, queued, scraped
from benchmarks.speed import growth
from benchmarks.speed.growth import bars, joined, memory_mb, numbers
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer.neighborhoods import build_geometry
from helpers.support import running_server


def test_a_long_chain_is_of_real_ones_that_are_no_neighbors_of_each_other() -> None:
    records = list(read_parquet(growth.CHAINS))
    total = sum(len(one.residue_index) for one in records)
    size = total + 500  # so that the first comes again
    chain = joined(size)
    assert len(chain.residue_index) == size
    assert np.array_equal(chain.residue_index, np.arange(1, size + 1))
    rows = build_geometry(chain.coordinates, chain.residue_index).rows(slice(None))
    reach = np.linalg.norm(rows.origin - rows.origin[:, :1], axis=-1)[rows.exists]
    assert reach.max() < growth._APART / 2
    # The first again, with the same neighbors.
    same = rows.offset[total:] == rows.offset[: size - total]
    assert same[: len(records[0].residue_index) - 1].mean() > 0.99


def test_memory_of_an_array_is_seen() -> None:
    before = memory_mb("VmRSS")
    # Mapped anew: what malloc gives may be memory that was freed and never given back.
    held = np.frombuffer(mmap.mmap(-1, 50_000_000), np.uint8)
    held[:] = 1
    assert memory_mb("VmRSS") - before == pytest.approx(held.nbytes / 1e6, abs=15)


@pytest.mark.slow
def test_requests_at_once_are_all_answered() -> None:
    with running_server("--threads", "1") as server:
        found = queued(server.address, 60, 16)
        assert found["requests"] == 60
        assert found["residues_per_second"] > 0
        assert 0 < found["p50_ms"] <= found["p99_ms"]
        assert len(scraped(server.metrics)) == 20
        hits = _hits(server.metrics)
    with_frame = [
        int(np.isfinite(piece.coordinates).all((1, 2)).sum()) for _, piece in zip(range(60), pieces(16), strict=False)
    ]
    assert hits == 2 * sum(with_frame) + with_frame[0]  # two rounds, and one request before


def _hits(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("foldmint_code_hits_total{"))


def test_bars_fail_where_they_should() -> None:
    flat, grown = {100: 50.0, 1000: 60.0, 50_000: 70.0}, {1000: 60.0, 50_000: 600.0}
    good = bars({1000: 1e-3, 50_000: 1.1e-3}, {"default": flat, "esm3": flat}, {"under load": [30, 40, 90]})
    assert [bar["reached"] for bar in good] == [True] * 5
    bad = bars({1000: 1e-3, 50_000: 1.3e-3}, {"default": grown, "esm3": grown}, {"under load": [30, 60, 90]})
    assert [bar["reached"] for bar in bad] == [False] * 5


@pytest.mark.parametrize("text", ["", "1,x", "10,0"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SystemExit, match=r"comma-separated list of integers|at least 1"):
        numbers(text)
