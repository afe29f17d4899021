"""A system of three tiny stages, for the tests of recipes, runs and the command line.

As a script it is the command line with that system: `python tests/toy_system.py recipe PATH ...`.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from medseg_gan.errors import MedsegError, WaitingForPerson
from medseg_gan.machine.atomic import read_json, write_json, write_text
from medseg_gan.running.recipe import Section, SystemRecipe
from medseg_gan.running.stages import Inputs, Stage
from medseg_gan.systems import SYSTEMS, System

TOY = System(recipe="toy_system:ToyRecipe", stages="toy_system:STAGES")

RECIPE = """\
recipe: toy
system: toy
dataset: numbers
source: nobody, 2026
hours: 0.001
run: {precision: fp32}
make: {size: 32}
train: {steps: 20, lr: 1e-3}
profiles:
  demo: &small
    train.steps: 4
    train.part: {name: small}
    train.part.width: 3
  other:
    <<: *small
    make.size: 64
"""


def power_of_two(size: int) -> int:
    if size & (size - 1):
        raise ValueError(f"{size} is not a power of two")
    return size


class Size(Section):
    size: Annotated[int, AfterValidator(power_of_two)] = Field(16, description="numbers to make")


class Make(Size):
    kind: Literal["even", "odd"] = Field("even", description="which numbers")
    window: tuple[float, float] = Field((-1.0, 1.0), description="two numbers")
    workers: PositiveInt = Field(1, description="processes", json_schema_extra={"fingerprint": False})


class Part(Section):
    name: str = "plain"
    width: PositiveInt = 2

    @model_validator(mode="after")
    def _small_is_narrow(self) -> Part:
        if self.name == "small" and self.width > 7:
            raise ValueError(f"name small wants a width below 8, not {self.width}")
        return self


class Train(Section):
    steps: PositiveInt = Field(description="steps of training")
    lr: PositiveFloat = Field(0.01, description="learning rate")
    batch_size: PositiveInt = Field(4, description="numbers a step")
    part: Part = Part()
    pause: NonNegativeFloat = Field(0.0, description="seconds a step", json_schema_extra={"fingerprint": False})
    end: Literal["well", "full disk", "person", "error", "bug", "interrupt"] = Field(
        "well", description="how the stage ends", json_schema_extra={"fingerprint": False}
    )

    @model_validator(mode="after")
    def _even_batches(self) -> Train:
        if self.batch_size % 2:
            raise ValueError(f"batch_size {self.batch_size} is odd")
        return self


class Report(Section):
    title: str | int = "Toy"


class ToyRecipe(SystemRecipe):
    make: Make
    train: Train
    report: Report


STAGES = (
    Stage("make", "toy_system:make"),
    Stage("train", "toy_system:train", expected=lambda recipe: f"{recipe.train.steps} steps", together=True),
    Stage("report", "toy_system:report", folder="report", needs=("train",)),
)


def make(config: Make, folder: Path, inputs: Inputs) -> None:
    write_json(folder / "numbers.json", [inputs.seed + number for number in range(config.size)])


def train(config: Train, folder: Path, inputs: Inputs) -> None:
    numbers = read_json(inputs.folders["make"] / "numbers.json")
    from medseg_gan.machine import processes  # brings torch, which plans do without

    if processes.count() > 1:
        write_text(folder / f"process-{processes.rank()}.txt", inputs.precision)
    path = folder / "state.json"
    state = read_json(path) if path.is_file() else []
    for step in range(len(state), config.steps):
        time.sleep(config.pause)
        state.append(numbers[step] * config.lr)
        write_json(path, state)
        if step == 2 and config.end != "well":
            raise {
                "full disk": OSError(errno.ENOSPC, "No space left on device", "state.json"),
                "person": WaitingForPerson("paint the masks, then run the same command"),
                "error": MedsegError("numbers.json: found 3, wanted 4"),
                "bug": ZeroDivisionError("division\nby zero"),
                "interrupt": KeyboardInterrupt(),
            }[config.end]


def report(config: Report, folder: Path, inputs: Inputs) -> None:
    assert list(inputs.folders) == ["train"]
    write_text(folder / "index.html", f"{config.title}: {read_json(inputs.folders['train'] / 'state.json')[-1]}")


if __name__ == "__main__":
    from medseg_gan.cli import main

    SYSTEMS["toy"] = TOY
    main()
