"""The systems: each is a recipe class and its stages, named here and imported when used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """Where a system lives, as `"module:name"`.

    Args:
        recipe: Its `SystemRecipe` class.
        stages: Its tuple of `Stage`, one per section of the recipe and in the same order.
    """

    recipe: str
    stages: str


SYSTEMS = {
    "datasetgan": System(
        recipe="medseg_gan.systems.datasetgan.recipe:DatasetGanRecipe",
        stages="medseg_gan.systems.datasetgan.recipe:STAGES",
    ),
    "layered": System(
        recipe="medseg_gan.systems.layered.recipe:LayeredRecipe", stages="medseg_gan.systems.layered.recipe:STAGES"
    ),
}
