"""`repair --counts`: dead codes are those without hits in a file, as a bulk job writes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foldmint_maintenance.errors import UsageUnknown
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.repair.job import repair
from foldmint_maintenance.usage.sources import from_file
from foldmint_tokenizer.store.model_store import Store
from helpers.distributed.distributed_repair import CONFIG

UNHIT = (3, 11)


def _write(path: Path, **fields: object) -> Path:
    """A bulk job's usage.json, of a job in which two of 16 codes had no hit."""
    counts = np.full(16, 5_000)
    counts[list(UNHIT)] = 0
    usage = {"source": "residues of s3://bucket/out", "version": "000002", "residues": int(counts.sum())}
    path.write_text(json.dumps({**usage, "counts": counts.tolist(), **fields}))
    return path


def _digest(store: Path) -> str:
    return Store(store).codebook("000002").digest


def test_codes_without_hits_in_a_file_are_repaired(
    harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path
) -> None:
    file = _write(tmp_path / "usage.json", codebook_sha256=_digest(harmed))
    job = RepairJob(str(harmed), CONFIG, parquet, gate_data=gate_data)
    log = list[str]()
    done = repair(job, lambda store, version: from_file(file, store.codebook(version).digest), log.append)
    assert (done.dead, done.replaced, done.version) == (2, UNHIT, "000003")
    assert any("residues of s3://bucket/out" in line for line in log)


def test_counts_of_another_codebook_are_refused(harmed: Path, tmp_path: Path) -> None:
    file = _write(tmp_path / "usage.json", codebook_sha256="0" * 64)
    with pytest.raises(UsageUnknown, match="another codebook"):
        from_file(file, _digest(harmed))
    assert from_file(_write(tmp_path / "without.json"), _digest(harmed)).residues == 14 * 5_000


def _run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "foldmint_maintenance.cli", "repair", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_option(harmed: Path, parquet: Path, gate_data: Path, tmp_path: Path) -> None:
    common = ("--store", harmed, "--data", parquet, "--gate-data", gate_data, "--dry-run", "--force", "--json")
    file = _write(tmp_path / "usage.json", codebook_sha256=_digest(harmed))
    done = _run(*common, "--counts", file)
    assert json.loads(done.stdout)["dead"] == 2, done.stderr
    assert "residues of s3://bucket/out" in done.stderr
    missing = _run(*common, "--counts", tmp_path / "none.json")
    assert (missing.returncode, "--counts: " in missing.stderr) == (1, True)
    both = _run(*common, "--counts", file, "--prometheus", "http://127.0.0.1:1")
    assert (both.returncode, "--counts, or by --prometheus" in both.stderr) == (2, True)
