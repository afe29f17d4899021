"""The systems: each is a recipe class and its stages, named here and imported on use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """Where a system lives, as `"module:name"`.

    Args:
        recipe: Its `SystemRecipe` class.
        stages: Its tuple of `Stage`, one per section of the recipe and in the same order.
        export: Its function `export(plan, to, out, **choices)`; empty where there is nothing to export.
        factory: Its function `open_factory(plan, device)`; empty where nothing labels generated images.
        synthesize: Its function `synthesize_pairs(plan, out, num=..., **choices)`; empty as `factory`.
        annotate: Its function `annotate_on_page(plan, **choices)`; empty where nothing is painted by a person.
    """

    recipe: str
    stages: str
    export: str = ""
    factory: str = ""
    synthesize: str = ""
    annotate: str = ""


SYSTEMS = {
    "datasetgan": System(
        recipe="medseg_gan.systems.datasetgan.recipe:DatasetGanRecipe",
        stages="medseg_gan.systems.datasetgan:STAGES",
        export="medseg_gan.systems.datasetgan.export.runs:export",
        annotate="medseg_gan.systems.datasetgan.annotation.page:annotate_on_page",
        factory="medseg_gan.systems.datasetgan.production.files:open_factory",
        synthesize="medseg_gan.systems.datasetgan.production.synthesize:synthesize_pairs",
    ),
    "layered": System(
        recipe="medseg_gan.systems.layered.recipe:LayeredRecipe", stages="medseg_gan.systems.layered:STAGES"
    ),
}
