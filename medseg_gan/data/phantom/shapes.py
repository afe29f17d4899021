"""Three-dimensional shapes in millimetres, and how their sections are drawn into a thin slab.

Patient coordinates: x to the patient's left, y to the back, depth downwards from the top of the lungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

SECTORS = 720
"""Directions in which an outline around the patient's axis is tabulated; half a degree is 1.5 mm at the skin."""

BALL_WINDOWS = (4, 8, 16, 32, 64, 128)
"""Window sizes, in samples, into which the discs of a tube are sorted before they are stamped together."""


@dataclass(frozen=True)
class Pose:
    """Where the patient lies: turned about the body axis, off centre, and gently bent so that no ellipse is perfect."""

    angle: float  # radians
    shift: tuple[float, float]  # mm
    waves: np.ndarray  # (K, 5): wave vector x, y (rad/mm), phase, displacement x, y (mm)

    def bend(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Displacement in mm at scanner coordinates."""
        kx, ky, phase, ax, ay = (column.reshape(-1, *[1] * x.ndim) for column in self.waves.T.astype(x.dtype))
        wave = np.sin(kx * x + ky * y + phase)  # (K, ...)
        return (ax * wave).sum(0), (ay * wave).sum(0)

    def to_patient(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scanner to patient coordinates."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        px, py = x - self.shift[0], y - self.shift[1]
        dx, dy = self.bend(x, y)
        return c * px + s * py + dx, c * py - s * px + dy

    def to_scanner(self, x: np.ndarray, y: np.ndarray, steps: int = 3) -> tuple[np.ndarray, np.ndarray]:
        """Patient to scanner coordinates by fixed-point steps; three leave less than 0.1 mm of the bend."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        qx, qy = x, y
        for step in range(steps):
            sx, sy = c * qx - s * qy + self.shift[0], s * qx + c * qy + self.shift[1]
            if step < steps - 1:
                dx, dy = self.bend(sx, sy)
                qx, qy = x - dx, y - dy
        return sx, sy


class Frame:
    """Patient coordinates of every sample of a square in-plane grid.

    Args:
        size: samples per side.
        step: distance between samples, mm.
        pose: the patient's pose; the grid's middle is the scanner's.
        placed: tubes already carried to the scanner, by identity; frames of one patient share it.
    """

    def __init__(self, size: int, step: float, pose: Pose, placed: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
        self.size, self.step, self.pose, self.placed = size, step, pose, placed
        axis = ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
        self.scanner = axis
        x, y = pose.to_patient(*np.meshgrid(axis, axis))
        self.x, self.y = x.astype(np.float32), y.astype(np.float32)  # (H, W)
        self.rho = np.hypot(self.x, self.y)
        theta = np.arctan2(self.y, self.x)
        self.sector = np.rint((theta + np.pi) * (SECTORS / (2 * np.pi))).astype(np.int32) % SECTORS

    def to_sample(self, scanner: np.ndarray) -> np.ndarray:
        """Scanner coordinate (mm) to fractional column or row."""
        return scanner / self.step + (self.size - 1) / 2

    def tube_samples(self, shape: Tube) -> tuple[np.ndarray, np.ndarray]:
        """Fractional columns and rows of a tube's balls."""
        if id(shape) not in self.placed:
            self.placed[id(shape)] = self.pose.to_scanner(shape.points[:, 0], shape.points[:, 1])
        x, y = self.placed[id(shape)]
        return self.to_sample(x), self.to_sample(y)

    def box(self, x: float, y: float, reach: float) -> tuple[slice, slice] | None:
        """Rows and columns that hold everything within `reach` mm of a point; None when outside the grid."""
        place = self.pose.to_scanner(np.array(x), np.array(y), steps=2)
        half = 1.08 * reach / self.step + 2  # the bend stretches by a few per cent
        middle = (float(self.to_sample(place[1])), float(self.to_sample(place[0])))  # row, column
        ends = [(int(max(at - half, 0)), int(min(at + half + 1, self.size))) for at in middle]
        if any(low >= high for low, high in ends):
            return None
        return slice(*ends[0]), slice(*ends[1])


def sector_angles() -> np.ndarray:
    """`(SECTORS,)` directions in radians: 0 is the patient's left, pi / 2 the back."""
    return np.arange(SECTORS) * (2 * np.pi / SECTORS) - np.pi


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid anywhere, any way round."""

    centre: np.ndarray  # (3,) x, y, depth
    radii: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3) rows are the unit axes

    def grown(self, by: float) -> Ellipsoid:
        """The same with all radii larger by `by` mm."""
        return Ellipsoid(self.centre, np.maximum(self.radii + by, 0.5), self.axes)

    def moved(self, by: np.ndarray) -> Ellipsoid:
        """The same elsewhere."""
        return Ellipsoid(self.centre + by, self.radii, self.axes)


@dataclass(frozen=True)
class Tube:
    """A tube of round section along curves: overlapping balls, sorted by depth."""

    points: np.ndarray  # (P, 3)
    radii: np.ndarray  # (P,)
    stretch: float = 1.0  # > 1: sections taller than wide (ribs)

    def grown(self, by: float) -> Tube:
        """The same with all radii larger by `by` mm; balls that vanish are dropped."""
        kept = self.radii + by > 0.2
        return Tube(self.points[kept], self.radii[kept] + by, self.stretch)


@dataclass(frozen=True)
class Column:
    """A superellipse whose centre, half axes and turn follow tables over depth (linear in between)."""

    depth: np.ndarray  # (K,) increasing; nothing is drawn outside
    table: np.ndarray  # (K, 5): x, y, half axis a, half axis b, turn in radians
    power: int = 2  # 2 or 4

    def grown(self, by: float) -> Column:
        """The same with both half axes larger by `by` mm."""
        table = self.table.copy()
        table[:, 2:4] += by
        return Column(self.depth, table, self.power)


IN_AIR = (-980.0, -450.0)
IN_FAT = (-145.0, -55.0)


@dataclass(frozen=True)
class Part:
    """A shape with its HU.

    `ident` None leaves the labels alone; `only`, HU from and to, draws over such tissue only: vessels over aerated
    lung (not over the air in bronchi), glands over fat.
    """

    shape: Ellipsoid | Tube | Column
    hu: float
    ident: int | None = None
    only: tuple[float, float] | None = None


def rotation_to(direction: ArrayLike, roll: float = 0.0) -> np.ndarray:
    """`(3, 3)` rows: the unit `direction` and two axes across it, turned by `roll` radians."""
    u = np.asarray(direction, np.float64)
    u = u / np.linalg.norm(u)
    v = np.cross((0.0, 0.0, 1.0) if abs(u[2]) < 0.9 else (1.0, 0.0, 0.0), u)
    v /= np.linalg.norm(v)
    w = np.cross(u, v)
    return np.stack([u, np.cos(roll) * v + np.sin(roll) * w, np.cos(roll) * w - np.sin(roll) * v])


def ellipsoid(centre: ArrayLike, radii: ArrayLike, direction: ArrayLike = (1, 0, 0)) -> Ellipsoid:
    """An ellipsoid whose first axis points along `direction`."""
    return Ellipsoid(np.asarray(centre, np.float64), np.asarray(radii, np.float64), rotation_to(direction))


def tube_from_points(points: np.ndarray, radii: np.ndarray, stretch: float = 1.0) -> Tube:
    """Sort balls by depth, as drawing needs them."""
    order = np.argsort(points[:, 2], kind="stable")
    return Tube(points[order].astype(np.float32), radii[order].astype(np.float32), stretch)


def tube(nodes: np.ndarray | Sequence[Any], radii: ArrayLike, stretch: float = 1.0) -> Tube:
    """A smooth tube through nodes.

    Args:
        nodes: K points (x, y, depth), mm.
        radii: K radii, mm.
        stretch: height of a section over its width.
    """
    corners = np.asarray(nodes, np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    spacing = max(0.3 * float(np.min(radii)), 0.7)  # sections then deviate from a tube by 1 % of the radius
    s = np.linspace(0.0, along[-1], max(int(along[-1] / spacing), 2))
    points = (
        CubicSpline(along, corners)(s)
        if len(corners) > 2
        else np.stack([np.interp(s, along, column) for column in corners.T], axis=1)
    )
    return tube_from_points(points, np.interp(s, along, np.asarray(radii, np.float64)), stretch)


class Canvas:
    """A slab of sub-slices being painted: later strokes cover earlier ones.

    Args:
        frame: the in-plane grid.
        depths: `(S,)` depths of the sub-slices, mm.
        background: `(H, W)` HU behind the patient.
    """

    def __init__(self, frame: Frame, depths: np.ndarray, background: np.ndarray | float, labels: bool) -> None:
        shape = (len(depths), frame.size, frame.size)
        self.frame, self.depths = frame, depths.astype(np.float32)
        self.hu = np.empty(shape, np.float32)
        self.hu[:] = background
        self.ids = np.zeros(shape, np.uint8) if labels else None

    @property
    def middle(self) -> float:
        """Depth of the slab's middle, mm."""
        return float(self.depths.mean())

    def where(self, mask: np.ndarray, hu: float | np.ndarray, ident: int | None, box: tuple = (...,)) -> None:
        """Paint where a mask broadcastable to `(S, h, w)` holds."""
        np.copyto(self.hu[box], hu, where=mask)
        if self.ids is not None and ident is not None:
            np.copyto(self.ids[box], ident, where=mask)

    def draw(self, part: Part) -> None:
        """Paint one part."""
        if self.ids is not None and part.ident is None:
            return  # the label pass has no use for what carries no label
        if isinstance(part.shape, Tube):
            self._draw_tube(part, part.shape)
        elif isinstance(part.shape, Column):
            self._draw_column(part, part.shape)
        else:
            self._draw_ellipsoid(part, part.shape)

    def _paint(self, part: Part, mask: np.ndarray, box: tuple) -> None:
        box = (slice(None), *box)
        if part.only:
            below = self.hu[box]
            mask = mask & (below > part.only[0]) & (below < part.only[1])
        self.where(mask, part.hu, part.ident, box)

    def _draw_ellipsoid(self, part: Part, shape: Ellipsoid) -> None:
        reach = np.sqrt(((shape.axes * shape.radii[:, None]) ** 2).sum(0))  # half extents along x, y, depth
        dz = self.depths - shape.centre[2]
        if np.abs(dz).min() > reach[2]:
            return
        box = self.frame.box(shape.centre[0], shape.centre[1], float(max(reach[0], reach[1])))
        if box is None:
            return
        A = ((shape.axes.T / shape.radii**2) @ shape.axes).astype(np.float32)
        dx, dy = self.frame.x[box] - np.float32(shape.centre[0]), self.frame.y[box] - np.float32(shape.centre[1])
        plane = A[0, 0] * dx * dx + (2 * A[0, 1]) * dx * dy + A[1, 1] * dy * dy
        slope = 2 * (A[0, 2] * dx + A[1, 2] * dy)
        level = 1 - A[2, 2] * dz * dz
        self._paint(part, plane + slope * dz[:, None, None] <= level[:, None, None], box)

    def _draw_column(self, part: Part, shape: Column) -> None:
        depth = self.middle
        if not shape.depth[0] <= depth <= shape.depth[-1]:
            return
        x, y, a, b, turn = (float(np.interp(depth, shape.depth, column)) for column in shape.table.T)
        if min(a, b) < 0.3:
            return
        box = self.frame.box(x, y, max(a, b) if shape.power == 2 else 1.2 * max(a, b))
        if box is None:
            return
        dx, dy = self.frame.x[box] - np.float32(x), self.frame.y[box] - np.float32(y)
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u, v = (c * dx + s * dy) * np.float32(1 / a), (c * dy - s * dx) * np.float32(1 / b)
        u *= u
        v *= v
        if shape.power == 4:
            u *= u
            v *= v
        self._paint(part, (u + v <= 1)[None], box)

    def _draw_tube(self, part: Part, shape: Tube) -> None:
        if not len(shape.radii):
            return
        height = float(shape.radii.max()) * shape.stretch
        first, last = np.searchsorted(shape.points[:, 2], (self.depths[0] - height, self.depths[-1] + height))
        if first >= last:
            return
        points, radii = shape.points[first:last], shape.radii[first:last]
        columns, rows = (at[first:last] for at in self.frame.tube_samples(shape))
        for k, depth in enumerate(self.depths):
            dz = (points[:, 2] - depth) / shape.stretch
            square = (radii * radii - dz * dz) / self.frame.step**2
            cut = square > 0.02
            if cut.any():
                self._stamp(part, k, columns[cut], rows[cut], square[cut])

    def _stamp(self, part: Part, k: int, columns: np.ndarray, rows: np.ndarray, square: np.ndarray) -> None:
        """Stamp discs, in samples and squared radii, into sub-slice k: those of one window size together."""
        size, need = self.frame.size, 2 * np.sqrt(square) + 1
        hu = self.hu[k].reshape(-1)
        low = 0
        for window in BALL_WINDOWS:
            chosen = (need > low) & (need <= window)
            low = window
            if not chosen.any():
                continue
            corner_r = np.ceil(rows[chosen] - window / 2).astype(np.int32)
            corner_c = np.ceil(columns[chosen] - window / 2).astype(np.int32)
            steps = np.arange(window, dtype=np.int32)
            r, c = corner_r[:, None] + steps, corner_c[:, None] + steps  # (P, window)
            dr, dc = r - rows[chosen][:, None], c - columns[chosen][:, None]
            dr = np.where((r >= 0) & (r < size), dr * dr, np.inf)
            dc = np.where((c >= 0) & (c < size), dc * dc, np.inf)
            inside = dr[:, :, None] + dc[:, None, :] <= square[chosen][:, None, None]
            index = (r * size)[:, :, None] + c[:, None, :]
            index = index[inside]
            if part.only:
                below = hu[index]
                index = index[(below > part.only[0]) & (below < part.only[1])]
            hu[index] = part.hu
            if self.ids is not None and part.ident is not None:
                self.ids[k].reshape(-1)[index] = part.ident
