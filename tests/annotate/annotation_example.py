"""A small annotation folder: a bright blob on each of a few slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gan.annotate.files import export_images
from medseg_gan.annotate.work import AnnotationWork
from medseg_gan.labels import lookup_table

TABLE = lookup_table("paper")
SIZE = (24, 32)  # not square, so that swapped axes show


def slices(count: int) -> np.ndarray:
    """`(count, H, W)` int16 HU, all different."""
    images = np.full((count, *SIZE), -700, np.int16)
    for k in range(count):
        images[k, 4 : 14 + k % 8, 6:20] = 40 + k
    return images


def blob(image: np.ndarray) -> np.ndarray | None:
    """A rule: what is bright is heart."""
    label = (image > 0).astype(np.uint8)
    return label if label.any() else None


def work_of(folder: Path, count: int = 4) -> AnnotationWork:
    """An exported folder, nothing painted."""
    export_images(folder, slices(count), window=(-1000.0, 400.0), spacing=(2.0, 2.0, 3.0), table=TABLE)
    return AnnotationWork(folder, TABLE)


def scribble(seed: int = 0) -> np.ndarray:
    """A mask with every class."""
    return np.random.default_rng(seed).integers(0, TABLE.num_classes, SIZE).astype(np.uint8)
