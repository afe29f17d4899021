"""Frozen feature maps in which two images are compared while one of them is optimised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_gan.evaluation.random_conv import WIDTHS, frozen_weights
from stylegan2_ada_pytorch import Discriminator

FeatureMaps = Callable[[Tensor], list[Tensor]]
"""`(B, C, H, W)` images in [-1, 1] to `(B, C_l, h_l, w_l)` for each level l, differentiable."""

LARGEST = 256
"""Larger images are averaged down to this side first, as in StyleGAN2's projector."""


class RandomMaps(nn.Module):
    """The convolutions of `random-conv-v1` as feature maps: no trained weights, the same on every machine.

    Unlike the extractor of distances between sets it neither rounds to 8 bits nor averages over the picture. Distances
    in random features follow edges and texture; they know nothing of anatomy.
    """

    name = "random-conv-v1"

    def __init__(self) -> None:
        super().__init__()
        weights = iter(frozen_weights())
        for level in range(len(WIDTHS)):
            for part in ("weight", "bias", "project"):
                self.register_buffer(f"{part}{level}", torch.from_numpy(next(weights)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps of half, a quarter, an eighth and a sixteenth of the image's side."""
        x = at_most(images, LARGEST).expand(-1, 3, -1, -1)
        levels = []
        for level in range(len(WIDTHS)):
            weight, bias = self.get_buffer(f"weight{level}"), self.get_buffer(f"bias{level}")
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1), 0.2)
            levels.append(x)
        return levels


class DiscriminatorMaps(nn.Module):
    """What a discriminator's blocks pass on: features trained on the images at hand.

    Args:
        D: of the generator, with the image's size and channels.
    """

    name = "discriminator"

    def __init__(self, D: Discriminator) -> None:
        super().__init__()
        self.D = D.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps of half the image's side down to 4 pixels."""
        x: Tensor | None = None
        image: Tensor | None = images
        levels = []
        for resolution in self.D.block_resolutions:
            x, image = getattr(self.D, f"b{resolution}")(x, image, torch.float32)
            levels.append(x)
        return levels


def at_most(images: Tensor, side: int) -> Tensor:
    """Halve images until they have at most `side` pixels a side."""
    while images.shape[-1] > side:
        images = F.avg_pool2d(images, 2)
    return images
