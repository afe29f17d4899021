"""Segmenters of a run: from a recipe's settings and a training set to the arguments of the supervised trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.recipe import Segmenter
from medseg_gan.training.labelled import Slices, TrainingSource


def network_arguments(settings: Segmenter, num_classes: int, name: str | None = None) -> dict[str, Any]:
    """Arguments of `build_segmenter`."""
    return {
        "name": name or settings.name,
        "num_classes": num_classes,
        "backbone": settings.backbone,
        "output_stride": settings.output_stride,
        "width": settings.width,
    }


def training_job(
    settings: Segmenter,
    folder: Path,
    sources: Sequence[TrainingSource],
    *,
    num_classes: int,
    seed: int,
    inputs: Inputs,
    val: Slices | None = None,
    checkpoints: int = 1,
    name: str | None = None,
) -> Mapping[str, Any]:
    """Arguments of `train_segmenter`."""
    return {
        "folder": folder,
        "network": network_arguments(settings, num_classes, name),
        "sources": list(sources),
        "seed": seed,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "optimizer": settings.optimizer,
        "loss": settings.loss,
        "augment": "slice" if settings.augment else "none",
        "val": val,
        "checkpoints": checkpoints,
        "backbone_weights": settings.backbone_weights,
        "device": inputs.device,
        "precision": inputs.precision,
    }
