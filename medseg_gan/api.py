"""The command line's jobs as Python functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg_gan.plan import plan_export, plan_recipe, plan_report
from medseg_gan.processes import first_speaks
from medseg_gan.runner import run_plan
from medseg_gan.weights.files import convert_weights, load_network_pkl
from medseg_gan.weights.grey import to_grey

__all__ = [
    "convert_weights",
    "export_run",
    "generate_images",
    "load_network_pkl",
    "project_image",
    "rebuild_report",
    "run_recipe",
    "to_grey",
]

generate_images: Callable[..., Path]
project_image: Callable[..., Path]

_ON_FIRST_USE = {  # MONAI takes seconds to import, and most commands do without it
    "generate_images": "medseg_gan.sampling.generate",
    "project_image": "medseg_gan.sampling.project",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module medseg_gan.api has no attribute {name}")
    return getattr(importlib.import_module(_ON_FIRST_USE[name]), name)


def run_recipe(
    name: str,
    data: str | Path | None = None,
    out: str | Path | None = None,
    profile: str | None = None,
    sets: Sequence[str] = (),
    device: str = "auto",
    until: str | None = None,
    rerun: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run a recipe and return its run folder; the arguments are those of `medseg-gan recipe`.

    Started by torchrun, all processes call it alike.

    Example:
        run = run_recipe("segthor_datasetgan", profile="smoke", out="runs/try")
        report = run / "report" / "report.json"
    """
    with first_speaks():
        return run_plan(plan_recipe(name, data, out, profile, sets, device, until, rerun), say)


def rebuild_report(run: str | Path, say: Callable[[str], None] = print) -> Path:
    """Make the report of a finished run anew and return the run folder."""
    return run_plan(plan_report(run), say)


def export_run(run: str | Path, to: str, out: str | Path | None = None, **choices: Any) -> Path:
    """Export from a finished run and return the new folder; the choices are those of `medseg-gan export`.

    Example:
        export_run("runs/try", "nnunet", what="hybrid", dataset_id=501)
    """
    plan, folder, export = plan_export(run, out)
    return export(plan, to, folder, **choices)
