"""Flat figures, textures, colours and blurred backgrounds for the procedural images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

SUPERSAMPLING = 4  # samples per pixel and axis
MARGIN = 0.02  # of the side, kept free around a figure

COLOURS = (
    np.array(
        [
            (200, 62, 60), (72, 156, 76), (62, 92, 190), (226, 198, 72),
            (234, 230, 222), (46, 42, 52), (72, 180, 186), (152, 84, 168),
        ],
        np.float32,
    )
    / 255
)  # fmt: skip
"""One palette for figures and backgrounds, so that colour alone does not tell them apart."""


def disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Circle of radius 1."""
    return u * u + v * v <= 1


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Square of half side 1."""
    return np.maximum(np.abs(u), np.abs(v)) <= 1


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five-pointed star, points at radius 1 and notches at 0.52, one point up."""
    fold = np.abs((np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # angle from the nearest point
    notch = 0.52 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([notch[1], 1 - notch[0]])  # of the edge from (1, 0) to the notch
    return np.hypot(u, v) * (normal[0] * np.cos(fold) + normal[1] * np.sin(fold)) <= normal[0]


def bird(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Plump bird that looks to the right: body, head, beak and tail."""
    body = (u / 0.64) ** 2 + ((v - 0.02 * u) / 0.48) ** 2 <= 1
    head = (u - 0.52) ** 2 + (v + 0.42) ** 2 <= 0.29**2
    beak = (u > 0.7) & (np.abs(v + 0.40) <= 0.42 * (1.0 - u))
    tail = (u < -0.35) & (u > -0.98) & (np.abs(v + 0.30 + 0.35 * (u + 0.98)) <= 0.20)
    return body | head | beak | tail


def carton(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Box seen from the front, wider than high."""
    return (np.abs(u) <= 1) & (np.abs(v) <= 0.66)


def bottle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Upright bottle: body, shoulder and neck."""
    width = 0.46 - 0.28 * np.clip((-0.25 - v) / 0.3, 0, 1)
    return (np.abs(u) <= width) & (v <= 1) & (v >= -0.95)


def scissors(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Scissors, half open: two rings below, two crossed blades above."""
    inside = np.zeros(np.broadcast_shapes(u.shape, v.shape), bool)
    for side in (-1, 1):
        across, along = 0.94 * u - 0.34 * side * v, 0.34 * side * u + 0.94 * v  # across and along one blade
        inside |= (np.abs(across) <= 0.13 * np.clip((along + 1.0) / 0.3, 0, 1)) & (np.abs(along) <= 0.9)
        ring = np.hypot(u + side * 0.42, v - 0.72)
        inside |= (ring <= 0.34) & (ring >= 0.13)
    return inside


@dataclass(frozen=True)
class Outline:
    """Size of a figure: its area, and its outermost points, `(N, 2)`, in the figure's own units."""

    area: float
    points: np.ndarray


@cache
def outline(figure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Outline:
    """Measure a figure on a fine grid."""
    axis = np.linspace(-1.45, 1.45, 581)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    inside = figure(u, v)
    points = np.stack([u[inside], v[inside]], 1)
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    outermost = np.unique((points @ np.stack([np.cos(angles), np.sin(angles)])).argmax(0))
    return Outline(float(inside.sum() * (axis[1] - axis[0]) ** 2), points[outermost])


@dataclass(frozen=True)
class Pose:
    """Where a figure lies: centre (x, y) and scale in sides of the picture, angle in radians, mirrored or not."""

    x: float
    y: float
    scale: float
    angle: float
    mirrored: bool = False

    def turn(self) -> np.ndarray:
        """2 x 2 from the figure's units to sides of the picture, without the shift."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        matrix = self.scale * np.array([[cos, -sin], [sin, cos]])
        return matrix * [-1, 1] if self.mirrored else matrix


def draw_pose(
    rng: np.random.Generator,
    figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    area: tuple[float, float],
    shift: float,
    turn: float,
) -> Pose:
    """Random place of a figure that lies wholly inside the picture.

    Args:
        rng: its stream.
        figure: what is placed.
        area: least and largest part of the picture covered; the largest only as far as the figure fits.
        shift: of the centre, at most, in sides of the picture.
        turn: degrees, at most.
    """
    shape, mirrored = outline(figure), bool(rng.random() < 0.5)
    unit = Pose(0, 0, 1, np.deg2rad(rng.uniform(-turn, turn)), mirrored)
    points = shape.points @ unit.turn().T
    low, high = points.min(0), points.max(0)
    room = 1 - 2 * MARGIN
    largest = min(area[1], shape.area * (room / (high - low).max()) ** 2)
    scale = float(np.sqrt(rng.uniform(area[0], largest) / shape.area))
    inside = MARGIN - scale * low, 1 - MARGIN - scale * high
    first, last = (np.clip(0.5 + side * shift, *inside) for side in (-1, 1))
    x, y = first + rng.random(2) * (last - first)
    return Pose(float(x), float(y), scale, unit.angle, mirrored)


def stripes(s: np.ndarray, t: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Stripes across the figure, in (0, 1): the share of the second colour."""
    return _soft(np.sin((2 * np.pi / 0.17) * (0.8 * s + 0.6 * t) + phases[0]) / 0.25)


def dots(s: np.ndarray, t: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Round dots in a square grid."""
    wave = np.cos((2 * np.pi / 0.19) * s + phases[0]) + np.cos((2 * np.pi / 0.19) * t + phases[1])
    return _soft((wave - 0.35) / 0.35)


def patches(s: np.ndarray, t: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Few large patches without a rule."""
    wave = np.sin(7.0 * s + 3.0 * t + phases[0]) + np.sin(-4.0 * s + 8.0 * t + phases[1])
    return _soft((wave + 0.5 * np.sin(11.0 * s - 9.0 * t + phases[2])) / 0.2)


def _soft(height: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 0.5 * height, 0, 1)


def paint(
    figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    pose: Pose,
    texture: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    phases: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of a figure and share of its second colour, averaged over each pixel.

    The texture turns with the figure but keeps its period, in sides of the picture.

    Returns:
        Two `(size, size)` float32 in [0, 1]; the share counts within the covered part of a pixel.
    """
    points = outline(figure).points @ pose.turn().T + (pose.x, pose.y)
    left, top = np.clip(np.floor(points.min(0) * size).astype(int) - 1, 0, size)
    right, bottom = np.clip(np.ceil(points.max(0) * size).astype(int) + 1, 0, size)
    step = np.float32(1 / (size * SUPERSAMPLING))
    x = (np.arange(left * SUPERSAMPLING, right * SUPERSAMPLING, dtype=np.float32) + 0.5) * step - np.float32(pose.x)
    y = (np.arange(top * SUPERSAMPLING, bottom * SUPERSAMPLING, dtype=np.float32) + 0.5) * step - np.float32(pose.y)
    (a, b), (c, d) = np.linalg.inv(pose.turn()).astype(np.float32)
    u, v = a * x + b * y[:, None], c * x + d * y[:, None]
    inside = figure(u, v).astype(np.float32)
    scale = np.float32(pose.scale)
    second = texture(u * scale, v * scale, phases.astype(np.float32)) * inside
    coverage, share = np.zeros((2, size, size), np.float32)
    window = slice(top, bottom), slice(left, right)
    coverage[window] = _average(inside)
    share[window] = _average(second) / np.maximum(coverage[window], 1e-6)
    return coverage, share


def _average(samples: np.ndarray) -> np.ndarray:
    height, width = (length // SUPERSAMPLING for length in samples.shape)
    return samples.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean((1, 3))


@cache
def _spread(size: int, points: int, width: float) -> np.ndarray:
    """`(size, points)` Gaussian weights that blur a coarse row of values to a fine one of unit variance."""
    fine = (np.arange(size) + 0.5) / size
    coarse = (np.arange(points) - 1) / (points - 3)  # one point beyond either border
    weights = np.exp(-0.5 * ((fine[:, None] - coarse) / width) ** 2)
    return (weights / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32)


def blurred_field(rng: np.random.Generator, size: int, *, blobs: int = 2) -> np.ndarray:
    """Smooth noise with some larger soft blobs, `(size, size)` float32, about normal; the same at every size."""
    spread = _spread(size, 10, 0.14)
    field = spread @ rng.standard_normal((10, 10), np.float32) @ spread.T
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    for _ in range(blobs):
        x, y, radius = rng.random(), rng.random(), rng.uniform(0.12, 0.3)
        sign = np.float32(rng.choice([-2.0, 2.0]))
        row, column = (np.exp(-0.5 * ((axis - centre) / radius) ** 2) for centre in (y, x))
        field += sign * row[:, None].astype(np.float32) * column.astype(np.float32)
    return field


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mix two colours `(3,)` by the second's share `(H, W)`; `(H, W, 3)`."""
    return first + share[..., None] * (second - first)
