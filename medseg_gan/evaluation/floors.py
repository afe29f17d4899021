"""Trivial baselines for K classes, which put a score into proportion and need no segmenter."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.labels import UNLABELLED
from medseg_gan.networks.segmenters import predict_labels

INTENSITY_BINS = 256


def floors(
    train_images: np.ndarray,
    train_label: np.ndarray,
    test_images: np.ndarray,
    test_label: np.ndarray,
    num_classes: int,
    untrained: nn.Module,
) -> dict[str, dict[str, Any]]:
    """Scores of four predictors that learn little or nothing.

    Args:
        train_images: `(M, H, W)` in [-1, 1].
        train_label: `(M, H, W)` class ids, 255 where unlabelled.
        test_images: `(N, H, W)` in [-1, 1].
        test_label: `(N, H, W)` class ids, 255 where unlabelled.
        num_classes: K.
        untrained: a segmenter with its initial weights, on the CPU.

    Returns:
        `all_background`, `position` (most frequent class of each pixel), `intensity` (most frequent class of each
        grey value) and `untrained`, each `{"miou", "foreground_miou", "iou_per_class"}`.
    """
    position = most_frequent_per_pixel(train_label, num_classes)
    table = most_frequent_per_intensity(train_images, train_label, num_classes)
    predictions = {
        "all_background": np.zeros_like(test_label),
        "position": np.broadcast_to(position, test_label.shape),
        "intensity": table[intensity_bins(test_images)],
        "untrained": predict_labels(untrained, _as_batch(test_images)).numpy(),
    }
    result = {}
    for name, pred in predictions.items():
        found = scores(confusion(pred, test_label, num_classes).sum(axis=0))
        result[name] = {key: found[key] for key in ("miou", "foreground_miou", "iou_per_class")}
    return result


def most_frequent_per_pixel(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Most frequent class at each place, the smaller id where two are.

    Args:
        label: `(M, H, W)` class ids, 255 where unlabelled.
        num_classes: K.

    Returns:
        `(H, W)` class ids.
    """
    return np.stack([(label == k).sum(axis=0) for k in range(num_classes)]).argmax(axis=0)


def most_frequent_per_intensity(image: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Most frequent class at each grey value; values never seen count as background.

    Args:
        image: `(M, H, W)` in [-1, 1].
        label: `(M, H, W)` class ids, 255 where unlabelled.
        num_classes: K.

    Returns:
        `(INTENSITY_BINS,)` class ids.
    """
    known = label != UNLABELLED
    cell = intensity_bins(image)[known] * num_classes + label[known]
    counts = np.bincount(cell, minlength=INTENSITY_BINS * num_classes)
    return counts.reshape(INTENSITY_BINS, num_classes).argmax(axis=1)


def intensity_bins(image: np.ndarray) -> np.ndarray:
    """Bins of equal width over [-1, 1], values outside in the outermost."""
    return np.clip((image + 1) / 2 * INTENSITY_BINS, 0, INTENSITY_BINS - 1).astype(np.int64)


def _as_batch(images: np.ndarray) -> Tensor:
    return Tensor(images).unsqueeze(1)
