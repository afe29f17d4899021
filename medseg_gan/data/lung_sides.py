"""Tell left from right lung by a cheapest path down the mediastinum, or say that they cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

LEFT, RIGHT = 1, 2

BONE_HU = 350  # dense bone; enhanced blood is mostly below

IN_PLANE = np.zeros((3, 3, 3), bool)
"""Neighbours within a slice, for arrays `(Z, Y, X)`."""
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Scan:
    """A volume at working size.

    Attributes:
        hu: `(Z, Y, X)` int16; y grows to the back, x to the patient's left.
        body: `(Z, Y, X)` bool, the trunk with all that is inside it.
        mm: size of a voxel along Z, Y, X.
    """

    hu: np.ndarray
    body: np.ndarray
    mm: tuple[float, float, float]

    @property
    def pixel_cm2(self) -> float:
        """Area of a pixel."""
        return self.mm[1] * self.mm[2] / 100

    @cached_property
    def centre(self) -> np.ndarray:
        """`(Z,)` column of the body's centre of gravity."""
        columns = self.body.sum(1)
        total = columns.sum(1)
        weighted = (columns * np.arange(self.body.shape[2])).sum(1)
        return np.where(total > 0, weighted / np.maximum(total, 1), self.body.shape[2] / 2)

    def rim(self, depth: float) -> np.ndarray:
        """Pixels of the body that are less than `depth` mm under the skin (measured along rows and columns)."""
        inner = self.body.view(np.uint8)
        for axis in (1, 2):
            inner = ndimage.minimum_filter1d(inner, 2 * max(1, round(depth / self.mm[axis])) + 1, axis, mode="nearest")
        return self.body & (inner == 0)


def split_sides(scan: Scan, lungs: np.ndarray) -> np.ndarray:
    """Divide lung into left and right.

    A component that lies nearly whole on one side of the path belongs there: the path only cuts lungs that touch.

    Args:
        scan: the volume.
        lungs: `(Z, Y, X)` bool.

    Returns:
        `(Z, Y, X)` uint8: 1 left, 2 right.
    """
    sides = np.zeros(lungs.shape, np.uint8)
    if not lungs.any():
        return sides
    left = (np.arange(lungs.shape[2]) > _mediastinal_path(scan, lungs)[:, :, None])[lungs]
    for neighbours in (IN_PLANE, None):  # first the components of each slice, then those of the volume
        labels, count = ndimage.label(lungs, neighbours)
        inside = labels[lungs]
        share = np.bincount(inside, weights=left, minlength=count + 1) / np.maximum(np.bincount(inside), 1)
        left = (left | (share > 0.85)[inside]) & (share >= 0.15)[inside]
    sides[lungs] = np.where(left, LEFT, RIGHT)
    return sides


def _mediastinal_path(scan: Scan, lungs: np.ndarray) -> np.ndarray:
    """Cheapest path from front to back in every slice, by dynamic programming over rows.

    A pixel costs its size times its darkness where it is lung (the double pleura between touching lungs is the
    brightest way through), and a little by its distance from the body's centre.

    Returns:
        `(Z, Y)` column of the path.
    """
    mm_y, mm_x = scan.mm[1:]
    used = np.flatnonzero(lungs.any((0, 2)))
    rows = slice(used[0], used[-1] + 1)
    band = slice(max(0, int(scan.centre.min() - 90 / mm_x)), int(scan.centre.max() + 90 / mm_x) + 1)
    darkness = np.clip((-400 - scan.hu[:, rows, band]) / np.float32(500), 0.15, 1) * lungs[:, rows, band]
    offset = np.abs(np.arange(lungs.shape[2])[band] - scan.centre[:, None]) * mm_x
    prior = 0.02 * (offset / 50) ** 2 + np.where(offset > 90, 1e3, 0)  # never around the outside of a lung
    cost = (darkness + prior[:, None].astype(np.float32)) * np.float32(mm_y)

    reach = int(np.ceil(3 * mm_y / mm_x))
    steps = np.arange(-reach, reach + 1)
    steps = steps[np.abs(steps).argsort(kind="stable")]  # straight on wins a tie
    toll = (0.03 * mm_x * np.abs(steps)).astype(np.float32)[:, None, None]
    total = cost[:, 0]
    came_from = np.zeros(cost.shape, np.int8)
    for y in range(1, cost.shape[1]):
        padded = np.pad(total, ((0, 0), (reach, reach)), constant_values=np.inf)
        options = np.stack([padded[:, reach + step : reach + step + total.shape[1]] for step in steps]) + toll
        best = options.argmin(0)
        came_from[:, y] = steps[best]
        total = np.take_along_axis(options, best[None], 0)[0] + cost[:, y]

    path = np.empty(lungs.shape[:2], np.int64)
    column = total.argmin(1)
    path[:, rows.stop - 1 :] = column[:, None]
    for y in range(cost.shape[1] - 1, 0, -1):
        column = column + came_from[np.arange(len(column)), y, column]
        path[:, rows.start + y - 1] = column
    path[:, : rows.start] = column[:, None]
    return path + band.start


def told_apart(scan: Scan, sides: np.ndarray) -> np.ndarray:
    """Say for every slice whether left and right can be trusted.

    They cannot where the two touch along more than 60 mm, lie one above the other rather than side by side (a patient
    on the side), a lung is not on its own side of the body, or the spine is in front (an upside-down file).

    Args:
        scan: the volume.
        sides: `(Z, Y, X)` from `split_sides`.

    Returns:
        `(Z,)` bool; True where there is no lung.
    """
    return np.array([_sides_plausible(scan, sides, z) and _front_is_front(scan, z) for z in range(len(sides))], bool)


def _sides_plausible(scan: Scan, sides: np.ndarray, z: int) -> bool:
    plane, (_, mm_y, mm_x) = sides[z], scan.mm
    centroids = {}
    for side in (LEFT, RIGHT):
        y, x = np.nonzero(plane == side)
        if len(y) > 0.05 * np.count_nonzero(plane):
            centroids[side] = y.mean() * mm_y, (x.mean() - scan.centre[z]) * mm_x * (1 if side == LEFT else -1)
    if len(centroids) == 1:
        ((_, offset),) = centroids.values()
        return bool(offset > 40)
    if not centroids:
        return True
    (left_y, left_x), (right_y, right_x) = centroids[LEFT], centroids[RIGHT]
    seam_y = np.count_nonzero(plane[:, 1:] * plane[:, :-1] == LEFT * RIGHT) * mm_y
    seam_x = np.count_nonzero(plane[1:] * plane[:-1] == LEFT * RIGHT) * mm_x
    side_by_side = left_x + right_x > 2.5 * abs(left_y - right_y)
    return bool(max(seam_x, seam_y) < 60 and side_by_side and min(left_x, right_x) > 15)


def _front_is_front(scan: Scan, z: int) -> bool:
    """False where along the midline the front third holds dense bone and the back third, where the spine is, none."""
    half = max(1, round(30 / scan.mm[2]))
    columns = slice(max(0, round(scan.centre[z]) - half), round(scan.centre[z]) + half + 1)
    body = scan.body[z, :, columns]
    rows = np.flatnonzero(body.any(1))
    if not rows.size:
        return True
    third = len(rows) // 3
    bone = (scan.hu[z, :, columns] > BONE_HU) & body
    front = np.count_nonzero(bone[rows[:third]]) * scan.pixel_cm2
    back = np.count_nonzero(bone[rows[len(rows) - third :]]) * scan.pixel_cm2
    return not (front > 2 and back < 0.25)
