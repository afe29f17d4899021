"""Losses that find an image's latent: distances between images, and a penalty on structure in noise maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

COARSEST = 8
"""Pixels a side at which pyramids end (Karras et al., 2020, appendix D)."""


def feature_distance(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Distance of feature maps, each place's vector at unit length (Zhang et al., 2018, equation 1, all weights 1).

    Args:
        fake: `(B, C_l, h_l, w_l)` for each level l.
        real: as `fake`.

    Returns:
        `(B,)`: squared differences, summed over channels and levels, averaged over places.
    """
    levels = [_unit(a) - _unit(b) for a, b in zip(fake, real, strict=True)]
    return torch.stack([level.square().sum(dim=1).mean(dim=(1, 2)) for level in levels]).sum(dim=0)


def pyramid_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of images at full size, half, a quarter, ... down to 8 pixels; the mean of all scales.

    Args:
        fake: `(B, C, H, W)`.
        real: as `fake`.

    Returns:
        `(B,)`.
    """
    difference = fake - real
    scales = [difference.square().mean(dim=(1, 2, 3))]
    while min(difference.shape[-2:]) > COARSEST:
        difference = F.avg_pool2d(difference, 2)
        scales.append(difference.square().mean(dim=(1, 2, 3)))
    return torch.stack(scales).mean(dim=0)


def noise_correlation(noise: Tensor) -> Tensor:
    """Correlation of a noise map with itself moved by one pixel, at all scales (Karras et al., 2020, appendix D).

    Zero for white noise: without it the picture hides in the noise maps.

    Args:
        noise: `(r, r)` of mean 0 and variance 1.

    Returns:
        Scalar, the sum over scales of both squared correlations; maps up to 8 pixels have one scale.
    """
    level = noise[None, None]
    total = noise.new_zeros(())
    while True:
        for axis in (2, 3):
            total = total + (level * level.roll(1, dims=axis)).mean().square()
        if level.shape[-1] <= COARSEST:
            return total
        level = F.avg_pool2d(level, 2) * 2  # the mean of four has half their standard deviation


def _unit(features: Tensor) -> Tensor:
    return features * (features.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt()
