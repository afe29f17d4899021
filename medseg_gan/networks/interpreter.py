"""The pixel classifier that reads a generator's features: a small network of 1x1 layers (DatasetGAN, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

Order = Literal["linear-bn-relu", "linear-relu-bn"]
Init = Literal["kaiming", "normal"]


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
