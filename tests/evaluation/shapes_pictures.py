"""Small pictures of soft shapes on textured ground, drawn where a field of coordinates says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pictures(count: int, seed: int, kinds: tuple[int, ...] = (0, 1, 2, 3), warp: float = 0, size: int = 32) -> Tensor:
    """`(count, 1, size, size)` in [-1, 1]: disc, square, ring or bar at a random place.

    `warp` bends the coordinates themselves by that share of the side, so that nothing is blurred by resampling.
    """
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return rng.uniform(low, high, (count, 1, 1))

    y, x = (np.broadcast_to(axis, (count, size, size)) for axis in np.mgrid[:size, :size] / size - 0.5)
    kind, radius, at_x, at_y = rng.choice(kinds, (count, 1, 1)), draw(0.2, 0.28), draw(-0.12, 0.12), draw(-0.12, 0.12)
    waves = [(draw(-5, 5), draw(-5, 5), draw(0, 6.28), draw(0, 6.28)) for _ in range(6)]
    bends = [(draw(-2.5, 2.5), draw(-2.5, 2.5), draw(0, 6.28), draw(0, 6.28)) for _ in range(6)]
    dx = sum(np.sin(6.28 * (a * x + b * y) + c) for a, b, c, _ in bends)
    dy = sum(np.sin(6.28 * (a * x + b * y) + d) for a, b, _, d in bends)
    x, y = x + warp * dx / 6**0.5, y + warp * dy / 6**0.5
    ground = sum(np.sin(6.28 * (a * x + b * y) + c) for a, b, c, _ in waves) * 0.08 - 0.4
    u, v = x - at_x, y - at_y
    far = np.hypot(u, v)
    inside = np.choose(
        kind,
        [
            radius - far,
            0.85 * radius - np.maximum(abs(u), abs(v)),
            0.06 - abs(far - radius),
            -np.maximum(abs(u) - radius, abs(v) - 0.07),
        ],
    )
    mask = np.clip(0.5 + inside * size, 0, 1)
    bright = 0.5 + 0.1 * kind + draw(-0.05, 0.05)
    picture = ground * (1 - mask) + bright * mask + 0.03 * rng.standard_normal(mask.shape)
    return torch.from_numpy(np.clip(picture, -1, 1)).float().unsqueeze(1)
