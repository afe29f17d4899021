"""The systems: each is a recipe class and its stages, named here and imported when used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """Where a system lives, as `"module:name"`.

    Args:
        recipe: Its `SystemRecipe` class.
        stages: Its tuple of `Stage`, one per section of the recipe and in the same order.
        export: Its function `export(plan, to, out, **choices)`; empty where there is nothing to export.
    """

    recipe: str
    stages: str
    export: str = ""


SYSTEMS = {
    "datasetgan": System(
        recipe="medseg_gan.systems.datasetgan.recipe:DatasetGanRecipe",
        stages="medseg_gan.systems.datasetgan.recipe:STAGES",
        export="medseg_gan.systems.datasetgan.export:export",
    ),
    "layered": System(
        recipe="medseg_gan.systems.layered.recipe:LayeredRecipe", stages="medseg_gan.systems.layered.recipe:STAGES"
    ),
}
