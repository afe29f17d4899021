"""Planted copies: slightly changed training slices that an audit for copies must find."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_gan.machine.seeding import torch_generator

NOISE = 0.05
"""Standard deviation of the noise in [-1, 1]: 35 HU in a window of 1400."""


def plant(images: Tensor, kind: str, seed: int) -> Tensor:
    """Copies of slices, changed in one way.

    Args:
        images: `(N, 1, H, W)` in [-1, 1].
        kind: a key of `KINDS`.
        seed: of noise and shifts.

    Returns:
        `(N, 1, H, W)` in [-1, 1].
    """
    return KINDS[kind](images, torch_generator(seed, "canary", kind)).clamp(-1, 1)


def _exact(images: Tensor, rng: torch.Generator) -> Tensor:
    return images


def _noise(images: Tensor, rng: torch.Generator) -> Tensor:
    return images + NOISE * torch.randn(images.shape, generator=rng)


def _shift(images: Tensor, rng: torch.Generator) -> Tensor:
    """Moved by up to a thirty-second of the side, at least a pixel, in rows and columns; edges are repeated."""
    reach = max(1, min(images.shape[-2:]) // 32)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    height, width = images.shape[-2:]
    moved = []
    for one in padded:
        row, column = torch.randint(0, 2 * reach + 1, (2,), generator=rng).tolist()
        row += (row, column) == (reach, reach)  # not moved at all is no test
        moved.append(one[:, row : row + height, column : column + width])
    return torch.stack(moved)


def _intensity(images: Tensor, rng: torch.Generator) -> Tensor:
    """Contrast times 0.85, a little brighter."""
    return 0.85 * images + 0.05


def _blur(images: Tensor, rng: torch.Generator) -> Tensor:
    """Gaussian of a sixty-fourth of the side, at least half a pixel."""
    sigma = max(0.5, min(images.shape[-2:]) / 64)
    reach = min(round(3 * sigma), min(images.shape[-2:]) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    weights = weights / weights.sum()
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights.reshape(1, 1, -1, 1))
    return F.conv2d(rows, weights.reshape(1, 1, 1, -1))


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "exact": _exact,
    "noise": _noise,
    "shift": _shift,
    "intensity": _intensity,
    "blur": _blur,
}
"""What is done to a training slice."""
