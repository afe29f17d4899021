"""Scores of whole volumes on their own grid: Dice, and the 95th percentile of surface distances in millimetres."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance


def volume_scores(
    pred: np.ndarray, label: np.ndarray, spacing: Sequence[float], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Scores of one volume, one entry for each class but the background.

    Args:
        pred: `(X, Y, Z)` class ids.
        label: `(X, Y, Z)` class ids.
        spacing: mm along X, Y and Z.
        classes: names of the K classes.

    Returns:
        `class`, `dice` (None where the label lacks the class) and `hd95_mm`, the symmetric 95 % Hausdorff distance
        (None where label or prediction lack it).
    """
    found = []
    for k, name in enumerate(classes[1:], start=1):
        ours, theirs = (torch.from_numpy(part == k)[None, None] for part in (pred, label))
        dice = compute_dice(ours.float(), theirs.float()).item() if theirs.any() else None
        distance = None
        if ours.any() and theirs.any():
            with warnings.catch_warnings():  # of one channel alone, which is meant, and of its own calls
                warnings.simplefilter("ignore")
                distance = compute_hausdorff_distance(
                    ours, theirs, include_background=True, percentile=95, spacing=list(spacing)
                ).item()
        found.append({"class": name, "dice": dice, "hd95_mm": distance})
    return found


def mean_volume_scores(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Means over volumes of what `volume_scores` gave for each, by class.

    Returns:
        `volumes` whose label has the class, `missed`, those of them whose prediction lacks it, `dice` (a missed one is
        0) and `hd95_mm` (without the missed ones); None where there is none.
    """
    found = {}
    for name in dict.fromkeys(line["class"] for line in lines):
        shown = [line for line in lines if line["class"] == name and line["dice"] is not None]
        distances = [line["hd95_mm"] for line in shown if line["hd95_mm"] is not None]
        found[name] = {
            "volumes": len(shown),
            "missed": len(shown) - len(distances),
            "dice": _mean([line["dice"] for line in shown]),
            "hd95_mm": _mean(distances),
        }
    return found


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
