"""Settings of the layered GAN: arms are checked as the objective is, and become the numbers of a training."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from layered_example import build, reals, small
from pydantic import ValidationError

from medseg_gan.errors import UsageError
from medseg_gan.running.recipe import Section, list_recipes
from medseg_gan.systems.layered.codes import Prior
from medseg_gan.systems.layered.recipe import Objective, Prepare, TrainGan, TrainSegmenters
from medseg_gan.systems.layered.step import LayeredStep
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
    prior = build(prior="gaussian", c_dim=4, group=3).prior
    assert prior == Prior("gaussian", 4, 1)
    assert prior.parent_dim == 4


def test_an_arm_changes_what_it_names_and_nothing_else() -> None:
    config = section(odd={"gamma_mi": 5, "rounds": 2})
    main, odd = config.of_arm("main").identity(), config.of_arm("odd").identity()
    assert (odd["gamma_mi"], odd["rounds"]) == (5, 2)
    differing = [name for name in main if main[name] != odd[name]]
    assert sorted(differing) == ["gamma_mi", "rounds"]


def test_every_setting_is_read_by_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of objective, network and section that make a training what it is, in a step of every kind."""
    read, get = set(), Section.__getattribute__

    def noting(self: Section, name: str) -> Any:
        read.add(name)
        return get(self, name)

    settings = small(ema=0.5)
    monkeypatch.setattr(Section, "__getattribute__", noting)
    step = LayeredStep(settings, size=16, channels=3, seed=0, device="cpu", precision="fp32")
    for iteration in (1, 7, 9, 10):
        step(SimpleNamespace(state=SimpleNamespace(iteration=iteration)), {"image": reals()})  # type: ignore[arg-type]
    assert settings.iterations == 18
    assert settings.identity().keys() <= read


def test_the_papers_settings_are_those_of_table_c1() -> None:
    recipe = plan_recipe("cub_layered", profile="paper").recipe.settings
    settings = recipe.sections["train_gan"].of_arm("main")
    how = settings.objective
    assert (how.prior, how.c_dim, how.group) == ("categorical", 200, 10)
    assert (how.shift, how.degrees, how.shrink, how.contrast) == (16 / 128, 15, -0.2, None)
    assert (how.rounds, how.kimg, settings.gan_steps, settings.segmenter_steps) == (5, 2000, 62_500, 2000)
    assert (how.gamma_mi, how.gamma_bg, settings.lr, settings.batch_size) == (1, 2, 2e-4, 32)
    assert recipe.sections["train_segmenters"].steps == 12_000
    assert recipe.sections["prepare"].size == 128


def test_trainings_run_seed_by_seed() -> None:
    config = section(odd={"gamma_mi": 0}).model_copy(update={"seeds": 2})
    assert config.runs() == [("main", 0), ("odd", 0), ("main", 1), ("odd", 1)]


@pytest.mark.parametrize("size", [8, 48, 100])
def test_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(ValidationError, match="not a power of two of at least 16; use"):
        Prepare(size=size)


@pytest.mark.parametrize("name", RECIPES)
def test_every_arm_of_every_profile_makes_settings(name: str) -> None:
    header = next(header for header in list_recipes() if header.name == name)
    for profile in ("paper", *header.profiles):
        config = plan_recipe(name, profile=profile).recipe.settings.sections["train_gan"]
        assert all(config.of_arm(arm).iterations > 0 for arm in config.arms)
