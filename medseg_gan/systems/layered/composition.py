"""Composition of the layers, with the random changes that keep them apart (Yang et al., 2022, eq. 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Perturbation:
    """How far foregrounds are moved over their backgrounds, and how much backgrounds change in contrast.

    Attributes:
        shift: translation at most, as a share of the image's side.
        degrees: rotation at most.
        shrink: scale down to 2 to this power; not positive, a foreground is never enlarged.
        contrast: range of the factor on the background's contrast; None: off.
    """

    shift: float = 0.125
    degrees: float = 15.0
    shrink: float = -0.2
    contrast: tuple[float, float] | None = None


def compose(background: Tensor, foreground: Tensor, mask: Tensor) -> Tensor:
    """Lay the foreground over the background: `(1 - pi) x_b + pi x_f` (eq. 2).

    Args:
        background: `(B, C, H, W)`.
        foreground: `(B, C, H, W)`.
        mask: `(B, 1, H, W)` in [0, 1].
    """
    return background + mask * (foreground - background)


def draw_affine(count: int, how: Perturbation, device: torch.device | str) -> Tensor:
    """Draw T, one for each image, from torch's global stream.

    Returns:
        `(B, 2, 3)` maps from output to input coordinates (x, y) in [-1, 1], the inverse of
        Translate · Rotate · Scale(2^s) as `affine_grid` wants it.
    """
    uniform = torch.rand(count, 4, device=device)
    angle = (2 * uniform[:, 0] - 1) * math.radians(how.degrees)
    enlarge = 2 ** -(how.shrink * uniform[:, 1])  # of the input coordinates: the foreground shrinks
    shift = (2 * uniform[:, 2:] - 1) * 2 * how.shift  # the side is two units long
    cos, sin = angle.cos() * enlarge, angle.sin() * enlarge
    rotation = torch.stack([cos, sin, -sin, cos], dim=1).reshape(count, 2, 2)
    return torch.cat([rotation, -rotation @ shift[:, :, None]], dim=2)


def move(foreground: Tensor, mask: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Move foreground and mask alike; where they leave, the mask is 0 and the background shows.

    Args:
        foreground: `(B, C, H, W)` in [-1, 1].
        mask: `(B, 1, H, W)` in [0, 1].
        theta: `(B, 2, 3)` of `draw_affine`.
    """
    both = torch.cat([foreground, mask], dim=1)
    grid = functional.affine_grid(theta, list(both.shape), align_corners=False)
    moved = functional.grid_sample(both, grid, align_corners=False)
    return moved[:, :-1], moved[:, -1:]


def change_contrast(background: Tensor, limits: tuple[float, float]) -> Tensor:
    """Scale each background about its channels' means, inside its own range of values (Bielski and Favaro, 2019).

    Args:
        background: `(B, C, H, W)` in [-1, 1].
        limits: range from which the factor k of each image is drawn.
    """
    k = limits[0] + (limits[1] - limits[0]) * torch.rand(len(background), 1, 1, 1, device=background.device)
    mean = background.mean(dim=(2, 3), keepdim=True)
    changed = (background - mean) * k + mean
    return changed.clamp(background.amin(dim=(2, 3), keepdim=True), background.amax(dim=(2, 3), keepdim=True))


def perturbed_composition(
    background: Tensor, foreground: Tensor, mask: Tensor, how: Perturbation
) -> tuple[Tensor, Tensor]:
    """Compose with the foreground moved at random: `(1 - T(pi)) x_b + T(pi) T(x_f)` (eq. 3).

    A mask that holds more than the object shows its border wherever it is moved to, so "all as foreground" does not
    pay. Used while training, for D and G alike; never when sampling.

    Returns:
        The composite and the moved mask.
    """
    if how.contrast is not None:
        background = change_contrast(background, how.contrast)
    foreground, mask = move(foreground, mask, draw_affine(len(mask), how, mask.device))
    return compose(background, foreground, mask), mask
