"""The choice of the labeller as a recipe asks for it: from settings to the cross-validation and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from medseg_gan.labels import UNLABELLED, LabelTable
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.interpreter.selection import (
    CANDIDATES,
    PIXEL_STEPS,
    Held,
    Selection,
    load_selection,
    select_labeller,
)
from medseg_gan.systems.datasetgan.recipe import TrainInterpreter
from medseg_gan.systems.datasetgan.samples.images import Rendered
from medseg_gan.training.pool import process_count


def choose_labeller(
    folder: Path,
    annotated: Rendered,
    labels: Tensor,
    config: TrainInterpreter,
    inputs: Inputs,
    num_classes: int,
    held_out: Held | None,
) -> Selection | None:
    """Cross-validate where the recipe wants a choice or a calibration; an earlier outcome in the folder is kept.

    Args:
        folder: of the stage.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` class ids, 255 where unlabelled.
        config: settings of the stage.
        inputs: of the stage.
        num_classes: K, background included.
        held_out: further labelled images, where there are some.
    """
    calibrate = config.calibration
    if calibrate == "auto":
        calibrate = "per_class" if config.labeller == "auto" else "none"
    if config.labeller != "auto" and calibrate == "none":
        return None
    if (found := load_selection(folder)) is not None:
        return found
    candidates: dict[str, dict[str, str]] = {name: CANDIDATES[name] for name in config.candidates}
    if config.labeller != "auto":
        candidates = {config.labeller: {"labeller": config.labeller, "loss": config.loss}}
    steps = config.fold_steps or config.steps
    return select_labeller(
        folder,
        annotated,
        labels,
        candidates,
        num_classes=num_classes,
        seed=mix_seed(inputs.seed, "selection"),
        folds=config.folds,
        settings={
            "variant": config.features,
            "members": min(config.members, config.fold_members),
            "image_members": min(config.image_members, config.fold_members),
            "max_epochs": config.max_epochs,
            "steps": steps,
            "image_steps": config.fold_steps or config.image_steps,
            "max_steps": PIXEL_STEPS * steps,
            **member_settings(config, inputs.precision),
        },
        calibrate=calibrate,
        workers=process_count(config.workers, inputs.device),
        held_out=held_out,
    )


def member_settings(config: TrainInterpreter, precision: str) -> dict[str, Any]:
    """Settings of every network, in a fold as in the end."""
    return {
        "preset": config.preset,
        "pixel_batch": config.pixel_batch,
        "class_balanced": config.class_balanced,
        "shared_batches": config.shared_batches,
        "image_width": config.image_width,
        "precision": precision,
    }


def without_ignored(labels: Tensor, config: TrainInterpreter, table: LabelTable) -> Tensor:
    """Labels in which ignored classes are unlabelled."""
    for name in config.ignore:
        labels = labels.where(labels != table.id_of(name), UNLABELLED)
    return labels
