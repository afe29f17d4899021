"""Trainings side by side: arms that differ in what they optimise, each with several seeds."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import Field, PositiveInt, ValidationError, model_validator

from medseg_gan.errors import did_you_mean
from medseg_gan.running.recipe import Section

A = TypeVar("A", bound="Arms")


class Arms(Section):
    """Base of a section whose `objective` the arms of a comparison change.

    Example:
        class TrainGan(Arms):
            objective: Objective = Objective()  # with `arms: {main: {}, no_mi: {gamma_mi: 0}}` and `seeds: 3`

        for arm, seed in config.runs():
            train(config.of_arm(arm), seed)
    """

    objective: Section
    arms: dict[str, dict[str, Any]] = Field(
        {"main": {}}, min_length=1, description="trainings side by side: name -> what differs from `objective`"
    )
    seeds: PositiveInt = Field(1, description="trainings of each arm")

    @model_validator(mode="after")
    def _arms_change_the_objective(self) -> Arms:
        for name in self.arms:
            if not name.isidentifier():
                raise ValueError(f"arm {name!r} is not a name of letters, digits and underscores")
            self.of_arm(name)
        return self

    def of_arm(self: A, arm: str) -> A:
        """The section of an arm's trainings: this one, with the arm's objective.

        Raises:
            ValueError: the arm changes what does not exist, or to a value out of bounds.
        """
        changed = {**self.objective.model_dump(), **self.arms[arm]}
        try:  # strict and as JSON, as the recipe itself is read
            objective = type(self.objective).model_validate_json(json.dumps(changed), strict=True)
        except ValidationError as error:
            raise ValueError(f"arm {arm}: {_mistake(error, self.objective)}") from error
        return self.model_copy(update={"objective": objective})

    def runs(self) -> list[tuple[str, int]]:
        """Arm and seed of every training, seed by seed."""
        return [(arm, seed) for seed in range(self.seeds) for arm in self.arms]

    def names(self) -> list[str]:
        """Name of every training's folder, such as `main-0`, in the order of `runs`."""
        return [f"{arm}-{seed}" for arm, seed in self.runs()]


def _mistake(error: ValidationError, objective: Section) -> str:
    """The first thing that is wrong with an arm, which pydantic would word for its own readers."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{name} is not a setting of objective{did_you_mean(name, type(objective).model_fields)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{name} is {first['input']!r}, wanted {first['msg'].removeprefix('Input should be ')}"
