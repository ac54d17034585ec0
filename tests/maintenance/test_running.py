"""A training as a job: what it leaves behind, and how it stops and goes on."""

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldmint_maintenance.corpus import Record
from foldmint_maintenance.errors import OtherTraining, TrainingStopped
from foldmint_maintenance.running import TrainJob, train
from foldmint_maintenance.sources import Digest
from foldmint_maintenance.training import Progress, TrainConfig
from foldmint_tokenizer.encoder import ModelConfig
from foldmint_tokenizer.store import load_model


@pytest.fixture
def job(parquet: Path, tmp_path: Path, sizes: ModelConfig, quick: TrainConfig) -> TrainJob:
    return TrainJob(parquet, tmp_path / "job", "tiny", sizes, quick, checkpoint_every=3)


def _nothing(_: object) -> None:
    pass


def _steps(job: TrainJob) -> list[int]:
    with (job.training / "log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_a_job_leaves_a_model_that_loads_with_windows_and_says_where_it_is_from(
    job: TrainJob, records: list[Record]
) -> None:
    told: list[Progress] = []
    train(job, told.append, _nothing)
    model = load_model(job.finished)
    assert (model.name, model.config) == ("tiny", job.model)
    assert model.codebook.windows is not None
    hit = ~torch.isnan(model.codebook.windows).flatten(1).any(1)
    assert 2 < hit.sum() <= 16
    # Each window is in the frame of its middle residue.
    np.testing.assert_allclose(model.codebook.windows[hit][:, 4, 1], 0, atol=1e-4)
    about = json.loads((job.finished / "model.json").read_text())["about"]
    digest = Digest()
    list(digest.through(records))
    assert about["data"]["sha256"] == digest.sha256()
    assert about["data"]["name"] == "set.parquet"
    assert about["data"]["residues"] == sum(len(record.sequence) for record in records)
    assert about["training"]["steps"] == 8
    assert about["figures"]["perplexity"] == pytest.approx(told[-1].perplexity)
    assert _steps(job) == list(range(1, 9))
    assert not (job.out / "model.part").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_the_same_job_ends_as_if_unbroken(
    number: signal.Signals, job: TrainJob
) -> None:
    whole = replace(job, out=job.out.with_name("whole"))
    expected = train(whole, _nothing, _nothing)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(progress: Progress) -> None:
        if progress.step == 4:
            signal.raise_signal(number)

    with pytest.raises(TrainingStopped, match="after step 4"):
        train(job, interrupt, _nothing)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert _steps(job) == [1, 2, 3, 4]
    assert not job.finished.exists()

    said: list[str] = []
    again: list[int] = []
    found = train(job, lambda progress: again.append(progress.step), said.append)
    assert "going on after step 4" in said
    assert again == [5, 6, 7, 8]
    assert _steps(job) == list(range(1, 9))
    assert found.encoder_digest == expected.encoder_digest
    assert found.codebook.digest == expected.codebook.digest


def test_a_second_signal_stops_at_once(job: TrainJob) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(job, interrupt, _nothing)
    assert list(job.training.glob("*.safetensors")) == []


def test_a_signal_that_is_ignored_stays_ignored(job: TrainJob) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(job, lambda _: signal.raise_signal(signal.SIGINT), _nothing)
    finally:
        signal.signal(signal.SIGINT, before)
    assert _steps(job) == list(range(1, 9))


def test_the_log_forgets_steps_after_the_checkpoint(job: TrainJob) -> None:
    def crash(progress: Progress) -> None:
        if progress.step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(job, crash, _nothing)
    assert _steps(job) == [1, 2, 3, 4, 5]
    with (job.training / "log.csv").open("a") as file:
        file.write("6,1.0")  # cut short
    again: list[int] = []
    train(job, lambda progress: again.append(progress.step), _nothing)
    assert again == [4, 5, 6, 7, 8]
    assert _steps(job) == list(range(1, 9))


def test_a_crash_after_the_last_step_costs_only_the_last_part(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("foldmint_maintenance.running.create_store", fail)
        with pytest.raises(OSError, match="disk full"):
            train(job, _nothing, _nothing)
    (job.out / "model.part").mkdir()
    (job.out / "model.part" / "left.over").touch()
    again: list[Progress] = []
    train(job, again.append, _nothing)
    assert again == []
    assert sorted(file.name for file in job.finished.iterdir()) == [
        "ACTIVE",
        "codebooks",
        "encoder.safetensors",
        "model.json",
    ]
    assert json.loads((job.finished / "model.json").read_text())["about"]["figures"]["step"] == 8


def test_no_resume_begins_anew_and_a_finished_job_is_not_overwritten(job: TrainJob) -> None:
    with pytest.raises(TrainingStopped):
        train(job, lambda _: signal.raise_signal(signal.SIGINT), _nothing)
    again: list[int] = []
    train(replace(job, resume=False), lambda progress: again.append(progress.step), _nothing)
    assert again == list(range(1, 9))
    with pytest.raises(OtherTraining, match="is there already"):
        train(job, _nothing, _nothing)


def test_a_job_with_other_settings_does_not_go_on(job: TrainJob) -> None:
    with pytest.raises(TrainingStopped):
        train(job, lambda _: signal.raise_signal(signal.SIGINT), _nothing)
    with pytest.raises(OtherTraining, match="config differ"):
        train(replace(job, config=replace(job.config, decay=0.5)), _nothing, _nothing)
