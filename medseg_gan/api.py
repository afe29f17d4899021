"""The command line's jobs as Python functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg_gan.machine.processes import first_speaks
from medseg_gan.running.recipe import import_object
from medseg_gan.running.runner import damage_traced, run_plan
from medseg_gan.systems.plan import plan_annotation, plan_export, plan_factory, plan_recipe, plan_report
from medseg_gan.weights.files import convert_weights, load_network_pkl
from medseg_gan.weights.grey import to_grey

__all__ = [
    "FeatureExtractor",
    "LabelFactory",
    "annotate_run",
    "convert_weights",
    "export_run",
    "generate_images",
    "load_network_pkl",
    "load_volume",
    "open_factory",
    "project_image",
    "rebuild_report",
    "run_recipe",
    "synthesize_pairs",
    "to_grey",
]

generate_images: Callable[..., Path]
project_image: Callable[..., Path]
load_volume: Callable[..., Any]
FeatureExtractor: type[Any]
LabelFactory: type[Any]

_ON_FIRST_USE = {  # MONAI takes seconds to import, and most commands do without it
    "generate_images": "medseg_gan.sampling.generate",
    "project_image": "medseg_gan.sampling.project",
    "load_volume": "medseg_gan.data.volumes",
    "FeatureExtractor": "medseg_gan.systems.datasetgan.samples.features",
    "LabelFactory": "medseg_gan.systems.datasetgan.factory",
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
    """Make the report of a finished run anew and return the run folder.

    Example:
        rebuild_report("runs/segthor_datasetgan-demo")
    """
    return run_plan(plan_report(run), say)


def export_run(run: str | Path, to: str, out: str | Path | None = None, **choices: Any) -> Path:
    """Export from a finished run and return the new folder; the choices are those of `medseg-gan export`.

    Example:
        export_run("runs/try", "nnunet", what="hybrid", dataset_id=501)
    """
    plan, folder, export = plan_export(run, out)
    with damage_traced(plan.finished_folders()):
        return export(plan, to, folder, **choices)


def open_factory(run: str | Path, device: str = "auto") -> Any:
    """Open the label factory of a run that has got as far as `synthesize`; returns a `LabelFactory`.

    Args:
        run: folder of a run whose system labels generated images, such as `segthor_datasetgan`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: the folder is no run, or its system has no label factory.
        MedsegError: a stage is not finished, or weights are not those that made the run's own pairs.

    Example:
        factory = open_factory("runs/segthor_datasetgan-demo")
        pairs = factory.label(range(10_000_000, 10_000_016))
    """
    plan, _, system = plan_factory(run)
    with damage_traced(plan.finished_folders()):
        return import_object(system.factory)(plan, device)


def synthesize_pairs(run: str | Path, num: int, out: str | Path | None = None, **choices: Any) -> Path:
    """Make `num` labelled pairs with a run's factory and return their folder; choices as of `medseg-gan synthesize`.

    Started by torchrun, all processes call it alike. Called again, it keeps the shards that are there.

    Example:
        folder = synthesize_pairs("runs/segthor_datasetgan-demo", 1000, to="png", workers=2)
        rows = list(csv.DictReader(open(folder / "manifest.csv")))
    """
    with first_speaks():
        plan, folder, system = plan_factory(run, out)
        with damage_traced(plan.finished_folders()):
            made: Path = import_object(system.synthesize)(plan, folder, num=num, **choices)
        return made


def annotate_run(run: str | Path, **choices: Any) -> None:
    """Serve the annotation page of a run that waits for a person, until Ctrl-C; choices as of `medseg-gan annotate`."""
    plan, annotate = plan_annotation(run)
    annotate(plan, **choices)
