"""Networks that label generated images: 1x1 layers on the features (DatasetGAN, 2021), alone or with a U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from medseg_gan.networks.segmenters import build_unet

Order = Literal["linear-bn-relu", "linear-relu-bn"]
Init = Literal["kaiming", "normal"]

JOINT_CHANNELS = 48
"""Channels of a `JointSegmenter`'s hidden layers on features."""


class PixelClassifier(nn.Module):
    """Class logits of one pixel from its feature vector: linear layers with batch norm and ReLU between.

    The first layer is kept apart: it may be applied to feature maps at their native size *before* upsampling (both
    are linear and act on different axes), and `classify` takes it from there.

    Args:
        depth: length D of a feature vector.
        hidden: widths of the hidden layers.
        num_classes: K, background included.
        order: of what follows a hidden linear layer; the DatasetGAN code has ReLU before batch norm.
        init: `kaiming` (normal, fan in) or `normal` (0.02), biases zero in both.
    """

    def __init__(
        self,
        depth: int,
        hidden: Sequence[int],
        num_classes: int,
        order: Order = "linear-bn-relu",
        init: Init = "kaiming",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first = nn.Linear(depth, hidden[0])
        layers: list[nn.Module] = []
        for width, following in zip(hidden, [*hidden[1:], num_classes], strict=True):
            between = [nn.BatchNorm1d(width), nn.ReLU()]
            layers += between if order == "linear-bn-relu" else between[::-1]
            layers.append(nn.Linear(width, following))
        self.rest = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if init == "kaiming":
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                else:
                    nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Feature vectors `(P, D)` to logits `(P, K)`."""
        return self.rest(self.first(rows))

    def classify(self, hidden: Tensor) -> Tensor:
        """Logits of whole images from the projected first layer.

        Args:
            hidden: `(N, H, R, R)` output of the first linear layer at every pixel, its bias included.

        Returns:
            `(N, K, R, R)` logits.
        """
        rows = rearrange(hidden, "n h y x -> (n y x) h")
        n, _, y, x = hidden.shape
        return rearrange(self.rest(rows), "(n y x) k -> n k y x", n=n, y=y, x=x)


class JointSegmenter(nn.Module):
    """One network on features and image: a pixel classifier on those and a U-Net on this, logits added; ours.

    They learn together, so that each may leave to the other what it sees better. Features that enter the U-Net beside
    the image were tried too: at thirty annotated images they agree less with the annotator.

    The first layer is linear and stands before the upsampling, as the pixel classifier's does, so the projection of
    the features at native size is exact and the hypercolumn is never built.

    Args:
        depth: length D of a feature vector.
        num_classes: K, background included.
        width: channels of the U-Net's first level, a multiple of 16.
        channels: H, of the hidden layers on features.
    """

    def __init__(self, depth: int, num_classes: int, width: int = 16, channels: int = JOINT_CHANNELS) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.on_features = PixelClassifier(depth, (channels, channels), num_classes)
        self.on_image = build_unet(num_classes, width=width)

    @property
    def first(self) -> nn.Linear:
        """The linear layer on feature vectors, applied before the upsampling."""
        return self.on_features.first

    def segment(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Logits of whole images.

        Args:
            images: `(N, 1, R, R)` in [-1, 1].
            hidden: `(N, H, R, R)` output of the first linear layer at every pixel, its bias included.

        Returns:
            `(N, K, R, R)` logits.
        """
        return self.on_features.classify(hidden) + self.on_image(images.contiguous(memory_format=torch.channels_last))
