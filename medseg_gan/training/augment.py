"""Random changes of labelled slices and of images, a whole batch at once; slices are never mirrored."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

AIR = -1.0
"""Image value outside the field of view."""


def augment(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Move each slice and its label alike, then change the slice's grey values.

    Draws from torch's global stream, so that a step which seeds itself repeats its augmentation.

    Args:
        image: `(B, 1, H, W)` in [-1, 1].
        label: `(B, H, W)` class ids.

    Returns:
        Image and label of the same shapes and ranges.
    """
    image, label = apply_affine(image, label, draw_affine(len(image), image.device))
    return vary_intensity(image), label


def draw_affine(
    count: int, device: torch.device | str, *, degrees: float = 10.0, scale: float = 0.15, shift: float = 0.1
) -> Tensor:
    """Draw rotations, scalings of each axis and translations; no draw mirrors.

    Args:
        count: number of transforms B.
        device: where they are wanted.
        degrees: rotation at most.
        scale: each axis is scaled by 1 - scale to 1 + scale.
        shift: translation at most, as a share of the half side.

    Returns:
        `(B, 2, 3)` maps from output to input, coordinates (x, y) in [-1, 1].
    """
    uniform = torch.rand(count, 5, device=device) * 2 - 1
    angle = uniform[:, 0] * math.radians(degrees)
    stretch = 1 / (1 + uniform[:, 1:3] * scale)  # (B, 2)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).reshape(count, 2, 2)
    return torch.cat([rotation * stretch.unsqueeze(1), (uniform[:, 3:] * shift).unsqueeze(2)], dim=2)


def apply_affine(image: Tensor, label: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Resample slices linearly and labels to the nearest pixel; from outside come air and background.

    Args:
        image: `(B, 1, H, W)` in [-1, 1].
        label: `(B, H, W)` class ids.
        theta: `(B, 2, 3)` maps from output to input.
    """
    moved = warp(image - AIR, theta) + AIR
    nearest = warp(label.unsqueeze(1).to(image.dtype), theta, mode="nearest")
    return moved, nearest.squeeze(1).to(label.dtype)


def warp(values: Tensor, theta: Tensor, mode: str = "bilinear", padding_mode: str = "zeros") -> Tensor:
    """Resample maps `(B, C, H, W)` by `(B, 2, 3)` affine maps from output to input; modes as in `grid_sample`."""
    grid = functional.affine_grid(theta, list(values.shape), align_corners=False)
    return functional.grid_sample(values, grid, mode=mode, padding_mode=padding_mode, align_corners=False)


def vary_intensity(
    image: Tensor, *, gamma: float = 0.25, gain: float = 0.1, offset: float = 0.08, noise: float = 0.08
) -> Tensor:
    """Change contrast and brightness of each slice and add white noise; values stay in [-1, 1].

    Args:
        image: `(B, 1, H, W)` in [-1, 1].
        gamma: the exponent on [0, 1] is exp(-gamma) to exp(gamma).
        gain: factor 1 - gain to 1 + gain.
        offset: added value at most.
        noise: standard deviation at most.
    """
    uniform = torch.rand(4, len(image), 1, 1, 1, device=image.device)
    exponent = torch.exp(gamma * (2 * uniform[0] - 1))
    image = 2 * ((image + 1) / 2).clamp(min=0) ** exponent - 1  # rounding below -1 would become NaN
    image = image * (1 + gain * (2 * uniform[1] - 1)) + offset * (2 * uniform[2] - 1)
    return (image + noise * uniform[3] * torch.randn_like(image)).clamp(-1, 1)


def flip_and_crop(image: Tensor, smallest: float, mirror: bool = True) -> Tensor:
    """Mirror images at random and cut random squares, resampled to the same size.

    Args:
        image: `(B, C, H, W)` in [-1, 1].
        smallest: side of the smallest square, as a share of the image's; 1 cuts nothing.
        mirror: whether left and right are swapped in half of them; never for CT.
    """
    count, device = len(image), image.device
    uniform = torch.rand(count, 4, device=device)
    side = smallest + (1 - smallest) * uniform[:, 0]
    direction = torch.where(uniform[:, 1] < 0.5, -1.0, 1.0) if mirror else 1.0
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = side * direction, side
    theta[:, :, 2] = (2 * uniform[:, 2:] - 1) * (1 - side[:, None])
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def vary_colour(
    image: Tensor, *, brightness: float = 0.2, contrast: float = 0.5, saturation: float = 1.0, probability: float = 0.5
) -> Tensor:
    """Change brightness, contrast, saturation and hue of pictures, each with a probability; values stay in [-1, 1].

    The strengths are those of StyleGAN2-ADA's colour pipe (Karras et al., 2020a). Grey images keep their hue.

    Args:
        image: `(B, C, H, W)` in [-1, 1], C 1 or 3.
        brightness: standard deviation of what is added.
        contrast: standard deviation of the factor's logarithm to base 2.
        saturation: the same for the distance from grey.
        probability: of each change, for each picture.
    """
    count, device = len(image), image.device

    def chosen(values: Tensor, neutral: float) -> Tensor:
        return values.where(torch.rand(count, device=device) < probability, neutral).reshape(count, 1, 1, 1)

    image = image + chosen(brightness * torch.randn(count, device=device), 0.0)
    image = image * chosen(2 ** (contrast * torch.randn(count, device=device)), 1.0)
    if image.shape[1] == 3:
        grey = image.mean(dim=1, keepdim=True)
        image = grey + (image - grey) * chosen(2 ** (saturation * torch.randn(count, device=device)), 1.0)
        angle = chosen((2 * torch.rand(count, device=device) - 1) * math.pi, 0.0)
        image = _turn_hue(image, angle)
    return image.clamp(-1, 1)


def _turn_hue(image: Tensor, angle: Tensor) -> Tensor:
    """Turn colours about the grey axis by `(B, 1, 1, 1)` radians (Rodrigues' formula)."""
    red, green, blue = image.unbind(dim=1)
    across = torch.stack([blue - green, red - blue, green - red], dim=1) / math.sqrt(3)  # grey axis x colour
    along = image.mean(dim=1, keepdim=True)
    return along + (image - along) * angle.cos() + across * angle.sin()
