"""The order in which a pixel classifier sees the annotated pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg_gan.labels import UNLABELLED
from medseg_gan.machine.seeding import torch_generator


class PixelOrder:
    """Labelled pixels in a random order of each member and epoch, drawn again the same whenever it is asked for.

    Args:
        labels: `(N, R, R)` class ids; pixels of 255 are left out.
        class_balanced: every class that occurs is drawn equally often, its pixels with replacement; otherwise each
            pixel comes once an epoch, as in the papers.
    """

    def __init__(self, labels: Tensor, class_balanced: bool = False) -> None:
        truth = labels.flatten()
        self.labelled = (truth != UNLABELLED).nonzero().squeeze(1)
        self.classes: list[Tensor] = []  # positions within `labelled`, by class
        if class_balanced:
            found = truth[self.labelled].cpu()
            self.classes = [(found == index).nonzero().squeeze(1) for index in found.unique().tolist()]

    def __len__(self) -> int:
        """Pixels of an epoch."""
        return len(self.labelled)

    def epoch(self, seed: tuple[int | str, ...], number: int) -> Tensor:
        """Positions within `labelled`, `(P,)` int32 on the CPU.

        Args:
            seed: of the member.
            number: of the epoch, from 0.
        """
        generator = torch_generator(*seed, "epoch", number)
        if not self.classes:
            return torch.randperm(len(self), generator=generator).int()
        drawn = torch.randint(len(self.classes), (len(self),), generator=generator)
        place = torch.rand(len(self), generator=generator, dtype=torch.float64)
        order = torch.empty(len(self), dtype=torch.int32)
        for index, positions in enumerate(self.classes):
            mine = drawn == index
            order[mine] = positions[(place[mine] * len(positions)).long()].int()
        return order
