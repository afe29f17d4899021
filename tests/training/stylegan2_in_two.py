"""A small StyleGAN2-ADA training for the processes of torchrun: `stylegan2_in_two.py FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medseg_gan.machine.checkpoint import plain
from medseg_gan.machine.processes import average_, count, gathered, group, rank
from medseg_gan.training import stylegan2
from medseg_gan.training.stylegan2_config import StyleGAN2Training
from medseg_gan.training.stylegan2_step import StyleGAN2Step

SECTION = StyleGAN2Training(
    total_kimg=0.048,  # 12 steps
    batch_size=4,
    z_dim=16,
    w_dim=16,
    channel_base=256,
    channel_max=16,
    r1_interval=4,
    ada_kimg=0.1,
    ada_target=-0.5,
    ada_pipe="medical",
    checkpoint_kimg=0.02,
    sample_kimg=0.024,
    metric_kimg=0.012,
    metric_images=60,
)
LOG_KIMG = 0.012
GROUPS = [f"patient{k % 3}" for k in range(12)]
SEED = 3
SHEET_AND_REALS = (
    1 + 32 + 1 + 12
)  # reads before the training: the first image twice, a sheet, the real images' features


class Recorded(Dataset[Tensor]):
    """Squares, 16 pixels a side; every read is noted, and the n-th is interrupted."""

    def __init__(self, reads: int = 0) -> None:
        self.reads, self.order = reads, list[int]()

    def __len__(self) -> int:
        return len(GROUPS)

    def __getitem__(self, index: int) -> Tensor:
        self.order.append(index)
        if len(self.order) == self.reads:
            raise KeyboardInterrupt
        image = torch.full((1, 16, 16), -1.0)
        image[:, 2 : 4 + index, 3 : 5 + index] = 0.5
        return image


class Kept(StyleGAN2Step):
    """The step, within reach afterwards, and the means of what its process generated."""

    last: Kept

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Kept.last, self.drawn = self, list[float]()

    def generate(self, number: int) -> Any:
        made = super().generate(number)
        self.drawn += made[0].mean(dim=(1, 2, 3)).tolist()
        return made


def train(folder: Path, reads: int = 0) -> None:
    """Train or go on; leaves the whole state of this process and what it read beside the folder."""
    images = Recorded(reads)
    try:
        stylegan2.train_stylegan2(SECTION, images, GROUPS, folder, seed=SEED, log_kimg=LOG_KIMG)
    except KeyboardInterrupt:
        return
    step = Kept.last
    state = {name: plain(name, item.state_dict()) for name, item in step.objects().items()}
    state |= {"read": images.order[SHEET_AND_REALS:], "drawn": step.drawn}
    torch.save(state, folder.with_name(f"{folder.name}-{rank()}.pt"))


def main(out: Path) -> None:
    """Exchange some numbers, then one uninterrupted training and one in three parts."""
    torch.set_num_threads(1)
    stylegan2.StyleGAN2Step = Kept  # type: ignore[misc]
    with group("cpu", "word of the first" if os.environ["RANK"] == "0" else "") as word:
        assert (word, count()) == ("word of the first", 2)
        pair = [torch.tensor([1.0, 2.0]) * rank(), torch.tensor(3.0)]
        average_(pair)
        assert pair[0].tolist() == [0.5, 1.0] and pair[1] == 3.0
        assert gathered(torch.tensor([[rank()]])).tolist() == [[0], [1]]
        train(out / "whole")
        train(out / "broken", SHEET_AND_REALS + 2 * 9)
        train(out / "broken")
    assert count() == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
