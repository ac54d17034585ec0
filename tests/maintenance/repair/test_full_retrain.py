"""Scope full: a new model, published only if it is no worse."""

from dataclasses import replace
from pathlib import Path

import pytest

from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.repair.full_retrain import retrained
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import Store, load_model
from helpers.distributed_repair import CONFIG, LIMITS


@pytest.fixture
def job(harmed: Path, parquet: Path, gate_data: Path) -> RepairJob:
    loose = replace(LIMITS, utilization=1.0)
    return RepairJob(str(harmed), replace(CONFIG, limits=loose), parquet, gate_data=gate_data)


def _quiet(_: str) -> None:
    pass


def _done(job: RepairJob, out: Path) -> object:
    return retrained(job, out, 6, None, _quiet, batch=128, crop=32)


def test_a_new_model_is_made(job: RepairJob, tmp_path: Path) -> None:
    done = retrained(job, tmp_path / "new", 6, None, _quiet, batch=128, crop=32)
    assert (done.dead, done.published, done.parent) == (3, True, "000002")
    made, old = load_model(tmp_path / "new" / "model"), load_model(job.store)
    assert made.encoder_digest != old.encoder_digest
    assert made.decoder_digest != old.decoder_digest
    # The store that it was made from is as it was.
    assert Store(job.store).versions() == ["000001", "000002"]
    assert {"utilization", "perplexity", "reconstruction_backbone_rmsd", "reconstruction_lddt_ca"} <= done.gates.keys()
    with pytest.raises(CheckpointMismatch, match="there already"):
        _done(job, tmp_path / "new")


def test_a_gate_that_fails_leaves_no_model(job: RepairJob, tmp_path: Path) -> None:
    strict = replace(job.config, limits=replace(job.config.limits, perplexity=0.0, utilization=0.0, reconstruction=0.0))
    done = retrained(replace(job, config=strict), tmp_path / "new", 6, None, _quiet, batch=128, crop=32)
    assert not done.passed
    assert not done.published
    assert not (tmp_path / "new" / "model").exists()
    # The training is kept: with other limits, it is not done again.
    told: list[str] = []
    assert retrained(job, tmp_path / "new", 6, None, told.append, batch=128, crop=32).published
    assert not any("stage" in text for text in told)


def test_a_dry_run_trains_nothing(job: RepairJob, tmp_path: Path) -> None:
    done = retrained(replace(job, dry_run=True), tmp_path / "new", 6, None, _quiet)
    assert (done.dead, done.published) == (3, False)
    assert not (tmp_path / "new").exists()


def test_what_it_needs(job: RepairJob, model: Model, tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="another for the gates"):
        _done(replace(job, gate_data=None), tmp_path / "new")
    with pytest.raises(InvalidRecipe, match="needs a decoder"):
        _done(replace(job, store=str(tmp_path / "a-model")), tmp_path / "new")
