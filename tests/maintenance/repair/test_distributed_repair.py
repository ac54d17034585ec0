"""Two processes repair a codebook as one would, and neither ends without the other."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.store.lock import read_lock
from foldmint_tokenizer.store.model_store import Store
from helpers.distributed import distributed_repair
from helpers.distributed.torchrun import rank_of, torchrun, waited

pytestmark = pytest.mark.slow


def test_two_processes_repair_as_one_does(harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(harmed, alone)
    process = torchrun(distributed_repair.__file__, harmed, parquet, gate_data, tmp_path)
    expected = distributed_repair.repaired(alone, parquet, gate_data, ALONE)
    status, _, err = waited(process)
    assert status == 0, err
    assert expected.codebook is not None
    first, second = (load_file(tmp_path / f"codebook.{rank}.safetensors") for rank in (0, 1))
    published = Store(harmed).codebook("000003").codebook
    for name in Codebook._fields:
        assert torch.equal(first[name], second[name]), name
        assert torch.equal(first[name], getattr(published, name)), name
        torch.testing.assert_close(first[name], getattr(expected.codebook, name), rtol=1e-6, atol=1e-6)
    assert Store(harmed).active() == "000003"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_job(rank: int, harmed: Path, parquet: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command: list[str | Path] = ["-m", "foldmint_maintenance.cli", "repair", "--store", harmed, "--data", parquet]
    command += ["--gate-data", parquet, "--force", "--row-steps", "100000", "--device", "cpu", "--threads", "1"]
    command += ["--json-file", report]
    process = torchrun(*command)
    assert process.stderr is not None
    said = ""
    while "retraining the decoder's rows" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(0.5)
    own = rank_of(process, rank)
    assert own is not None
    os.kill(own, signal.SIGKILL)
    status, _, err = waited(process)
    assert status != 0
    if rank == 1:
        told = [line for line in err.splitlines() if line.startswith(("error: another process", "stopped by"))]
        assert told, err
    # The first process writes the report, whatever the outcome, unless it is the one that was killed.
    assert report.exists() == (rank == 1)
    store = Store(harmed)
    assert (store.versions(), store.active()) == (["000001", "000002"], "000002")
    held = read_lock(store.files)
    assert held is not None
    assert held.is_free(time.time())
    # And the next run succeeds.
    assert distributed_repair.repaired(harmed, parquet, parquet, ALONE).published
    assert json.loads(json.dumps(store.manifest("000003")["about"]["processes"])) == 1
