"""The plan that `--dry-run` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medseg_gan.running.mistakes import show_value
from medseg_gan.running.stages import Plan, notice, slow_default

STATUS = {
    "kept": "kept, it is finished",
    "resume": "resumed",
    "new": "new",
    "refuse": "refused, its settings changed or files are missing",
    "rerun": "made anew, the old one is moved to replaced/",
    "later": "not run, it comes after --until",
}


def plan_lines(plan: Plan) -> Iterator[str]:
    """Lines that say what would be run.

    Raises:
        MedsegError: a stage would be refused; all lines have been told by then.
    """
    recipe, run = plan.recipe, plan.recipe.settings.run
    steps = plan.steps()
    yield f"{recipe.header.name}: {recipe.header.source}"
    yield f"profile {recipe.profile}, data {plan.data or 'built-in phantom'}, device {plan.device}"
    yield f"run folder {plan.run}, seed {run.seed}, precision {plan.precision()}, threads {run.threads or 'all'}"
    if line := slow_default(plan, steps, plan.device):
        yield line
    for number, step in enumerate(steps, start=1):
        yield f"\n{number}. {step.stage.name}: {STATUS[step.status]}, {step.folder}"
        if settings := ", ".join(_settings(step.section)):
            yield f"   {settings}"
        if step.stage.expected:
            yield f"   expected: {step.stage.expected(recipe.settings)}"
        if step.status == "kept" and (line := notice(step)):
            yield f"   {line}"
    for step in steps:
        if step.status == "refuse":
            raise step.refusal


def _settings(section: Any, prefix: str = "") -> Iterator[str]:
    """The settings that the recipe, its profile or `--set` give; all others have their defaults."""
    for name in type(section).model_fields:
        if name in section.model_fields_set:
            value = getattr(section, name)
            if hasattr(value, "model_fields_set"):
                yield from _settings(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name} {show_value(value)}"
