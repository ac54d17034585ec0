"""Recipes of trainings: TOML files that say which stages there are, and with what settings.

name = "mine"                       the model's name
[sizes]                             of encoder and codebook: ModelConfig
[encoder]                           an encoder of motions: MotionConfig
[vectors]                           its vectors' scale, and codes by k-means: MotionCodesConfig
[motion_decoder]                    sizes of a decoder that reads vectors: MotionDecoderConfig without `out`
[motion_decoder_stage]              that decoder on the frozen codebook: MotionDecoderTraining
[codes]                             encoder and codebook by the local objective: TrainConfig
[refit]                             new vectors of that encoder: RefitConfig
[decoder]                           sizes of the decoder: DecoderConfig
[joint_stage]                       all three together: ChainConfig, and [joint_stage.weights]: LossWeights
[decoder_stage]                     the decoder alone: the same

A stage whose table is missing is left out.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from foldmint_maintenance.errors import InvalidRecipe
from foldmint_maintenance.training.chain_config import ChainConfig, LossWeights
from foldmint_maintenance.training.encoder_trainer import TrainConfig
from foldmint_maintenance.training.motion.codes import MotionCodesConfig
from foldmint_maintenance.training.motion.decoder_trainer import MotionDecoderSizes, MotionDecoderTraining
from foldmint_maintenance.training.motion.trainer import MotionConfig
from foldmint_maintenance.training.projection_refit import RefitConfig
from foldmint_tokenizer.decoder import DecoderConfig
from foldmint_tokenizer.encoder import ModelConfig

RECIPES = Path(__file__).parent / "recipes"
DEFAULT = RECIPES / "foldmint.toml"
STAGES = ("encoder", "vectors", "motion_decoder_stage", "codes", "refit", "joint_stage", "decoder_stage")
"""In the order in which they are done."""

_TABLES: dict[str, type[Any]] = {
    "sizes": ModelConfig,
    "encoder": MotionConfig,
    "vectors": MotionCodesConfig,
    "motion_decoder": MotionDecoderSizes,
    "motion_decoder_stage": MotionDecoderTraining,
    "codes": TrainConfig,
    "refit": RefitConfig,
    "decoder": DecoderConfig,
    "joint_stage": ChainConfig,
    "decoder_stage": ChainConfig,
}


@dataclass(frozen=True)
class Recipe:
    """Stages in their order; None where one is left out.

    sizes: needed where there is no model to begin with. decoder: sizes, needed by the last two stages in the same case.
    """

    name: str
    sizes: ModelConfig | None = None
    encoder: MotionConfig | None = None
    vectors: MotionCodesConfig | None = None
    motion_decoder: MotionDecoderSizes | None = None
    motion_decoder_stage: MotionDecoderTraining | None = None
    codes: TrainConfig | None = None
    refit: RefitConfig | None = None
    decoder: DecoderConfig | None = None
    joint_stage: ChainConfig | None = None
    decoder_stage: ChainConfig | None = None

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self)


def recipe_path(name: str) -> Path:
    """The file of a recipe: one that is shipped, by its name, or any other, by its path."""
    shipped = RECIPES / f"{name}.toml"
    return shipped if "/" not in name and shipped.exists() else Path(name)


def read_recipe(path: Path, settings: Iterable[str] = (), stages: Iterable[str] = ()) -> Recipe:
    """The recipe of a file.

    settings: changes to it, each `TABLE.KEY=VALUE` or `KEY=VALUE`, the value as TOML has it, or text. stages: those to
    keep of `STAGES`; all by default. Raises InvalidRecipe, naming table and key.
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
    unknown = content.keys() - _TABLES.keys() - {"name"}
    if unknown:
        raise InvalidRecipe(f"{path}: there is no table or key {min(unknown)}")
    parts = {name: _made(kind, content[name], name) for name, kind in _TABLES.items() if name in content}
    for name in ("joint_stage", "decoder_stage"):
        if name in parts and parts[name].stage != name.removesuffix("_stage"):
            raise InvalidRecipe(f"{name}: stage is {parts[name].stage!r}")
    return Recipe(name=str(content.get("name", "foldmint")), **parts)


def _made(kind: type[Any], table: object, name: str) -> Any:  # noqa: ANN401 (one of the configs)
    if not isinstance(table, Mapping):
        raise InvalidRecipe(f"{name} is not a table")
    known = {field.name for field in fields(kind)}
    unknown = table.keys() - known
    if unknown:
        raise InvalidRecipe(f"{name}.{min(unknown)} is not a setting; there are {', '.join(sorted(known))}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for field in fields(kind):
        if field.name in values and not _alike(values[field.name], field.default):
            raise InvalidRecipe(f"{name}.{field.name} cannot be {values[field.name]!r}")
    if "weights" in values and kind is ChainConfig:
        values["weights"] = _made(LossWeights, values["weights"], f"{name}.weights")
    if kind is ChainConfig:
        values.setdefault("stage", name.removesuffix("_stage"))
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InvalidRecipe(f"{name}: {error}") from error


def _alike(value: object, default: object) -> bool:
    """Whether a value is of the kind of its default; configs without defaults look at their values themselves."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_alike(each, default[0]) for each in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    kinds = (bool, int, str)
    return not isinstance(default, kinds) or type(value) is type(default)


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
