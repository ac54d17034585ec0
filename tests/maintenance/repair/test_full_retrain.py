"""Scope full: a new model, published only if it is no worse."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldmint_maintenance.datasets.records import PreparedSet, Record, write_parquet
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.repair.full_retrain import retrained
from foldmint_maintenance.repair.gates import GateLimits
from foldmint_maintenance.repair.run_record import Advance, RunProgress
from foldmint_maintenance.training.config import MotionCodesConfig
from foldmint_maintenance.training.latents import vectors_of
from foldmint_maintenance.training.motion.codes import motion_codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.motion_decoder import MotionDecoder, MotionDecoderConfig
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import DEFAULT, Store, create_store, load_model
from helpers.distributed.distributed_repair import CONFIG, LIMITS, killed


@pytest.fixture
def motions(sizes: ModelConfig, data: PreparedSet, tmp_path: Path) -> Callable[[int, bool], Path]:
    """Makes stores of models whose codes encode motions: so many numbers a vector, with a decoder or without."""

    def make(out: int, decodes: bool) -> Path:
        torch.manual_seed(0)
        encoder = Encoder(replace(sizes, out=out)).eval()
        z = vectors_of(encoder, data, np.arange(len(data)), ALONE, "cpu")
        codebook = motion_codebook(z, sizes.codes, MotionCodesConfig(9.0, rounds=3))
        decoder = MotionDecoder(MotionDecoderConfig(32, 2, 1, out, corrections=False)) if decodes else None
        path = tmp_path / "motions"
        create_store(path, name="tiny", encoder=encoder, codebook=codebook, decoder=decoder, lever=9.0, about={})
        store = Store(path)
        store.activate(store.publish(killed(codebook), parent="000001", about={}).version)
        return path

    return make


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


def test_measurements_before_and_after_are_told_to_their_end(job: RepairJob, tmp_path: Path) -> None:
    totals: dict[str, int | None] = {}
    done: Counter[str] = Counter()

    class Told(RunProgress):
        def phase(self, name: str, total: int | None) -> Advance:
            totals[name] = total
            return lambda more: done.update({name: more})

    retrained(job, tmp_path / "new", 6, None, _quiet, Told(), batch=128, crop=32)
    for measured in ("measuring the old model", "measuring the new model"):
        assert totals[measured] == done[measured] > 0


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


@pytest.mark.parametrize(("out", "decodes"), [(16, True), (12, False)])
def test_a_model_whose_codes_state_motions_goes_on(
    out: int, decodes: bool, motions: Callable[[int, bool], Path], job: RepairJob, tmp_path: Path
) -> None:
    path = motions(out, decodes)
    old = load_model(path)
    job = replace(job, store=str(path))

    def die(text: str) -> None:
        if text == "stage kmeans":
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        retrained(job, tmp_path / "new", 6, None, die, batch=128, crop=32)
    told: list[str] = []
    done = retrained(job, tmp_path / "new", 6, None, told.append, batch=128, crop=32)
    assert "encoder is done" in told
    assert (done.dead, done.published, done.parent) == (3, True, "000002")
    made = load_model(tmp_path / "new" / "model")
    assert (made.config, made.lever) == (old.config, old.lever)
    assert made.encoder_digest != old.encoder_digest
    assert (made.decoder is None) == (old.decoder is None)
    assert (made.codebook.codebook.N > 0).all()
    assert {"utilization", "perplexity", "quantization_error"} <= done.gates.keys()
    assert ("reconstruction_backbone_rmsd" in done.gates) == decodes
    assert Store(path).versions() == ["000001", "000002"]


@pytest.mark.slow
def test_the_embedded_model_goes_on_and_gates_refuse_what_a_few_steps_made_worse(
    chains: list[Record], tmp_path: Path
) -> None:
    """Eight steps give every killed code a place, and cost accuracy that only a long run wins back."""
    path = tmp_path / "store"
    shutil.copytree(DEFAULT, path)
    store = Store(path)
    whole = store.load().codebook.codebook
    store.activate(store.publish(killed(whole, tuple(range(0, 4096, 10))), parent="000001", about={}).version)
    write_parquet(chains[:60], tmp_path / "train.parquet")
    write_parquet(chains[60:75], tmp_path / "gate.parquet")
    config = replace(CONFIG, limits=GateLimits())
    job = RepairJob(str(path), config, tmp_path / "train.parquet", gate_data=tmp_path / "gate.parquet")
    done = retrained(job, tmp_path / "new", 8, None, _quiet, batch=256, crop=64)
    assert (done.dead, done.published, done.parent) == (410, False, "000002")
    assert not done.gates["reconstruction_backbone_rmsd"].passed
    assert not (tmp_path / "new" / "model").exists()
    made = load_model(tmp_path / "new" / "training" / "model")
    assert (made.config, made.lever) == (load_model().config, load_model().lever)
    assert (made.codebook.codebook.N > 0).all()
    lddt = done.gates["reconstruction_lddt_ca"]
    assert lddt.after > 0.7 * lddt.before
