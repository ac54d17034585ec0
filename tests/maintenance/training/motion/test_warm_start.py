"""An encoder's training that goes on from a model's."""

from dataclasses import replace
from pathlib import Path

import pytest
from maintenance.training.motion.tiny_recipe import TINY, nothing

from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe, TrainingStopped
from foldmint_maintenance.training.job import TrainJob, train
from foldmint_maintenance.training.motion.trainer import Progress
from foldmint_maintenance.training.recipe import Recipe, read_recipe, recipe_path
from foldmint_tokenizer.store.model_store import DEFAULT, load_model


def _first(recipe: Recipe, parquet: Path, out: Path, model: Path | None = None) -> tuple[Progress, list[str]]:
    """What the first step of the stage `encoder` tells, and what was logged."""
    told: list[Progress] = []
    said: list[str] = []
    train(TrainJob(parquet, out, recipe, model), lambda progress, _: told.append(progress), said.append)
    return told[0], said


def _alone(*settings: str) -> Recipe:
    return read_recipe(recipe_path("foldmint"), [*TINY, *_EMBEDDED, *settings], ["encoder"])


_EMBEDDED = ["sizes.width=128", "sizes.heads=16", "encoder.steps=3", "encoder.cooling=1", "encoder.bf16=false"]


@pytest.mark.parametrize("start", ["default", "geometry"])
def test_an_encoder_goes_on_from_the_models(start: str, parquet: Path, tmp_path: Path) -> None:
    """At another lever arm than the model's; of `geometry`, the rows of the environment begin anew."""
    recipe = _alone("encoder.lever=12.0")
    scratch, said = _first(recipe, parquet, tmp_path / "scratch")
    assert "from random weights" in said
    warm, said = _first(recipe, parquet, tmp_path / "warm", DEFAULT.with_name(start))
    assert "from the model's encoder" in said
    assert warm.motion_loss < scratch.motion_loss / 5
    assert warm.angle < scratch.angle / 10
    made = load_model(tmp_path / "warm" / "model")
    assert (made.lever, made.config.out) == (12.0, 16)


def test_a_model_of_other_sizes_gives_no_encoder(parquet: Path, tmp_path: Path) -> None:
    recipe = _alone("sizes.width=64", "sizes.heads=8", "sizes.out=14")
    with pytest.raises(InvalidRecipe, match="width is 128, not 64, heads is 16, not 8, out is 16, not 14"):
        train(TrainJob(parquet, tmp_path / "job", recipe, DEFAULT), nothing, nothing)


def test_a_warm_training_that_was_stopped_ends_the_same(parquet: Path, tmp_path: Path) -> None:
    job = TrainJob(parquet, tmp_path / "job", _alone(), DEFAULT, checkpoint_every=2)
    whole = train(replace(job, out=tmp_path / "whole"), nothing, nothing)

    def stop(progress: Progress, _: int) -> None:
        if progress.step == 3:
            raise TrainingStopped("as if killed")

    with pytest.raises(TrainingStopped):
        train(job, stop, nothing)
    # A training from another encoder, or from none, is another training.
    for other in (None, DEFAULT.with_name("geometry")):
        with pytest.raises(CheckpointMismatch, match="start differ"):
            train(replace(job, model=other), nothing, nothing)
    assert train(job, nothing, nothing).encoder_digest == whole.encoder_digest
