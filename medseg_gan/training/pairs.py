"""Pairs of a trained generator as an image store that segmenters train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medseg_gan.data.arrays import GrowingArray
from medseg_gan.data.pictures import PictureRecord, PictureStore, PictureWriter
from medseg_gan.data.pixels import to_uint8
from medseg_gan.machine.atomic import write_json
from medseg_gan.training.labelled import SOFT_MASKS, StoredPictures, TrainingSource
from medseg_gan.training.log import Progress

DONE = "done.json"


def write_foreground_pairs(
    folder: Path,
    render: Callable[[range], tuple[Tensor, Tensor]],
    count: int,
    *,
    val_share: float,
    block: int,
    description: str,
) -> None:
    """Write an image store of generated images with their soft masks beside it; a finished folder is kept.

    Args:
        folder: of the store.
        render: `indices -> (B, C, H, W) images in [-1, 1], (B, 1, H, W) masks in [0, 1]`, a function of the indices.
        count: pairs.
        val_share: the last share of them is the split `val`, on which a segmenter's checkpoint is picked.
        block: images rendered together. The last block is rendered whole: another size gives other bits.
        description: on the progress bar.
    """
    if (folder / DONE).is_file():
        return
    first_val = count - max(1, round(count * val_share))
    with (
        PictureWriter(folder, dataset="generated") as writer,
        GrowingArray(folder / SOFT_MASKS, np.dtype("u1")) as soft,
        Progress(count, description, "pair") as bar,
    ):
        for start in range(0, count, block):
            image, mask = render(range(start, start + block))
            kept = min(block, count - start)
            pixels = to_uint8(image[:kept]).cpu().numpy().transpose(0, 2, 3, 1)
            probs = mask[:kept, 0].float().cpu().numpy()
            records = [
                PictureRecord(f"generated-{index:08d}", "val" if index >= first_val else "train", None, True)
                for index in range(start, start + kept)
            ]
            writer.append(pixels, (probs > 0.5).astype(np.uint8), records)
            soft.append((probs * 255).round().astype(np.uint8))
            bar.update(kept)
    write_json(folder / DONE, {"pairs": count})


def pair_sources(folder: Path) -> dict[str, Any]:
    """Arguments `sources`, `val` and `loss` of `train_segmenter` for the pairs of a folder: no real mask is seen."""
    store = PictureStore.open(folder)
    return {
        "sources": [TrainingSource(StoredPictures(folder, store.indices("train"), soft=True))],
        "val": StoredPictures(folder, store.indices("val")),
        "loss": "soft_ce",
    }
