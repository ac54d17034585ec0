"""Recipes: what a file says is what is done, and what means nothing is refused by name."""

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from foldmint_maintenance.errors import InvalidRecipe
from foldmint_maintenance.training.config import (
    ChainConfig,
    KMeansConfig,
    LossWeights,
    MotionCodesConfig,
    MotionConfig,
    MotionDecoderSizes,
    MotionDecoderTraining,
    TrainConfig,
)
from foldmint_maintenance.training.recipe import Recipe, read_recipe, recipe_path
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig

TABLES: dict[str, type[Any]] = {
    "sizes": ModelConfig,
    "encoder": MotionConfig,
    "vectors": MotionCodesConfig,
    "kmeans": KMeansConfig,
    "motion_decoder": MotionDecoderSizes,
    "motion_decoder_stage": MotionDecoderTraining,
    "codes": TrainConfig,
    "decoder": DecoderConfig,
    "joint_stage": ChainConfig,
    "decoder_stage": ChainConfig,
}


OF_MOTIONS = ("encoder", "vectors", "kmeans", "motion_decoder", "motion_decoder_stage")


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["foldmint", "geometry"])
def test_a_shipped_recipe_says_what_its_file_says(name: str) -> None:
    path = recipe_path(name)
    recipe, content = read_recipe(path), tomllib.loads(path.read_text(encoding="utf-8"))
    assert recipe.name == content.pop("name")
    for table, values in content.items():
        made = getattr(recipe, table)
        assert isinstance(made, TABLES[table])
        for key, value in values.items():
            assert getattr(made, key) == (tuple(value) if isinstance(value, list) else value), key
    for table in TABLES.keys() - content.keys():
        assert getattr(recipe, table) is None
    assert json.loads(json.dumps(recipe.as_json()))["encoder"]["steps"] == content["encoder"]["steps"]


def test_shipped_recipes_share_their_encoder() -> None:
    one, other = (read_recipe(recipe_path(name)) for name in ("foldmint", "geometry"))
    assert one.encoder == other.encoder
    assert one.sizes == other.sizes
    assert one.vectors != other.vectors


def test_a_file_is_taken_by_its_path(tmp_path: Path) -> None:
    assert recipe_path(str(tmp_path / "foldmint.toml")) == tmp_path / "foldmint.toml"
    assert recipe_path("mine.toml") == Path("mine.toml")


@pytest.mark.parametrize("table", TABLES)
def test_every_field_is_a_key(table: str, recipe_file: Path) -> None:
    file = recipe_path("foldmint") if table in OF_MOTIONS else recipe_file
    # No file has this table.
    own = ["kmeans.rounds=3"] if table == "kmeans" else []
    before = getattr(read_recipe(file, own), table)
    for field in fields(TABLES[table]):
        if field.name not in ("weights", "stage"):
            value = json.dumps(getattr(before, field.name))
            assert getattr(read_recipe(file, [*own, f"{table}.{field.name}={value}"]), table) == before


@pytest.mark.parametrize("field", [field.name for field in fields(LossWeights)])
def test_every_loss_has_a_weight(field: str, recipe_file: Path) -> None:
    stage = read_recipe(recipe_file, [f"joint_stage.weights.{field}=0.75"]).joint_stage
    assert stage is not None
    assert stage.weights == LossWeights(**{field: 0.75})


def test_a_table_that_is_missing_is_a_stage_left_out(tmp_path: Path) -> None:
    assert read_recipe(_written(tmp_path, "")) == Recipe("foldmint")
    found = read_recipe(_written(tmp_path, "[codes]\n[decoder_stage]\n[decoder_stage.weights]\nbinned = 1"))
    weights = LossWeights(binned=1)
    assert found == Recipe("foldmint", codes=TrainConfig(), decoder_stage=ChainConfig(weights=weights))


def test_stages_are_of_their_own_kind(tmp_path: Path) -> None:
    recipe = read_recipe(_written(tmp_path, "[joint_stage]\n[decoder_stage]"))
    assert recipe.joint_stage is not None
    assert recipe.decoder_stage is not None
    assert (recipe.joint_stage.stage, recipe.decoder_stage.stage) == ("joint", "decoder")
    with pytest.raises(InvalidRecipe, match="joint_stage: stage is 'decoder'"):
        read_recipe(_written(tmp_path, '[joint_stage]\nstage = "decoder"'))


def test_settings_change_tables_keys_and_what_was_not_there(recipe_file: Path) -> None:
    recipe = read_recipe(
        recipe_file,
        [
            "codes.steps=9",
            "codes.steps = 11",  # the last one counts
            "codes.learning_rate=1e-3",
            "codes.bf16=true",
            "codes.estimator=rotation",
            'joint_stage.estimator="rotation"',
            "decoder_stage.weights.binned=0.5",
            "name=another name",
        ],
    )
    assert recipe.codes is not None
    assert (recipe.codes.steps, recipe.codes.learning_rate, recipe.codes.bf16) == (11, 1e-3, True)
    assert recipe.codes.estimator == "rotation"
    assert recipe.codes.batch == 32
    assert recipe.joint_stage is not None
    assert recipe.joint_stage.estimator == "rotation"
    assert recipe.decoder_stage is not None
    assert recipe.decoder_stage.weights == LossWeights(binned=0.5)
    assert recipe.name == "another name"


def test_only_the_stages_asked_for_are_kept(recipe_file: Path) -> None:
    whole, some = read_recipe(recipe_file), read_recipe(recipe_file, stages=["joint_stage", "decoder_stage"])
    assert some.codes is None
    assert (some.joint_stage, some.decoder_stage) == (whole.joint_stage, whole.decoder_stage)
    assert (some.name, some.sizes, some.decoder) == (whole.name, whole.sizes, whole.decoder)
    assert read_recipe(recipe_file, stages=[]) == whole
    with pytest.raises(InvalidRecipe, match="there is no stage sizes"):
        read_recipe(recipe_file, stages=["codes", "sizes"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages.steps=1", "no table or key stages"),
        ("steps=1", "no table or key steps"),
        ("codes.step=1", r"codes.step is not a setting; there are batch, .*, steps, "),
        ("decoder_stage.weights.steps=1", r"decoder_stage.weights.steps is not a setting"),
        ("codes=1", "codes is not a table"),
        ("decoder_stage.weights=1", "decoder_stage.weights is not a table"),
        ("name.codes=1", "name is not a table"),
        ("codes.steps", "is not a TABLE.KEY=VALUE"),
        ("=1", "is not a TABLE.KEY=VALUE"),
        ("codes.=1", "is not a TABLE.KEY=VALUE"),
        ("codes.steps=4", "codes: steps must exceed"),
        ("codes.steps=ten", "codes.steps cannot be 'ten'"),
        ("codes.steps=nan", "codes.steps cannot be"),
        ("codes.steps=2026-11-29", "codes.steps cannot be '2026-11-29'"),
        ("codes.steps=10.5", "codes.steps cannot be 10.5"),
        ("codes.steps=true", "codes.steps cannot be True"),
        ("codes.bf16=1", "codes.bf16 cannot be 1"),
        ("codes.decay=true", "codes.decay cannot be True"),
        ("codes.estimator=straight", "codes.estimator is 'straight_through' or 'rotation', not 'straight'"),
        ("codes.initial_batches=0", "codes: batch, initial_batches"),
        ("sizes.width=wide", "sizes.width cannot be 'wide'"),
        ("decoder.heads=3", "decoder: DecoderConfig.width"),
        ("joint_stage.crop=1", "joint_stage: steps, batch"),
        ("joint_stage.estimator=none", "joint_stage.estimator is"),
        ("decoder_stage.decay=1.0", "decoder_stage: learning_rate"),
        ("decoder_stage.coarse_from=1.1", "decoder_stage: learning_rate"),
        ("decoder_stage.weights.step=heavy", "decoder_stage.weights.step cannot be 'heavy'"),
    ],
)
def test_what_means_nothing_is_refused_by_name(setting: str, message: str, recipe_file: Path) -> None:
    with pytest.raises(InvalidRecipe, match=message) as caught:
        read_recipe(recipe_file, [setting])
    assert not re.search("pydantic|https?:|Input should|validation error", str(caught.value))


def test_a_table_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match=r"sizes\.heads is missing; sizes\.layers is missing"):
        read_recipe(_written(tmp_path, "[sizes]\nwidth = 16"))


@pytest.mark.parametrize("content", [b"[codes", b"codes = \xff"])
def test_a_file_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidRecipe, match=r"recipe\.toml is not TOML"):
        read_recipe(path)
