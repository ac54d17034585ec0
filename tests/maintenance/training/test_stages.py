"""A whole recipe, stage after stage: broken off anywhere, it ends with the same encoder, codebook and decoder."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foldmint_maintenance.errors import CheckpointMismatch, TrainingStopped
from foldmint_maintenance.training.job import TrainJob, train
from foldmint_maintenance.training.recipe import read_recipe
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import create_store, load_model
from foldmint_tokenizer.vocabulary import BOS, EOS

STAGES = ["codes", "joint_stage", "decoder_stage"]
STEPS = {"codes": 8, "joint_stage": 6, "decoder_stage": 7}
# Enough of each that a poll sees a stage before it ends.
LONGER = ["codes.steps=40", "joint_stage.steps=25", "decoder_stage.steps=30", "decoder_stage.head_steps=20"]


@pytest.fixture
def job(parquet: Path, tmp_path: Path, recipe_file: Path) -> TrainJob:
    return TrainJob(parquet, tmp_path / "job", read_recipe(recipe_file), checkpoint_every=3)


def _nothing(*_: object) -> None:
    pass


def _digests(model: Model) -> tuple[str, str, str | None]:
    return model.encoder_digest, model.codebook.digest, model.decoder_digest


def _rows(folder: Path) -> list[int]:
    try:
        with (folder / "training" / "log.csv").open(newline="") as file:
            return [int(row["step"]) for row in csv.DictReader(file) if row["seconds"]]
    except FileNotFoundError:
        return []


def test_stages_follow_each_other_and_each_leaves_its_model(job: TrainJob) -> None:
    steps: Counter[int] = Counter()
    said: list[str] = []
    model = train(job, lambda _, of: steps.update([of]), said.append)
    assert steps == Counter(STEPS.values()) | Counter({of: of for of in STEPS.values()})
    assert [line.removeprefix("stage ") for line in said if line.startswith("stage ")] == STAGES
    after = {stage: load_model(job.out / stage / "model") for stage in STAGES}
    assert [after[stage].decoder is None for stage in STAGES] == [True, False, False]
    assert [after[stage].config.out for stage in STAGES] == [8, 8, 8]
    assert all(after[stage].codebook.windows is not None for stage in STAGES)
    assert len({after[stage].encoder_digest for stage in STAGES[:2]}) == 2
    # The last stage leaves encoder and codebook as they are.
    assert after["decoder_stage"].encoder_digest == after["joint_stage"].encoder_digest
    assert after["decoder_stage"].codebook.digest != after["codes"].codebook.digest
    before, last = after["joint_stage"].codebook.codebook, model.codebook.codebook
    assert torch.equal(before.embeddings, last.embeddings)
    assert _digests(model) == _digests(after["decoder_stage"])
    assert sorted(path.name for path in job.out.iterdir()) == sorted([*STAGES, "model"])


def test_what_happens_between_steps_is_told_to_its_end(job: TrainJob) -> None:
    """The first codebook and the output head, too, which take minutes at full size."""
    told: list[tuple[str, int | None]] = []
    done: list[int] = []

    def phase(name: str, total: int | None) -> Callable[[int], None]:
        told.append((name, total))
        done.append(0)
        place = len(done) - 1

        def advance(more: int) -> None:
            done[place] += more

        return advance

    # Without the joint stage, the decoder begins from nothing.
    train(replace(job, recipe=replace(job.recipe, joint_stage=None)), _nothing, _nothing, phase)
    assert [name for name, _ in told] == [
        "reading chains",
        *("computing vectors", "k-means", "measuring fragments"),
        *("computing tokens", "pretraining the output head"),
    ]
    assert [total for _, total in told[1:]] == done[1:]
    assert all(done)


def test_a_signal_between_any_two_steps_changes_nothing(job: TrainJob) -> None:
    expected = _digests(train(replace(job, out=job.out.with_name("whole")), _nothing, _nothing))
    times = [("codes", 2), ("codes", 8), ("joint_stage", 1), ("joint_stage", 4), ("decoder_stage", 3)]
    for stage, at in times:

        def interrupt(progress: tuple[int, ...], of: int, at: int = at, steps: int = STEPS[stage]) -> None:
            if (progress[0], of) == (at, steps):
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(TrainingStopped, match=f"after step {at};"):
            train(job, interrupt, _nothing)
        assert _rows(job.out / stage) == list(range(1, at + 1))
    said: list[str] = []
    assert _digests(train(job, _nothing, said.append)) == expected
    assert [f"{stage} is done" in said for stage in STAGES] == [True, True, False]
    for stage, steps in STEPS.items():
        assert _rows(job.out / stage) == list(range(1, steps + 1))


@pytest.mark.slow
def test_a_kill_at_any_moment_changes_nothing(job: TrainJob, recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file, LONGER)
    expected = _digests(train(replace(job, out=tmp_path / "whole", recipe=recipe), _nothing, _nothing))

    command = [
        sys.executable,
        "-m",
        "foldmint_maintenance.cli",
        "train",
        "--data",
        str(job.data),
        "--out",
        str(job.out),
    ]
    command += ["--recipe", str(recipe_file), "--checkpoint-every", "4", "--device", "cpu", "--threads", "1"]
    command += [part for setting in LONGER for part in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for stage, rows in (("codes", 6), ("joint_stage", 2), ("decoder_stage", 5)):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            while process.poll() is None and len(_rows(job.out / stage)) < rows:
                time.sleep(0.005)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not job.finished.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "going on after step" in done.stdout
    assert _digests(load_model(job.finished)) == expected
    for stage, steps in {"codes": 40, "joint_stage": 25, "decoder_stage": 30}.items():
        assert _rows(job.out / stage) == list(range(1, steps + 1))


def test_stages_done_one_by_one_make_the_same_model(job: TrainJob, recipe_file: Path) -> None:
    stages = ["codes", "decoder_stage"]
    together = replace(job, out=job.out.with_name("whole"), recipe=read_recipe(recipe_file, stages=stages))
    expected = train(together, _nothing, _nothing)
    begin: Path | None = None
    for stage in stages:
        part = replace(job, out=job.out / stage, recipe=read_recipe(recipe_file, stages=[stage]), model=begin)
        model = train(part, _nothing, _nothing)
        begin = part.finished
    assert (model.encoder_digest, model.decoder_digest) == (expected.encoder_digest, expected.decoder_digest)
    assert torch.equal(model.codebook.codebook.embeddings, expected.codebook.codebook.embeddings)


def test_a_decoder_of_other_codes_is_not_kept(
    job: TrainJob, decoding_model: Model, recipe_file: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_file, stages=["codes"])
    again = replace(job, out=tmp_path / "codes-alone", recipe=recipe, model=tmp_path / "a-decoding-model")
    assert train(again, _nothing, _nothing).decoder is None


def test_a_model_is_begun_with_as_it_is(
    job: TrainJob, decoding_model: Model, recipe_file: Path, tmp_path: Path
) -> None:
    settings = [
        "decoder_stage.steps=1",
        "decoder_stage.settling=0",
        "decoder_stage.learning_rate=1e-12",
        "decoder_stage.weight_decay=0.0",
    ]
    recipe = read_recipe(recipe_file, settings, ["decoder_stage"])
    begun = replace(job, recipe=recipe, model=tmp_path / "a-decoding-model")
    model = train(begun, _nothing, _nothing)
    assert _digests(model)[:2] == _digests(decoding_model)[:2]
    assert isinstance(model.decoder, Decoder)
    assert isinstance(decoding_model.decoder, Decoder)
    tokens = torch.tensor([[BOS, 3, 1, 4, 1, EOS]])
    with torch.no_grad():
        made, was = (one.states(one.embed(tokens)) for one in (model.decoder, decoding_model.decoder))
    torch.testing.assert_close(made, was)


def test_a_checkpoint_of_a_decoder_of_other_codes_is_refused(
    job: TrainJob, decoding_model: Model, recipe_file: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_file, stages=["decoder_stage"])
    begun = replace(job, recipe=recipe, model=tmp_path / "a-decoding-model")
    with pytest.raises(TrainingStopped):
        train(begun, lambda *_: signal.raise_signal(signal.SIGTERM), _nothing)
    held = decoding_model.codebook.codebook
    moved = held._replace(embeddings=held.embeddings + 1)
    encoder, decoder = decoding_model.encoder, decoding_model.decoder
    create_store(tmp_path / "other", name="tiny", encoder=encoder, codebook=moved, decoder=decoder, about={})
    with pytest.raises(CheckpointMismatch, match="codebook differ"):
        train(replace(begun, model=tmp_path / "other"), _nothing, _nothing)
