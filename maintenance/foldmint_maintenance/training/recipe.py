"""Training recipes: TOML files with the stages of a training and their settings.

name = "mine"                       the model's name
[sizes]                             of encoder and codebook: ModelConfig
[encoder]                           a motion encoder: MotionConfig
[vectors]                           its vectors' scale, and codes by k-means: MotionCodesConfig
[kmeans]                            new codes by k-means, without changing the vectors' scale: KMeansConfig
[motion_decoder]                    sizes of a decoder that reads vectors: MotionDecoderSizes
[motion_decoder_stage]              that decoder on the frozen codebook: MotionDecoderTraining
[codes]                             encoder and codebook by the local objective: TrainConfig
[decoder]                           sizes of the decoder: DecoderConfig
[joint_stage]                       all three jointly: ChainConfig, and [joint_stage.weights]: LossWeights
[decoder_stage]                     the decoder alone: the same

A stage without a table is skipped.
"""

import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails

from foldmint_maintenance.errors import InvalidRecipe
from foldmint_maintenance.training.config import (
    ChainConfig,
    KMeansConfig,
    MotionCodesConfig,
    MotionConfig,
    MotionDecoderSizes,
    MotionDecoderTraining,
    TrainConfig,
)
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig

RECIPES = Path(__file__).parent / "recipes"
DEFAULT = RECIPES / "foldmint.toml"
STAGES = ("encoder", "vectors", "kmeans", "motion_decoder_stage", "codes", "joint_stage", "decoder_stage")
"""In the order in which they run."""


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class Recipe:
    """Tables of a recipe; None where one is left out.

    sizes: required without an initial model; so is decoder, by the last two stages.
    """

    name: str = "foldmint"
    sizes: ModelConfig | None = None
    encoder: MotionConfig | None = None
    vectors: MotionCodesConfig | None = None
    kmeans: KMeansConfig | None = None
    motion_decoder: MotionDecoderSizes | None = None
    motion_decoder_stage: MotionDecoderTraining | None = None
    codes: TrainConfig | None = None
    decoder: DecoderConfig | None = None
    joint_stage: ChainConfig | None = None
    decoder_stage: ChainConfig | None = None

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self)


_RECIPE = TypeAdapter(Recipe)


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe, by its name, or of any other, by its path."""
    shipped = RECIPES / f"{name}.toml"
    return shipped if "/" not in name and shipped.exists() else Path(name)


def read_recipe(path: Path, settings: Iterable[str] = (), stages: Iterable[str] = ()) -> Recipe:
    """The recipe of a file.

    settings: overrides, each `TABLE.KEY=VALUE` or `KEY=VALUE`; the value is TOML, or else a string. stages: those of
    `STAGES` to keep; all by default. Raises `InvalidRecipe`, which names table and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRecipe(f"{path} is not TOML: {error}") from error
    for setting in settings:
        _change(content, setting)
    kept = set(stages)
    every = set(STAGES)
    if not kept <= every:
        raise InvalidRecipe(f"there is no stage {min(kept - every)}; there are {', '.join(sorted(every))}")
    for stage in every - kept if kept else ():
        content.pop(stage, None)
    for stage in ("joint", "decoder"):
        table = content.get(f"{stage}_stage")
        if isinstance(table, dict) and table.setdefault("stage", stage) != stage:
            raise InvalidRecipe(f"{stage}_stage: stage is {table['stage']!r}")
    content["name"] = str(content.get("name", "foldmint"))
    try:
        # Through JSON, whose lists may become tuples in strict mode.
        return _RECIPE.validate_json(json.dumps(content, default=str))
    except ValidationError as invalid:
        raise InvalidRecipe("; ".join(_message(error) for error in invalid.errors(include_url=False))) from invalid


def _message(error: ErrorDetails) -> str:
    """What is wrong with a recipe, naming table and key."""
    *tables, key = map(str, error["loc"])
    path = ".".join([*tables, key])
    match error["type"]:
        case "unexpected_keyword_argument" if not tables:
            return f"there is no table or key {key}; there are {_keys(tables)}"
        case "unexpected_keyword_argument":
            return f"{path} is not a setting; there are {_keys(tables)}"
        case "missing":
            return f"{path} is missing"
        case "dataclass_type":
            return f"{path} is not a table"
        case "value_error":
            return f"{path}: {error['ctx']['error']}"
        case "literal_error":
            return f"{path} is {error['ctx']['expected']}, not {error['input']!r}"
        case _:
            return f"{path} cannot be {error['input']!r}"


def _keys(tables: Iterable[str]) -> str:
    """The keys of a table within tables."""
    kind: Any = Recipe
    for name in tables:
        hint = get_type_hints(kind)[name]
        kind = next(part for part in (hint, *get_args(hint)) if is_dataclass(part))
    return ", ".join(sorted(field.name for field in fields(kind)))


def _change(content: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not key:
        raise InvalidRecipe(f"{setting!r} is not a TABLE.KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = content
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InvalidRecipe(f"{setting!r}: {name} is not a table")
    table[key] = value
