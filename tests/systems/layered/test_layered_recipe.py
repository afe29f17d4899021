"""Settings of the layered GAN: arms are checked as the objective is, and become the numbers of a training."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from medseg_gan.errors import UsageError
from medseg_gan.running.recipe import Section, list_recipes
from medseg_gan.systems.layered.codes import Prior
from medseg_gan.systems.layered.recipe import Objective, Prepare, TrainGan, TrainSegmenters
from medseg_gan.systems.layered.stages import layered_settings, runs_of
from medseg_gan.systems.plan import plan_recipe

RECIPES = [header.name for header in list_recipes() if header.name.endswith("_layered")]

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"gama_mi": 1}, "arm odd: gama_mi is not a setting of objective; did you mean gamma_mi?"),
    "out of bounds": ({"gamma_mi": -1}, "arm odd: gamma_mi is -1, wanted greater than or equal to 0"),
    "wrong type": ({"rounds": "many"}, "arm odd: rounds is 'many', wanted a valid integer"),
    "text for a number": ({"gamma_mi": "1"}, "arm odd: gamma_mi is '1', wanted a valid number"),
    "group of another size": ({"c_dim": 10}, "arm odd: c_dim 10 is not a multiple of group 3"),
    "group": ({"group": 5}, "arm odd: c_dim 12 is not a multiple of group 5"),
    "enlarging": ({"shrink": 0.3}, "arm odd: shrink"),
}


def section(**arms: dict[str, Any]) -> TrainGan:
    return TrainGan(objective=Objective(c_dim=12, group=3), arms={"main": {}, **arms})


@pytest.mark.parametrize("name", REFUSED)
def test_an_arm_is_refused_by_its_name(name: str) -> None:
    arm, words = REFUSED[name]
    with pytest.raises(ValidationError) as refused:
        section(odd=arm)
    assert len(refused.value.errors()) == 1
    assert words in refused.value.errors()[0]["msg"]


@pytest.mark.parametrize("name", REFUSED)
def test_an_arm_is_refused_in_one_line_of_the_command(name: str) -> None:
    arm, words = REFUSED[name]
    arms = json.dumps({"main": {}, "odd": arm})
    sets = ["train_gan.objective.c_dim=12", "train_gan.objective.group=3", f"train_gan.arms={arms}"]
    with pytest.raises(UsageError) as refused:
        plan_recipe("cub_layered", profile="smoke", sets=sets)
    line = str(refused.value)
    assert words in line and "\n" not in line
    assert "Value error" not in line and "Extra inputs" not in line


@pytest.mark.parametrize("arm", ["an arm", "../up", "a-b", ""])
def test_an_arms_name_becomes_a_folder(arm: str) -> None:
    with pytest.raises(ValidationError, match="not a name of letters"):
        TrainGan(arms={arm: {}})


@pytest.mark.parametrize("section", [TrainGan, TrainSegmenters])
def test_a_batch_has_two_images_for_batch_norm(section: type[Section]) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        section(batch_size=1)


def test_there_is_an_arm() -> None:
    with pytest.raises(ValidationError):
        TrainGan(arms={})


def test_a_gaussian_code_has_no_groups() -> None:
    settings = layered_settings(section(gaussian={"prior": "gaussian", "c_dim": 4}), "gaussian")
    assert settings.prior == Prior("gaussian", 4, 1)
    assert settings.prior.parent_dim == 4


def test_an_arm_changes_what_it_names_and_nothing_else() -> None:
    config = section(odd={"gamma_mi": 5, "rounds": 2})
    main, odd = layered_settings(config, "main"), layered_settings(config, "odd")
    assert (odd.gamma_mi, odd.rounds) == (5, 2)
    differing = [name for name in vars(main) if getattr(main, name) != getattr(odd, name)]
    assert sorted(differing) == ["gamma_mi", "rounds"]


def test_every_setting_of_the_section_reaches_the_training() -> None:
    """Each number of objective, network and section, changed alone, changes the settings."""
    config = section()
    before = layered_settings(config, "main")
    elsewhere = {"prior", "arms", "seeds", "objective", "network", "restarts", "watch_from", "workers"}
    elsewhere |= {"checkpoint_kimg", "sample_kimg", "d_norm", "segmenter", "contrast"}
    other = {"c_dim": 24, "group": 4, "segmenter_width": 32, "shrink": -0.3, "ema": 0.5, "reuse_fakes": True}
    for part in ("objective", "network", ""):
        owner = getattr(config, part) if part else config
        for name in type(owner).model_fields.keys() - elsewhere:
            value = getattr(owner, name)
            new = other.get(name, value * 0.5 if isinstance(value, float) and value else value + 1)
            if isinstance(value, float) and not value and name not in other:
                new = 0.5
            changed = owner.model_copy(update={name: new})
            whole = config.model_copy(update={part: changed}) if part else changed
            assert layered_settings(whole, "main") != before, f"{part}.{name} is not used"


def test_the_papers_settings_are_those_of_table_c1() -> None:
    recipe = plan_recipe("cub_layered", profile="paper").recipe.settings
    settings = layered_settings(recipe.sections["train_gan"], "main")
    how = settings.perturbation
    assert settings.prior == Prior("categorical", 200, 10)
    assert (how.shift, how.degrees, how.shrink, how.contrast) == (16 / 128, 15, -0.2, None)
    assert (settings.rounds, settings.gan_images, settings.segmenter_steps) == (5, 2_000_000, 2000)
    assert (settings.gamma_mi, settings.gamma_bg, settings.lr, settings.batch_size) == (1, 2, 2e-4, 32)
    assert recipe.sections["train_segmenters"].steps == 12_000
    assert recipe.sections["prepare"].size == 128


def test_trainings_run_seed_by_seed() -> None:
    config = section(odd={"gamma_mi": 0}).model_copy(update={"seeds": 2})
    assert runs_of(config) == [("main", 0), ("odd", 0), ("main", 1), ("odd", 1)]


@pytest.mark.parametrize("size", [8, 48, 100])
def test_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(ValidationError, match="not a power of two of at least 16; use"):
        Prepare(size=size)


@pytest.mark.parametrize("name", RECIPES)
def test_every_arm_of_every_profile_makes_settings(name: str) -> None:
    header = next(header for header in list_recipes() if header.name == name)
    for profile in ("paper", *header.profiles):
        config = plan_recipe(name, profile=profile).recipe.settings.sections["train_gan"]
        assert all(layered_settings(config, arm).iterations > 0 for arm in config.arms)
