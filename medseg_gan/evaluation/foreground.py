"""Scores of one foreground class, their intervals over images, and trivial baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.intervals import bootstrap_counts, interval
from medseg_gan.evaluation.segmentation import confusion, iou_per_class
from medseg_gan.labels import UNLABELLED

PRIOR_AREA = 0.25
"""Share of the picture that `centred_disc` covers where nothing is known of the training masks."""


def foreground_scores(matrices: np.ndarray) -> dict[str, float]:
    """Scores with the polarity the masks have: 1 is foreground, and nothing is flipped (Yang et al., 2022).

    Args:
        matrices: `(N, 2, 2)` confusion matrix of each image from `segmentation.confusion`.

    Returns:
        `acc`, share of pixels that are right; `iou` of the foreground, pixels summed over the set; `iou_img`, mean
        over images of each one's foreground IoU, which is 1 where no foreground is labelled and none predicted;
        `miou`, mean of foreground and background IoU, pixels summed over the set. As everywhere, the IoU of a class
        that the whole set neither shows nor predicts is 0.

    Raises:
        MedsegError: no image, or another shape.
    """
    _check(matrices)
    return {name: float(value[0]) for name, value in _scores(matrices, np.ones((1, len(matrices)))).items()}


def bootstrap(
    matrices: np.ndarray, units: Sequence[str] | None = None, resamples: int = 2000, seed: int = 0
) -> dict[str, list[float]]:
    """95 % interval of each score over images.

    Args:
        matrices: `(N, 2, 2)`, one per image.
        units: what is drawn together, for each image (its scene or patient); each image its own where None.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `[low, high]` of each score of `foreground_scores`.

    Raises:
        MedsegError: no image, or another shape.
    """
    _check(matrices)
    counts = bootstrap_counts(np.arange(len(matrices)) if units is None else units, resamples, seed)
    return {name: interval(values) for name, values in _scores(matrices, counts.astype(np.float64)).items()}


def foreground_floors(label: np.ndarray, area: float | None = None) -> dict[str, dict[str, float]]:
    """Scores of three masks that look at no picture; `grabcut.grabcut_floor` gives a fourth that does.

    Args:
        label: `(N, H, W)` masks of the test images, 255 where unlabelled.
        area: mean share of foreground in the TRAINING masks, for the disc; `PRIOR_AREA` where there are none. The
            test masks' own area would be knowledge no method has.

    Returns:
        `all_foreground`, `all_background` and `centred_disc`, each as `foreground_scores`.
    """
    size = (label.shape[1], label.shape[2])
    masks = {
        "all_foreground": np.ones(size, np.uint8),
        "all_background": np.zeros(size, np.uint8),
        "centred_disc": centred_disc(size, PRIOR_AREA if area is None else area),
    }
    return {
        name: foreground_scores(confusion(np.broadcast_to(mask, label.shape), label, 2)) for name, mask in masks.items()
    }


def mean_area(label: np.ndarray) -> float:
    """Share of foreground among the labelled pixels of `(N, H, W)` masks; 0 where none is labelled."""
    known = label != UNLABELLED
    return float((label[known] == 1).mean()) if known.any() else 0.0


def centred_disc(size: tuple[int, int], area: float) -> np.ndarray:
    """Disc about the picture's centre, cut off at its borders.

    Args:
        size: (H, W).
        area: share of the picture, in [0, 1]; met up to the pixels that lie equally far from the centre.

    Returns:
        `(H, W)` uint8, 1 inside.
    """
    y, x = (np.arange(side) * 2 - side + 1 for side in size)  # half pixels, whole numbers
    distance = y[:, None] ** 2 + x**2
    squares, members = np.unique(distance, return_counts=True)
    counts = np.concatenate([[0], members.cumsum()])  # pixels of a disc that takes in the first k distances
    nearest = abs(counts - area * distance.size).argmin()
    return (distance <= np.concatenate([[-1], squares])[nearest]).astype(np.uint8)


def polarity_diagnostic(matrices: np.ndarray) -> dict[str, Any]:
    """Scores under the better of both polarities, one choice for the whole set (as ReDO evaluates).

    It tells an inverted mask from a useless one and is no score: the choice looks at the test labels.

    Args:
        matrices: `(N, 2, 2)`, one per image.

    Returns:
        `best_polarity_iou`, `best_polarity_acc` and `inverted`, whether foreground and background changed places.
    """
    given, swapped = foreground_scores(matrices), foreground_scores(matrices[:, :, ::-1])
    inverted = swapped["iou"] > given["iou"]
    best = swapped if inverted else given
    return {"best_polarity_iou": best["iou"], "best_polarity_acc": best["acc"], "inverted": inverted}


def _scores(matrices: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each score under each weighting of the images: `(R,)` from `(N, 2, 2)` and `(R, N)`."""
    pooled = (weights @ matrices.reshape(len(matrices), 4).astype(np.float64)).reshape(-1, 2, 2)
    iou = iou_per_class(pooled)  # (R, 2)
    nothing = matrices.sum(axis=(1, 2)) == matrices[:, 0, 0]  # labelled as foreground, nor predicted
    per_image = np.where(nothing, 1.0, iou_per_class(matrices)[:, 1])  # (N,)
    return {
        "acc": np.trace(pooled, axis1=1, axis2=2) / np.maximum(pooled.sum(axis=(1, 2)), 1),
        "iou": iou[:, 1],
        "iou_img": weights @ per_image / weights.sum(axis=1),
        "miou": iou.mean(axis=1),
    }


def _check(matrices: np.ndarray) -> None:
    if matrices.ndim != 3 or matrices.shape[1:] != (2, 2) or not len(matrices):
        raise MedsegError(f"confusion matrices have shape {matrices.shape}, wanted (N, 2, 2) with N at least 1")
