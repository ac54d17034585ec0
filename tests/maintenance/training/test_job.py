"""A training as a job: what it leaves behind, and how it stops and goes on."""

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foldmint_maintenance.datasets.loading import Digest
from foldmint_maintenance.datasets.records import Record, write_parquet
from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe, TrainingStopped
from foldmint_maintenance.training.config import TrainConfig
from foldmint_maintenance.training.encoder_trainer import Progress
from foldmint_maintenance.training.job import TrainJob, train
from foldmint_maintenance.training.recipe import Recipe, read_recipe
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import load_model


@pytest.fixture
def job(parquet: Path, tmp_path: Path, sizes: ModelConfig, quick: TrainConfig) -> TrainJob:
    """A job of the first stage alone."""
    return TrainJob(parquet, tmp_path / "job", Recipe("tiny", sizes, codes=quick), checkpoint_every=3)


def _nothing(*_: object) -> None:
    pass


def _training(job: TrainJob) -> Path:
    return job.out / "codes" / "training"


def _steps(job: TrainJob) -> list[int]:
    with (_training(job) / "log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def _about(model: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((model / "model.json").read_text())["about"]
    return about


def test_a_job_leaves_a_model_that_loads_with_windows_and_says_where_it_is_from(
    job: TrainJob, records: list[Record]
) -> None:
    told: list[tuple[Progress, int]] = []
    train(job, lambda *step: told.append(step), _nothing)
    assert [(progress.step, steps) for progress, steps in told] == [(step, 8) for step in range(1, 9)]
    model = load_model(job.finished)
    assert (model.name, model.config) == ("tiny", job.recipe.sizes)
    assert model.decoder is None
    assert model.codebook.windows is not None
    hit = ~torch.isnan(model.codebook.windows).flatten(1).any(1)
    assert 2 < hit.sum() <= 16
    # Each window is in the frame of its middle residue.
    np.testing.assert_allclose(model.codebook.windows[hit][:, 4, 1], 0, atol=1e-4)
    about = _about(job.finished)
    digest = Digest()
    list(digest.through(records))
    assert about["data"]["sha256"] == digest.sha256()
    assert about["data"]["name"] == "set.parquet"
    assert about["data"]["residues"] == sum(len(record.sequence) for record in records)
    assert about["recipe"]["codes"]["steps"] == 8
    assert (about["begun_with"], about["processes"]) == (None, 1)
    assert about["figures"]["perplexity"] == pytest.approx(told[-1][0].perplexity)
    assert _steps(job) == list(range(1, 9))
    assert sorted(path.name for path in job.out.iterdir()) == ["codes", "model"]
    assert sorted(path.name for path in (job.out / "codes").iterdir()) == ["model", "training"]
    assert sorted(path.name for path in _training(job).iterdir()) == ["checkpoint.safetensors", "log.csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_the_same_job_ends_as_if_unbroken(
    number: signal.Signals, job: TrainJob
) -> None:
    whole = replace(job, out=job.out.with_name("whole"))
    expected = train(whole, _nothing, _nothing)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(progress: Progress, _: int) -> None:
        if progress.step == 4:
            signal.raise_signal(number)

    with pytest.raises(TrainingStopped, match="after step 4"):
        train(job, interrupt, _nothing)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert _steps(job) == [1, 2, 3, 4]
    assert not job.finished.exists()

    said: list[str] = []
    again: list[int] = []
    found = train(job, lambda progress, _: again.append(progress.step), said.append)
    assert "going on after step 4" in said
    assert again == [5, 6, 7, 8]
    assert _steps(job) == list(range(1, 9))
    assert found.encoder_digest == expected.encoder_digest
    assert found.codebook.digest == expected.codebook.digest


def test_a_second_signal_stops_at_once(job: TrainJob) -> None:
    def interrupt(progress: Progress, _: int) -> None:
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(job, interrupt, _nothing)
    assert _steps(job) == [1]
    assert list(_training(job).glob("*.safetensors")) == []


def test_a_signal_that_is_ignored_stays_ignored(job: TrainJob) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(job, lambda *_: signal.raise_signal(signal.SIGINT), _nothing)
    finally:
        signal.signal(signal.SIGINT, before)
    assert _steps(job) == list(range(1, 9))


def test_the_log_forgets_steps_after_the_checkpoint(job: TrainJob) -> None:
    def crash(progress: Progress, _: int) -> None:
        if progress.step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(job, crash, _nothing)
    assert _steps(job) == [1, 2, 3, 4, 5]
    with (_training(job) / "log.csv").open("a") as file:
        file.write("6,1.0")  # cut short
    again: list[int] = []
    train(job, lambda progress, _: again.append(progress.step), _nothing)
    assert again == [4, 5, 6, 7, 8]
    assert _steps(job) == list(range(1, 9))


def test_a_crash_before_the_first_new_step_costs_no_row_of_the_log(
    job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(progress: Progress, _: int) -> None:
        if progress.step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        train(job, crash, _nothing)
    kept: list[list[int]] = []

    def fail(*_: object) -> None:
        kept.append(_steps(job))
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("foldmint_maintenance.training.encoder_trainer.Trainer.run", fail)
        with pytest.raises(RuntimeError):
            train(job, _nothing, _nothing)
    assert kept == [[1, 2, 3]]


def test_a_crash_after_the_last_step_costs_only_the_last_part(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("foldmint_maintenance.training.job.create_store", fail)
        with pytest.raises(OSError, match="disk full"):
            train(job, _nothing, _nothing)
    for part in (job.out / "model.part", job.out / "codes" / "model.part"):
        part.mkdir()
        (part / "left.over").touch()
    again: list[Progress] = []
    train(job, lambda progress, _: again.append(progress), _nothing)
    assert again == []
    files = ["ACTIVE", "codebooks", "encoder.safetensors", "model.json"]
    assert sorted(file.name for file in job.finished.iterdir()) == files
    assert sorted(path.name for path in job.out.iterdir()) == ["codes", "model"]
    assert _about(job.finished)["figures"]["step"] == 8


def test_no_resume_begins_anew_and_a_finished_job_is_not_overwritten(job: TrainJob) -> None:
    with pytest.raises(TrainingStopped):
        train(job, lambda *_: signal.raise_signal(signal.SIGINT), _nothing)
    again: list[int] = []
    train(replace(job, resume=False), lambda progress, _: again.append(progress.step), _nothing)
    assert again == list(range(1, 9))
    with pytest.raises(CheckpointMismatch, match="is there already"):
        train(job, _nothing, _nothing)
    with pytest.raises(CheckpointMismatch, match="is there already"):
        train(replace(job, resume=False), _nothing, _nothing)


def test_no_resume_forgets_later_stages_too(job: TrainJob, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = replace(job, recipe=read_recipe(recipe_file, stages=["codes", "joint_stage"]))
    train(both, _nothing, _nothing)
    (both.out / "model").rename(both.out / "kept")
    with pytest.raises(TrainingStopped):
        train(replace(both, resume=False), lambda *_: signal.raise_signal(signal.SIGINT), _nothing)
    assert sorted(path.name for path in both.out.iterdir()) == ["codes", "kept"]
    said: list[str] = []
    train(both, _nothing, said.append)
    assert "joint_stage is done" not in said


def test_a_job_with_other_settings_does_not_go_on(job: TrainJob) -> None:
    with pytest.raises(TrainingStopped):
        train(job, lambda *_: signal.raise_signal(signal.SIGINT), _nothing)
    assert job.recipe.codes is not None
    other = replace(job.recipe, codes=replace(job.recipe.codes, decay=0.5))
    with pytest.raises(CheckpointMismatch, match="config differ"):
        train(replace(job, recipe=other), _nothing, _nothing)


@pytest.mark.parametrize("change", ["codes", "sizes", "data", "model"])
def test_a_finished_stage_of_another_job_is_not_taken_up(
    change: str, job: TrainJob, records: list[Record], model: Model, tmp_path: Path
) -> None:
    train(job, _nothing, _nothing)
    (job.out / "model").rename(job.out / "kept")
    codes, sizes = job.recipe.codes, job.recipe.sizes
    assert codes is not None
    assert sizes is not None
    if change == "codes":
        job = replace(job, recipe=replace(job.recipe, codes=replace(codes, decay=0.5)))
    elif change == "sizes":
        job = replace(job, recipe=replace(job.recipe, sizes=replace(sizes, out=12)))
    elif change == "data":
        write_parquet(records[1:], job.data)
    elif change == "model":
        job = replace(job, model=tmp_path / "a-model")
    with pytest.raises(CheckpointMismatch, match=f"{change} differ"):
        train(job, _nothing, _nothing)


def test_a_stage_without_what_it_begins_with_is_refused(job: TrainJob, recipe_file: Path) -> None:
    whole = read_recipe(recipe_file)
    for recipe, message in (
        (Recipe("tiny"), "no stage"),
        (Recipe("tiny", codes=job.recipe.codes), "codes: the recipe has no sizes"),
        (Recipe("tiny", joint_stage=whole.joint_stage), "joint_stage: there is no encoder"),
        (replace(whole, decoder=None), "joint_stage: the recipe has no decoder"),
    ):
        with pytest.raises(InvalidRecipe, match=message):
            train(replace(job, recipe=recipe), _nothing, _nothing)


@pytest.mark.parametrize("wrong", [{"checkpoint_every": 0}, {"windows_residues": 0}, {"recipe": Recipe("")}])
def test_jobs_that_make_no_sense_are_refused(job: TrainJob, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|needs a name"):
        replace(job, **wrong)
