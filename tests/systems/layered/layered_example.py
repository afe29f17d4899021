"""A layered GAN small enough for tests, and pictures to train it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.pictures import PictureRecord, write_picture_store
from medseg_gan.data.splits import Split
from medseg_gan.systems.layered.recipe import Network, Objective, TrainGan
from medseg_gan.systems.layered.step import LayeredStep

SIZE = 16
SMALL: dict[str, Any] = {
    "rounds": 2,
    "kimg": 0.024,  # 6 steps
    "segmenter_steps": 3,
    "batch_size": 4,
    "c_dim": 6,
    "group": 2,
    "z_dim": 4,
    "base": 8,
    "widest": 1,
    "blocks": 1,
    "smallest": 8,
    "d_first": 8,
    "pi_first": 4,
    "segmenter": "unet",
    "segmenter_width": 16,
}


def small(**changes: Any) -> TrainGan:
    """Rounds of 6 GAN steps and 3 of F; settings of objective and network are given by their own names."""
    tree = SMALL | changes
    parts = {
        part: {name: tree.pop(name) for name in section.model_fields if name in tree}
        for part, section in (("objective", Objective), ("network", Network))
    }
    return TrainGan(**parts, **tree)


def build(**changes: Any) -> LayeredStep:
    """Its networks for RGB at 16 x 16."""
    return LayeredStep(small(**changes), size=SIZE, channels=3, seed=0, device="cpu", precision="fp32")


def squares(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`(N, H, W, 3)` uint8 pictures of a bright square on a dark ground, and `(N, H, W)` masks."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, SIZE, SIZE, 3), dtype=np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for k in range(count):
        row, column = rng.integers(1, 8, 2)
        masks[k, row : row + 7, column : column + 7] = 1
    images[masks == 1] += 120
    return images, masks


def write_squares(folder: Path, train: int = 12, test: int = 4) -> Path:
    """A picture store of squares, of two classes."""
    images, masks = squares(train + test)
    splits: list[Split] = ["train"] * train + ["test"] * test
    records = [PictureRecord(f"square-{k}", split, k % 2, True) for k, split in enumerate(splits)]
    write_picture_store(folder, images, masks, records, dataset="squares", classes=("even", "odd"))
    return folder


def reals(count: int = 4) -> Tensor:
    """`(N, 3, H, H)` in [-1, 1]."""
    return torch.from_numpy(squares(count)[0]).permute(0, 3, 1, 2).float() / 127.5 - 1
