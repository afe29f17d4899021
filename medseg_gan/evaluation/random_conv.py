"""The feature extractor `random-conv-v1`: a small convolutional network whose random weights never change."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_gan.data import pixels
from medseg_gan.errors import MedsegError

NAME = "random-conv-v1"
WEIGHTS_SHA256 = "635fb0be904db217f4e76a77ad8d1411178ffb977134ba12e2e8311c83c76e11"
WIDTHS = (12, 16, 24, 32)
PROJECTED = 3
"""Directions of each level that are pooled per quarter of the picture."""
LEVEL_GAINS = (2.0, 1.5, 1.0, 0.5)
"""The deeper levels amplify; without these their spread would drown the first."""
SMALLEST, LARGEST = 32, 128
"""Sides in pixels between which pictures are seen as they are."""


class RandomConvExtractor(nn.Module):
    """Features of pictures from a fixed random network, for comparisons of sets without trained weights.

    Four 3x3 convolutions of stride 2 with leaky ReLU. From each level: mean and standard deviation of every channel
    over the picture (texture), and the means of three random directions in each quarter of it (layout). The weights
    come from SHA-256 in counter mode, so no version of torch or NumPy changes them; half of the filters have sum 0.
    Distances compare pictures of one size: the levels are those of the picture's own grid.

    Attributes:
        name: `random-conv-v1`.
        weights_sha256: of all weights, as little-endian float32 in the order of the levels.
        num_features: D.
        comparable_to_published_fid: False.

    Example:
        features = RandomConvExtractor()(images)  # (B, 216)
    """

    def __init__(self) -> None:
        """Build the network.

        Raises:
            MedsegError: the weights are not those this version was frozen with.
        """
        super().__init__()
        weights = list(frozen_weights())
        self.name, self.comparable_to_published_fid = NAME, False
        self.weights_sha256 = hashlib.sha256(b"".join(w.astype("<f4").tobytes() for w in weights)).hexdigest()
        if self.weights_sha256 != WEIGHTS_SHA256:
            raise MedsegError(
                f"{NAME}: weights have sha256 {self.weights_sha256[:8]}, wanted {WEIGHTS_SHA256[:8]}; "
                "this Python's arithmetic differs, so distances would not be comparable"
            )
        for name, values in zip(_names(), weights, strict=True):
            self.register_buffer(name, torch.from_numpy(values))
        self.num_features = sum(2 * width + 4 * PROJECTED for width in WIDTHS)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            images: `(B, C, H, W)` in [-1, 1], C 1 or 3, quantised here to 8 bits; sides below 32 or above 128 pixels
                are resized to that.

        Returns:
            `(B, 216)` float32, on the network's device.
        """
        device = self.get_buffer("weight0").device
        with torch.autocast(device.type, enabled=False):  # a distance must not depend on how the generator runs
            return self._features(to_uint8(images.to(device)))

    def _features(self, pixels: Tensor) -> Tensor:
        x = pixels.float() / 127.5 - 1
        size = tuple(min(max(side, SMALLEST), LARGEST) for side in x.shape[-2:])
        if size != x.shape[-2:]:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        features = []
        for level, gain in enumerate(LEVEL_GAINS):
            weight, bias, project = (self.get_buffer(f"{part}{level}") for part in ("weight", "bias", "project"))
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1), 0.2)
            flat = x.flatten(2)  # (B, C, h w)
            quarters = F.adaptive_avg_pool2d(F.conv2d(x, project), 2)  # (B, PROJECTED, 2, 2)
            std = (flat.var(dim=2, unbiased=False) + 1e-6).sqrt()
            features += [gain * part.flatten(1) for part in (flat.mean(dim=2), std, quarters)]
        return torch.cat(features, dim=1)


def to_uint8(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] as 8-bit RGB, as they would be stored (Karras et al., 2020, code); grey repeated.

    Args:
        images: `(B, C, H, W)` with C 1 or 3 and sides of at least 16 pixels.

    Returns:
        `(B, 3, H, W)` uint8.

    Raises:
        MedsegError: another shape, or values that are not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 16:
        shape = tuple(images.shape)
        raise MedsegError(f"pictures have shape {shape}, wanted (B, C, H, W) with C 1 or 3 and H, W at least 16")
    if not torch.isfinite(images).all():
        raise MedsegError("pictures hold values that are not finite; wanted [-1, 1]")
    return pixels.to_uint8(images).expand(-1, 3, -1, -1)


def frozen_weights() -> Iterator[np.ndarray]:
    """Weight, bias and projection of each level as float32.

    Every operation is exactly rounded (fsum, sqrt, division) or followed by rounding to a coarse grid (the deviates),
    so that the bits are the same on every machine.
    """
    deviates = _normal_deviates()
    channels = 3
    for width in WIDTHS:
        rows = [[next(deviates) for _ in range(channels * 9)] for _ in range(width)]
        for k, row in enumerate(rows):
            if k % 2:  # responds to edges alone: each input channel's 3x3 filter has sum 0
                row[:] = [v - math.fsum(row[i // 9 * 9 : i // 9 * 9 + 9]) / 9 for i, v in enumerate(row)]
        weight = [_unit(row, math.sqrt(2) * (1.25 if k % 2 else 1)) for k, row in enumerate(rows)]
        yield np.array(weight, np.float32).reshape(width, channels, 3, 3)
        yield np.array([0.25 * next(deviates) for _ in range(width)], np.float32)
        project = [_unit([next(deviates) for _ in range(width)], 1) for _ in range(PROJECTED)]
        yield np.array(project, np.float32).reshape(PROJECTED, width, 1, 1)
        channels = width


def _names() -> Iterator[str]:
    for level in range(len(WIDTHS)):
        yield from (f"{part}{level}" for part in ("weight", "bias", "project"))


def _normal_deviates() -> Iterator[float]:
    """Standard normal deviates from SHA-256 in counter mode, rounded to multiples of 2**-16."""
    inverse = NormalDist().inv_cdf
    counter = 0
    while True:
        digest = hashlib.sha256(f"{NAME}/{counter}".encode()).digest()
        for start in range(0, len(digest), 4):
            uniform = (int.from_bytes(digest[start : start + 4], "little") + 0.5) / 2**32
            yield round(inverse(uniform) * 2**16) / 2**16
        counter += 1


def _unit(row: list[float], length: float) -> list[float]:
    norm = math.sqrt(math.fsum(value * value for value in row))
    return [length * value / norm for value in row]
