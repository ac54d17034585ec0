"""A repair from end to end, in this process: what it changes, what it leaves, what it publishes, what it refuses."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_maintenance.errors import InvalidSet, OtherVersion, TrainingStopped
from foldmint_maintenance.repair import gates
from foldmint_maintenance.repair.canary import canary_from
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.job import repair
from foldmint_maintenance.repair.result import RepairResult
from foldmint_maintenance.usage.statistics import CodeCounts
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.errors import ModelError, StoreLocked
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store
from helpers.distributed.distributed_repair import CONFIG, KILLED, LIMITS, killed


@pytest.fixture
def job(harmed: Path, parquet: Path, gate_data: Path) -> RepairJob:
    return RepairJob(str(harmed), CONFIG, parquet, gate_data=gate_data)


def _quiet(_: str) -> None:
    pass


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "LOCK" not in path.parts
    }


@pytest.mark.parametrize("strategy", ["batch", "kmeans++"])
def test_dead_codes_are_put_to_use_and_live_ones_stay(job: RepairJob, strategy: Any, data: Any) -> None:
    job = replace(job, config=replace(CONFIG, strategy=strategy))
    done = repair(job, None, _quiet)
    assert (done.dead, done.replaced, done.published, done.activated) == (3, KILLED, True, True)
    assert (done.version, done.parent) == ("000003", "000002")
    store = Store(job.store)
    assert store.active() == "000003"
    before, after = (store.codebook(version).codebook for version in ("000002", "000003"))
    live = [code for code in range(16) if code not in KILLED]
    for name in Codebook._fields:
        assert torch.equal(getattr(before, name)[live], getattr(after, name)[live]), name
    model = store.load()
    with torch.no_grad():
        z = model.encoder(*(torch.from_numpy(part) for part in data.rows(slice(None))))
    hits = torch.bincount(nearest_code(z, after.embeddings)[0], minlength=16)
    assert hits[list(KILLED)].min() > 0
    assert done.gates["live_rows"].after == 0
    assert done.gates["quantization_error"].after < done.gates["quantization_error"].before
    assert all(gate.passed for gate in done.gates.values())
    assert done.churn == done.gates["churn"].after
    assert 0 < done.churn < 1


def test_what_is_published_says_where_it_came_from(job: RepairJob) -> None:
    done = repair(job, None, _quiet)
    store = Store(job.store)
    manifest = store.manifest("000003")
    assert manifest["parent"] == "000002"
    about = manifest["about"]
    assert about["replaced"] == list(KILLED)
    assert about["gates"] == json.loads(json.dumps(done.as_json()["gates"]))
    assert {"scope", "strategy", "dead_threshold", "seed", "created", "foldmint", "statistics", "churn"} <= about.keys()
    assert about["data"]["chains"] == 6
    assert about["data"]["gate"]["chains"] == 6
    canary = canary_from(manifest)
    assert canary is not None
    own = canary.backbone
    (chain,) = StructureTokenizer(store.load()).tokenize(
        backbone(own.coordinates, chain=own.chain, sequence=own.sequence, residue_index=own.residue_index)
    )
    assert tuple(chain.tokens.tolist()) == canary.tokens


def test_decoder_rows_of_replaced_codes_alone_change(job: RepairJob) -> None:
    done = repair(job, None, _quiet)
    model = Store(job.store).load()
    assert isinstance(model.decoder, Decoder)
    rows = model.codebook.decoder_rows
    assert rows is not None
    assert rows.codes.tolist() == list(KILLED)
    own, now = model.decoder.embed.weight, model.codebook.embedding(model.decoder)
    changed = (own != now).any(1).nonzero().flatten().tolist()
    assert changed == list(KILLED)
    told = done.statistics["reconstruction"]
    assert told.keys() == {"before", "after", "without_rows"}
    assert {"reconstruction_backbone_rmsd", "reconstruction_lddt_ca"} <= done.gates.keys()
    # A later repair keeps the rows of an earlier one.
    store = Store(job.store)
    store.publish(killed(model.codebook.codebook, (7,)), parent="000003", decoder_rows=rows, about={})
    store.activate("000004")
    again = repair(job, None, _quiet)
    assert again.replaced == (7,)
    later = store.codebook(again.version).decoder_rows
    assert later is not None
    assert later.codes.tolist() == [2, 5, 7, 11]
    assert torch.equal(later.rows[[0, 1, 3]], rows.rows)


def test_nothing_to_repair_changes_nothing(job: RepairJob, harmed: Path) -> None:
    first = repair(job, None, _quiet)
    before = _content(harmed)
    again = repair(job, None, _quiet)
    assert (again.dead, again.replaced, again.published, again.version) == (0, (), False, first.version)
    assert again.passed
    assert "nothing is to be repaired" in again.notes
    assert _content(harmed) == before


def test_a_dry_run_tells_and_changes_nothing(job: RepairJob, harmed: Path) -> None:
    before = _content(harmed)
    done = repair(replace(job, dry_run=True), None, _quiet)
    assert (done.dead, done.replaced, done.published, done.version) == (3, KILLED, False, "000002")
    assert _content(harmed) == before
    assert not (harmed / "LOCK").exists()


@pytest.mark.parametrize("gate", ["quantization_error", "utilization", "perplexity", "churn", "reconstruction_lddt_ca"])
def test_a_gate_that_fails_publishes_nothing(
    gate: str, job: RepairJob, harmed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _content(harmed)
    made = gates.codebook_gates, gates.reconstruction_gates

    def failing(which: int) -> Callable[..., dict[str, Any]]:
        def checked(*given: Any) -> dict[str, Any]:
            found = made[which](*given)
            return {name: replace(one, passed=one.passed and name != gate) for name, one in found.items()}

        return checked

    monkeypatch.setattr(gates, "codebook_gates", failing(0))
    monkeypatch.setattr(gates, "reconstruction_gates", failing(1))
    done = repair(job, None, _quiet)
    assert (done.published, done.activated, done.passed) == (False, False, False)
    assert any(gate in note for note in done.notes)
    assert _content(harmed) == before


def test_a_real_gate_fails(job: RepairJob) -> None:
    """No token may change, and some do."""
    strict = replace(CONFIG, limits=replace(LIMITS, churn=0.0))
    done = repair(replace(job, config=strict), None, _quiet)
    assert not done.gates["churn"].passed
    assert not done.published


def test_too_little_exposure_calls_nothing_dead(job: RepairJob) -> None:
    counts = CodeCounts(np.r_[np.zeros(3), np.ones(13)], 13, None, "a test")
    done = repair(job, lambda *_: counts, _quiet)
    assert (done.dead, done.published) == (0, False)
    assert any("0.81 residues were seen a code" in note for note in done.notes)


def test_hits_tell_what_is_dead(job: RepairJob) -> None:
    hits = np.full(16, 100.0)
    hits[[3, 4]] = 0
    done = repair(job, lambda store, version: CodeCounts(hits, 1400, version, "a test"), _quiet)
    assert done.replaced == (3, 4)
    assert done.exposure == pytest.approx(1400 / 16)


def test_repeats_are_no_evidence_of_death(job: RepairJob) -> None:
    """15 residues a code, but a few structures sent twenty times: the codes that they lack are rare, not dead."""
    hits = 20.0 * np.array([1, 0, 0, 1, 2, 0, 1, 0, 3, 1, 0, 0, 1, 0, 1, 1])
    counts = CodeCounts(hits, int(hits.sum()), "000002", "a test")
    done = repair(replace(job, dry_run=True), lambda *_: counts, _quiet)
    assert done.exposure > CONFIG.min_exposure
    assert done.replaced == (2, 5, 11), "those that the codebook's own N calls dead too"
    told = done.statistics["evidence"]
    assert told["design_effect"] > 5
    assert told["undecided"] == 4
    assert any("4 codes without a hit are too rare to be called dead" in note for note in done.notes)
    forced = replace(job, dry_run=True, config=replace(CONFIG, force=True))
    assert repair(forced, lambda *_: counts, _quiet).replaced == (1, 2, 5, 7, 10, 11, 13)


def test_gates_need_a_set_of_some_size(job: RepairJob) -> None:
    small = replace(CONFIG, min_gate_chains=30, min_gate_residues=5000)
    with pytest.raises(InvalidSet, match=r"6 chains with 255 residues, and 30 chains with 5000 residues are needed"):
        repair(replace(job, config=small), None, _quiet)
    assert repair(replace(job, config=replace(small, force=True)), None, _quiet).published


@pytest.mark.parametrize(("threshold", "measure", "dead"), [(0.02, "frequency", 1), (40_000, "count", 16)])
def test_thresholds(threshold: float, measure: Any, dead: int, job: RepairJob) -> None:
    hits = np.full(16, 100.0)
    hits[0] = 20
    config = replace(CONFIG, dead_threshold=threshold, measure=measure)
    job = replace(job, config=config, dry_run=True)
    assert repair(job, lambda *_: CodeCounts(hits, 1520, None, ""), _quiet).dead == dead


def test_counts_of_another_version_are_refused(job: RepairJob) -> None:
    with pytest.raises(OtherVersion, match="of codebook 000001, and 000002 is active"):
        repair(job, lambda *_: CodeCounts(np.ones(16), 16, "000001", ""), _quiet)
    with pytest.raises(OtherVersion, match="counts of 8 codes"):
        repair(job, lambda *_: CodeCounts(np.ones(8), 8, None, ""), _quiet)


def test_fine_tuning_moves_all(job: RepairJob) -> None:
    config = replace(CONFIG, scope="finetune", finetune_steps=30, finetune_batch=200, decay=0.9)
    done = repair(replace(job, config=config), None, _quiet)
    assert done.published
    assert "live_rows" not in done.gates
    store = Store(job.store)
    before, after = (store.codebook(version).codebook.embeddings for version in ("000002", "000003"))
    assert (before != after).any(1).all()
    rows = store.codebook().decoder_rows
    assert rows is not None
    assert rows.codes.tolist() == list(range(16))
    # Without a dead code too.
    again = repair(replace(job, config=config), None, _quiet)
    assert (again.dead, again.published) == (0, True)


def test_chains_are_kept_back_for_the_gates(job: RepairJob, records: list[Record], tmp_path: Path) -> None:
    many = [replace(record, id=f"{n:04d}_{record.id[-1]}") for n in range(8) for record in records]
    path = tmp_path / "many.parquet"
    write_parquet(many, path)
    job = replace(job, data=path, gate_data=None, config=replace(CONFIG, gate_share=0.3))
    done = repair(job, None, _quiet)
    assert 0 < done.about["data"]["gate_residues"] < done.about["data"]["residues"]
    with pytest.raises(InvalidSet, match="too few chains"):
        repair(replace(job, config=replace(job.config, gate_share=1e-9), store=_again(job)), None, _quiet)


def _again(job: RepairJob) -> str:
    Store(job.store).activate("000002")
    return job.store


def test_one_at_a_time(job: RepairJob) -> None:
    with StoreLock(Store(job.store).files), pytest.raises(StoreLocked):
        repair(job, None, _quiet)
    assert repair(job, None, _quiet).published


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_give_the_lock_back(number: signal.Signals, job: RepairJob, harmed: Path) -> None:
    before = _content(harmed)

    def tell(text: str) -> None:
        if text.startswith("moving"):
            os.kill(os.getpid(), number)
            threading.Event().wait(5)

    with pytest.raises(TrainingStopped, match=number.name):
        repair(job, None, tell)
    assert _content(harmed) == before
    assert repair(job, None, _quiet).published


def test_a_store_that_cannot_be_read_is_told(tmp_path: Path, parquet: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json"):
        repair(RepairJob(str(tmp_path / "none"), CONFIG, parquet), None, _quiet)


@pytest.mark.parametrize(
    "given",
    [{}, {"data": Path("x"), "servers": ("a:1",)}, {"servers": ("a:1",), "gate_data": Path("x")}],
)
def test_jobs_that_make_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="data"):
        RepairJob("store", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"scope": "all"},
        {"strategy": "random"},
        {"measure": "hits"},
        {"residues": 0},
        {"rounds": -1},
        {"dead_threshold": -1.0},
        {"gate_share": 1.0},
        {"decay": 1.0},
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RepairConfig(**given)


def test_a_result_is_json(job: RepairJob) -> None:
    told = json.loads(json.dumps(repair(job, None, _quiet).as_json()))
    assert told["replaced"] == list(KILLED)
    assert told["gates"]["churn"].keys() == {"before", "after", "limit", "passed"}
    assert isinstance(RepairResult(0, (), False, "1", None).as_json(), dict)
