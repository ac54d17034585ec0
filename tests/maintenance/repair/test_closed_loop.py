"""The loop, closed with real parts: traffic, Prometheus, repair by what it saw, swap, traffic, Prometheus."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_tokenizer.store.model_store import Store
from helpers.distributed.harmed_store import KILLED, create_harmed_store
from helpers.monitoring.real_prometheus import asked, awaited, prometheus
from helpers.support import running_server, stub_of
from helpers.traffic import streamed


@pytest.fixture
def store(chains: list[Record], tmp_path: Path) -> Path:
    """Codes trained on half of the chains; some were killed since."""
    path = tmp_path / "store"
    create_harmed_store(path, chains[::2])
    return path


def _hit(address: str, code: int) -> float:
    return asked(address, f'foldmint_code_hits_total{{code="{code}"}}') or 0.0


@pytest.mark.slow
def test_killed_codes_are_found_repaired_and_hit_again(store: Path, chains: list[Record], tmp_path: Path) -> None:
    half = list(itertools.islice(chains, 0, None, 2))
    data, gate_data = tmp_path / "data.parquet", tmp_path / "gate.parquet"
    write_parquet(half, data)
    write_parquet(chains[1::2], gate_data)
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with (
        running_server("--model", str(store)) as server,
        stub_of(server) as stub,
        prometheus(server.metrics, folder) as address,
    ):
        residues = streamed(stub, half)
        assert awaited(address, "sum(foldmint_code_hits_total)", residues) == residues
        assert awaited(address, "foldmint_dead_codes", len(KILLED)) == len(KILLED)
        assert all(_hit(address, code) == 0 for code in KILLED)

        report = tmp_path / "report.json"
        command = [sys.executable, "-m", "foldmint_maintenance.cli", "repair", "--store", str(store)]
        command += ["--data", str(data), "--gate-data", str(gate_data), "--prometheus", f"http://{address}"]
        command += ["--window", "1h", "--activate", server.admin, "--threads", "1"]
        command += [
            "--json-file",
            str(report),
            "--metrics-file",
            str(tmp_path / "job.prom"),
            "--report",
            str(tmp_path / "report.html"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        told = json.loads(report.read_text())
        assert (told["dead"], told["replaced"]) == (len(KILLED), list(KILLED))
        assert (told["published"], told["version"], told["parent"]) == (True, "000003", "000002")
        assert all(gate["passed"] for gate in told["gates"].values())
        assert Store(store).active() == "000003"
        assert 'foldmint_repair_replaced_codes{store="' in (tmp_path / "job.prom").read_text()
        assert "<h2>Gates</h2>" in (tmp_path / "report.html").read_text()

        assert awaited(address, 'foldmint_codebook_info{version="000003"}', 1) == 1
        # The canary, of 70 residues, went through the server too.
        again = 70 + streamed(stub, half)
        assert awaited(address, "sum(foldmint_code_hits_total)", residues + again) == residues + again
        assert all(_hit(address, code) > 0 for code in KILLED)
        assert awaited(address, "foldmint_dead_codes", 0) == 0
        assert asked(address, "foldmint_code_utilization_ratio") == 1
