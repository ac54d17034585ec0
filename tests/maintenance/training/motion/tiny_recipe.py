"""Recipes of models whose codes encode motions, so small that tests train them."""

from foldmint_maintenance.training.recipe import Recipe, read_recipe, recipe_path

TINY = [
    "sizes.width=16",
    "sizes.heads=2",
    "sizes.codes=64",
    "encoder.steps=6",
    "encoder.cooling=2",
    "encoder.batch=64",
    "encoder.compiled=false",
    "vectors.residues=2000",
    "vectors.rounds=3",
    "motion_decoder.width=32",
    "motion_decoder.heads=2",
    "motion_decoder.layers=1",
    "motion_decoder_stage.steps=4",
    "motion_decoder_stage.settling=2",
    "motion_decoder_stage.batch=128",
    "motion_decoder_stage.residues=2000",
]


def nothing(*_: object) -> None:
    pass


def tiny(name: str = "foldmint") -> Recipe:
    return read_recipe(recipe_path(name), TINY)
