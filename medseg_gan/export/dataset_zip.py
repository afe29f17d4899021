"""The slices that a GAN is trained on, as StyleGAN2-ADA's own code reads them: to train elsewhere and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gan.data.dataset_zip import write_dataset_zip
from medseg_gan.data.slices import SliceStore, to_grey
from medseg_gan.errors import MedsegError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.folder import new_folder
from medseg_gan.machine.atomic import write_json

THIRDS = ("lower third of the scan's slices", "middle third", "upper third")
"""Classes for conditional training; training without labels takes no notice of them."""


def write_training_images(out: Path, store: SliceStore, indices: np.ndarray, card: Card) -> Path:
    """Write `dataset.zip` of 8-bit grey PNG, and `window.json`, which turns grey values back into HU.

    Args:
        out: folder to make.
        store: of the slices.
        indices: which of them, in order.
        card: facts about them.

    Raises:
        MedsegError: there is no slice, sides are no power of two, or the disk is full.
    """
    if not len(indices):
        raise MedsegError("there is no slice to write into a dataset.zip; wanted at least one")
    low, high = store.window
    with new_folder(out) as folder:
        images = (to_grey(store.images[k], store.window) for k in indices.tolist())
        write_dataset_zip(folder / "dataset.zip", images, thirds(store, indices).tolist())
        words = "HU = black_hu + (white_hu - black_hu) * grey / 255"
        write_json(folder / "window.json", {"black_hu": low, "white_hu": high, "grey": words, "classes": THIRDS})
        write_card(folder, card)
    return out


def thirds(store: SliceStore, indices: np.ndarray) -> np.ndarray:
    """`(N,)` where each slice lies among those of its scan, as a class of `THIRDS`."""
    records = [store.records[k] for k in indices.tolist()]
    heights: dict[str, list[int]] = {}
    for record in records:
        heights.setdefault(record.case, []).append(record.slice_index)
    ranks = [sum(height < record.slice_index for height in heights[record.case]) for record in records]
    return np.array([3 * rank // len(heights[record.case]) for rank, record in zip(ranks, records, strict=True)])
