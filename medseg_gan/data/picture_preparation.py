"""From picture files to the picture store: every picture cropped and resized the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg_gan.data.picture_files import (
    check_box,
    crop_resize,
    crop_resize_parts,
    load_image,
    move_landmarks,
    read_mask,
    read_parts,
    to_channels,
)
from medseg_gan.data.pictures import Landmark, Picture, PictureRecord, PictureWriter, count_splits
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED
from medseg_gan.machine.pool import in_order

BLOCK = 64  # pictures a process reads at a time


@dataclass(frozen=True)
class Block:
    """Pictures that one process reads in one go."""

    pictures: tuple[Picture, ...]
    size: int
    channels: int


def read_picture(picture: Picture, size: int, channels: int) -> tuple[np.ndarray, np.ndarray, tuple[Landmark, ...]]:
    """One picture with its mask and landmarks: centre square, resized.

    Args:
        picture: what to read.
        size: pixels per side.
        channels: 1 grey, 3 RGB.

    Returns:
        `(size, size, channels)` uint8; `(size, size)` uint8: 0, 1, or 255 all over without a mask; and the landmarks
        in pixels of the result. A pixel is foreground where at least half of it is, after the same filter as the
        image's; of parts it takes the number at its centre.

    Raises:
        MedsegError: a file cannot be used, or the two do not belong together.
    """
    upright = load_image(picture.image)
    if picture.box is not None:
        check_box(picture.box, upright, picture.image)
    image = np.asarray(crop_resize(to_channels(upright, channels, picture.image), size)).reshape(size, size, channels)
    return image, _mask(picture, upright, size), move_landmarks(picture.landmarks, upright, size)


def _mask(picture: Picture, upright: Image.Image, size: int) -> np.ndarray:
    if picture.empty:
        return np.zeros((size, size), np.uint8)
    if picture.mask is None:
        return np.full((size, size), UNLABELLED, np.uint8)
    if picture.parts:
        return crop_resize_parts(read_parts(picture.mask, picture.parts, upright, picture.image), size)
    mask = crop_resize(read_mask(picture.mask, picture.threshold, upright, picture.image), size)
    return (np.asarray(mask) >= 128).astype(np.uint8)


def read_block(block: Block) -> tuple[np.ndarray, np.ndarray, list[tuple[Landmark, ...]]]:
    """`(N, H, W, C)` images, `(N, H, W)` masks and the landmarks of a block."""
    read = [read_picture(picture, block.size, block.channels) for picture in block.pictures]
    return np.stack([image for image, _, _ in read]), np.stack([mask for _, mask, _ in read]), [at for *_, at in read]


def prepare_pictures(
    folder: Path,
    pictures: Sequence[Picture],
    *,
    size: int,
    channels: int = 3,
    dataset: str,
    classes: Sequence[str] = (),
    workers: int = 1,
    on_done: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Write the picture store of a run; `pictures.json`, which makes it a store, comes last.

    Args:
        folder: of the store.
        pictures: from `find_pictures`.
        size: pixels per side.
        channels: 1 grey, 3 RGB.
        dataset: its name.
        classes: names by class id.
        workers: processes.
        on_done: called after each picture.

    Returns:
        `splits` (pictures and labelled pictures of each), `without_mask` (names of test pictures that no score
        counts), `without_foreground` (masks that are all background after cropping, scenes known to be empty left
        out).

    Raises:
        MedsegError: there is no picture, a file cannot be used, or no mask at all has foreground.
    """
    if not pictures:
        raise MedsegError(f"no picture was found for {folder}; check the data folder")
    blocks = [Block(tuple(pictures[k : k + BLOCK]), size, channels) for k in range(0, len(pictures), BLOCK)]
    blank = masks_read = 0
    with PictureWriter(folder, dataset=dataset, classes=classes) as writer:
        for block, (images, masks, landmarks) in zip(blocks, in_order(read_block, blocks, workers), strict=True):
            records = [
                PictureRecord(item.name, item.split, item.class_id, item.empty or item.mask is not None, points)
                for item, points in zip(block.pictures, landmarks, strict=True)
            ]
            writer.append(images, masks, records)
            own = np.array([item.mask is not None and not item.empty for item in block.pictures])
            masks_read += int(own.sum())
            blank += int((~((masks > 0) & (masks != UNLABELLED)).any((1, 2)) & own).sum())
            if on_done:
                for _ in block.pictures:
                    on_done()
        if masks_read and blank == masks_read:
            raise MedsegError(
                f"none of the {masks_read} masks of {dataset} has foreground; wanted 255 (or 1 in masks of 0 and 1) "
                "where the object is"
            )
    return {
        "splits": count_splits(writer.records),
        "without_mask": [record.name for record in writer.records if record.split == "test" and not record.labelled],
        "without_foreground": blank,
    }
