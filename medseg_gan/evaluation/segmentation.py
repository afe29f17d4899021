"""Scores of label maps: dataset-level IoU as DatasetGAN counts it, Dice, per-image IoU."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED


def confusion(pred: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix of each image; sums of them are what Ignite's `ConfusionMatrix` gives.

    Args:
        pred: `(N, H, W)` class ids.
        label: `(N, H, W)` class ids, 255 where unlabelled.
        num_classes: K.

    Returns:
        `(N, K, K)` int64 pixels, rows the label, columns the prediction.

    Raises:
        MedsegError: shapes differ.
    """
    if pred.shape != label.shape:
        raise MedsegError(f"prediction has shape {pred.shape}, label {label.shape}")
    n, k = len(pred), num_classes
    cell = label.reshape(n, -1).astype(np.int64) * k + pred.reshape(n, -1)
    cell += np.arange(n)[:, None] * k * k
    counts = np.bincount(cell[label.reshape(n, -1) != UNLABELLED], minlength=n * k * k)
    return counts.reshape(n, k, k)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class; 0 where it is neither labelled nor predicted (DatasetGAN, Ignite).

    Args:
        matrix: `(..., K, K)` confusion matrices.

    Returns:
        `(..., K)` in [0, 1].
    """
    hit, union = _hit_and_union(matrix)
    return hit / np.maximum(union, 1)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    """Every dataset-level figure of one confusion matrix, each under its own name.

    Args:
        matrix: `(K, K)` pixels of the whole set.

    Returns:
        `miou` (background included), `foreground_miou`, `nanmean_miou` (classes that are neither labelled nor
        predicted left out), `iou_per_class` and `dice_per_class` (K each).
    """
    iou = iou_per_class(matrix)
    present = _hit_and_union(matrix)[1] > 0
    return {
        "miou": float(iou.mean()),
        "foreground_miou": float(iou[1:].mean()),
        "nanmean_miou": float(iou[present].mean()) if present.any() else 0.0,
        "iou_per_class": iou.tolist(),
        "dice_per_class": (2 * iou / (1 + iou)).tolist(),
    }


def per_image_miou(matrices: np.ndarray) -> float:
    """Mean over images of the mean IoU of the classes labelled there, as MONAI's `MeanIoU` counts it.

    What is predicted in an image where its class is not labelled costs nothing here: not comparable with `miou`.

    Args:
        matrices: `(N, K, K)`, one per image.
    """
    labelled = matrices.sum(axis=2) > 0
    kept = labelled.any(axis=1)
    if not kept.any():
        return 0.0
    iou = np.where(labelled, iou_per_class(matrices), np.nan)[kept]
    return float(np.nanmean(iou, axis=1).mean())


def _hit_and_union(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    return hit, matrix.sum(axis=-1) + matrix.sum(axis=-2) - hit
