"""Every shipped recipe is loaded against the code, in every profile."""

import pytest

from medseg_gan.running.recipe import list_recipes
from medseg_gan.systems.plan import plan_recipe

PROFILES = [(header.name, profile) for header in list_recipes() for profile in ("paper", *header.profiles)]


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_profile_loads_and_plans(name: str, profile: str) -> None:
    plan = plan_recipe(name, profile=profile)
    assert [step.stage.name for step in plan.steps()] == list(plan.recipe.settings.sections)
    assert all(stage.expected and stage.expected(plan.recipe.settings) for stage in plan.stages)


@pytest.mark.parametrize("name", sorted({name for name, _ in PROFILES}))
def test_recipe_says_where_it_comes_from_and_what_it_takes(name: str) -> None:
    header = next(header for header in list_recipes() if header.name == name)
    text = header.file.read_text()
    assert header.source and header.hours and header.dataset
    for word in ("Source:", "Hardware and hours", "Command:", "medseg-gan recipe"):
        assert word in text.split(f"recipe: {name}")[0]
