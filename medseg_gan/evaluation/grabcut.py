"""GrabCut as a baseline: how far colour alone segments the middle of an image."""

from __future__ import annotations

import cv2
import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.foreground import foreground_scores
from medseg_gan.evaluation.segmentation import confusion

RECTANGLE = 0.8
ITERATIONS = 5


def grabcut_floor(images: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Scores of GrabCut's masks, as `foreground_scores`.

    Args:
        images: `(N, C, H, W)` in [-1, 1].
        label: `(N, H, W)` masks, 255 where unlabelled.
    """
    return foreground_scores(confusion(grabcut_masks(images), label, 2))


def grabcut_masks(images: np.ndarray) -> np.ndarray:
    """GrabCut (Rother et al., 2004) of each picture alone.

    The first guess at the foreground is the centred rectangle of 80 % of each side; 5 iterations; probable foreground
    counts as foreground.

    Args:
        images: `(N, C, H, W)` in [-1, 1], C 1 or 3, sides of at least 16 pixels.

    Returns:
        `(N, H, W)` uint8, 1 for foreground.

    Raises:
        MedsegError: another shape, or values that are not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 16:
        raise MedsegError(f"pictures have shape {images.shape}, wanted (N, C, H, W) with C 1 or 3 and H, W at least 16")
    if not np.isfinite(images).all():
        raise MedsegError("pictures hold values that are not finite; wanted [-1, 1]")
    pixels = np.clip(images * 127.5 + 128, 0, 255).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])).transpose(0, 2, 3, 1)  # (N, H, W, 3)
    masks = [_grabcut(np.ascontiguousarray(picture)) for picture in pixels]
    return np.stack(masks) if masks else np.zeros((0, *images.shape[2:]), np.uint8)


def _grabcut(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    top, left = (round(side * (1 - RECTANGLE) / 2) for side in (height, width))
    mask = np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))  # background and foreground, five Gaussians each
    cv2.setRNGSeed(0)  # its k-means draws from a global stream: a mask must not depend on the pictures before it
    rectangle = (left, top, width - 2 * left, height - 2 * top)
    cv2.grabCut(picture, mask, rectangle, *models, ITERATIONS, cv2.GC_INIT_WITH_RECT)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
