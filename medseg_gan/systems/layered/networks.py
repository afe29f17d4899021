"""Networks of the improved layered GAN (Yang et al., 2022): background, foreground, discriminator, code encoders."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

START = 4  # side of the first feature map


def levels(size: int) -> int:
    """Doublings from the first feature map to the image.

    Raises:
        ValueError: not a power of two of at least 8.
    """
    if size < 2 * START or size & (size - 1):
        raise ValueError(f"size {size} is not a power of two of at least {2 * START}")
    return int(math.log2(size // START))


def up_widths(size: int, base: int, widest: int) -> list[int]:
    """Channels of a start block: `widest` times the base at 4 x 4, halved at each doubling down to the base.

    128 pixels give 16g, 8g, 4g, 2g, g, g as FineGAN has it; smaller images leave out the last ones or start lower.
    """
    widths = [base * widest]
    for _ in range(levels(size)):
        widths.append(max(widths[-1] // 2, base))
    return widths


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(B, W, H, H)` to the same."""
        return features + self.body(features)


class StartBlock(nn.Module):
    """A latent to features at the image's size: linear to 4 x 4, then nearest doubling and convolution."""

    def __init__(self, latent: int, size: int, base: int, widest: int) -> None:
        super().__init__()
        widths = up_widths(size, base, widest)
        self.width = widths[0]
        self.linear = nn.Sequential(
            nn.Linear(latent, widths[0] * START**2, bias=False),
            nn.BatchNorm1d(widths[0] * START**2),
            nn.ReLU(inplace=True),
        )
        blocks = [
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after in pairwise(widths)
        ]
        self.up = nn.Sequential(*blocks)

    def forward(self, latent: Tensor) -> Tensor:
        """`(B, latent)` to `(B, base, H, H)`."""
        start = self.linear(latent).reshape(-1, self.width, START, START)
        return self.up(start.contiguous(memory_format=torch.channels_last))


class NextBlock(nn.Module):
    """Features and a code tiled over them to `out` channels (FineGAN's next stage, its GLU replaced by ReLU)."""

    def __init__(self, width: int, code: int, out: int, blocks: int) -> None:
        super().__init__()
        self.join = nn.Sequential(
            nn.Conv2d(width + code, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(*(ResBlock(width) for _ in range(blocks)))
        self.end = nn.Sequential(
            nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        )

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """`(B, W, H, H)` and `(B, code)` to `(B, out, H, H)`."""
        tiled = code[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return self.end(self.body(self.join(torch.cat([features, tiled], dim=1))))


class LayeredGenerator(nn.Module):
    """Background from z, mask from (z, c_sup), foreground colours from (z, c_sup, c).

    z, the public code, is shared by both layers; c and its parent c_sup are private to the foreground, so that what
    tells c must lie in the foreground (paper, section 3.2).

    Args:
        size: side of the images, a power of two.
        channels: of the images.
        z_dim: size of the public code.
        c_dim: size of the private code.
        c_sup_dim: size of its parent code, which the mask sees.
        base: g, channels at the image's size.
        widest: channels at 4 x 4, as a multiple of g.
        blocks: residual blocks of a stage.
        smallest: channels of the last stages at least.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        z_dim: int,
        c_dim: int,
        c_sup_dim: int,
        base: int = 64,
        widest: int = 16,
        blocks: int = 2,
        smallest: int = 1,
    ) -> None:
        super().__init__()
        half, quarter = max(base // 2, smallest), max(base // 4, smallest)
        self.background = nn.Sequential(
            StartBlock(z_dim, size, base, widest), nn.Conv2d(base, channels, 3, padding=1), nn.Tanh()
        )
        self.start = StartBlock(z_dim + c_sup_dim, size, base, widest)
        self.parent = NextBlock(base, c_sup_dim, half, blocks)
        self.mask = nn.Conv2d(half, 1, 3, padding=1)
        self.child = NextBlock(half, c_dim, quarter, blocks)
        self.colour = nn.Sequential(nn.Conv2d(quarter, channels, 3, padding=1), nn.Tanh())
        self.apply(orthogonal)

    def forward(self, z: Tensor, c: Tensor, c_sup: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Layers of B images.

        Args:
            z: `(B, z_dim)`.
            c: `(B, c_dim)`.
            c_sup: `(B, c_sup_dim)`.

        Returns:
            background `(B, C, H, H)` in [-1, 1], foreground likewise, mask `(B, 1, H, H)` in [0, 1].
        """
        features = self.parent(self.start(torch.cat([c_sup, z], dim=1)), c_sup)
        mask = torch.sigmoid(self.mask(features).float())
        return self.background(z).float(), self.colour(self.child(features, c)).float(), mask


def down_block(before: int, after: int, norm: bool) -> nn.Sequential:
    """Halve the size: 4 x 4 convolution of stride 2, norm where asked, leaky ReLU."""
    conv = nn.Conv2d(before, after, 4, 2, 1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(after) if norm else nn.Identity(), nn.LeakyReLU(0.2))


def down_widths(size: int, first: int) -> list[int]:
    """Channels after each halving down to 4 x 4, doubling from `first`."""
    return [first * 2**k for k in range(levels(size))]


class CodeHead(nn.Module):
    """The last two layers of D and of the encoders: from 4 x 4 features to numbers."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        middle = max(width // 2, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(width, middle, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(middle, out, START)
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(B, W, 4, 4)` to `(B, out)`."""
        return self.layers(features).flatten(1).float()


class LayeredDiscriminator(nn.Module):
    """Real or generated, and with the same trunk E_x: which private code an image shows.

    Spectral norm on every layer. Batch norm in the trunk (`norm: sn_bn`) lets real and generated images of a batch
    leak into each other; it is an option for what the paper may have meant.
    """

    def __init__(self, size: int, channels: int, c_dim: int, first: int = 64, norm: str = "sn") -> None:
        super().__init__()
        widths = [channels, *down_widths(size, first)]
        pairs = pairwise(widths)
        self.trunk = nn.Sequential(*(down_block(a, b, norm == "sn_bn" and a != channels) for a, b in pairs))
        self.judge = CodeHead(widths[-1], 1)
        self.E_x = CodeHead(widths[-1], c_dim)
        self.apply(orthogonal)
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, C, H, H)` in [-1, 1] to `(B, 1)` logits and `(B, c_dim)` code logits (means for a Gaussian code)."""
        features = self.trunk(image)
        return self.judge(features), self.E_x(features)


class MaskEncoder(nn.Module):
    """E_pi: which parent code a mask shows; half as wide as the discriminator, with batch norm."""

    def __init__(self, size: int, c_sup_dim: int, first: int = 32) -> None:
        super().__init__()
        widths = [1, *down_widths(size, first)]
        pairs = pairwise(widths)
        self.trunk = nn.Sequential(*(down_block(a, b, a != 1) for a, b in pairs))
        self.head = CodeHead(widths[-1], c_sup_dim)
        self.apply(orthogonal)

    def forward(self, mask: Tensor) -> Tensor:
        """`(B, 1, H, H)` in [0, 1] to `(B, c_sup_dim)` code logits."""
        return self.head(self.trunk(mask))


def orthogonal(layer: nn.Module) -> None:
    """Orthogonal weights of gain 1, batch norm scales from N(1, 0.02)."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
