"""Left and right lung masks derived from Hounsfield units, on whole volumes and on single slices.

SegTHOR's own labels have no lungs. The rule: air inside the body, without gas and airways, cut into left and right by
the cheapest path down the mediastinum (`lung_sides`), with vessels and small nodules closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg_gan.data.lung_sides import IN_PLANE, LEFT, RIGHT, Scan, split_sides, told_apart

LUNG_HU = -400  # half way between lung and soft tissue, so that partial volume moves the border as little as possible
GAS_HU = -975  # free gas in bowel or between arm and chest; even emphysema has few pixels below
WALL_HU = -450  # mean of the ring around an airway; around a fragment of lung it is lung again
WORKING_MM = 2.0  # finer pixels are averaged in whole blocks up to this size: much faster, and the border hardly moves


@dataclass(frozen=True)
class LungResult:
    """Lungs of a volume.

    Attributes:
        left_right: `(X, Y, Z)` uint8: 0 outside, 1 the patient's left lung, 2 the right one.
        airway: `(X, Y, Z)` bool: trachea and main bronchi, as far as they can be told from lung.
        told_apart: `(Z,)` bool: False where lung is seen but which one cannot be said.
    """

    left_right: np.ndarray
    airway: np.ndarray
    told_apart: np.ndarray


def derive_lungs(hu: np.ndarray, spacing: tuple[float, float, float]) -> LungResult:
    """Find both lungs of a volume, or of a single slice when Z is 1.

    Args:
        hu: `(X, Y, Z)` Hounsfield units in LPS: x grows to the patient's left, y to the back.
        spacing: mm along X, Y, Z.

    Returns:
        Lungs with the vessels and small nodules inside them, without trachea and main bronchi.
    """
    factor = max(1, int(WORKING_MM / max(spacing[:2])))
    volume = _block_mean(hu, factor)
    body = body_of(volume)
    scan = Scan(volume, body, (float(spacing[2]), float(spacing[1]) * factor, float(spacing[0]) * factor))
    air = body & (volume < LUNG_HU)
    airway = _airways(scan, air)
    sides = split_sides(scan, _without_gas(scan, air & ~airway))
    separate = told_apart(scan, sides)
    sides = _close_vessels(scan, sides, airway)
    return LungResult(_enlarged(sides, factor, hu.shape), _enlarged(airway, factor, hu.shape), separate)


def body_of(hu: np.ndarray) -> np.ndarray:
    """The body with all that is inside it: in each slice the largest dense part, filled.

    Args:
        hu: `(Z, Y, X)` Hounsfield units, slice after slice.

    Returns:
        `(Z, Y, X)` bool.
    """
    return _filled(_largest_in_plane(hu >= LUNG_HU))


def lungs_of_slice(hu: np.ndarray, spacing_mm: float) -> np.ndarray | None:
    """Find both lungs of one slice, real or generated.

    Args:
        hu: `(H, W)` Hounsfield units, anterior up, the patient's left at the image's right.
        spacing_mm: size of a pixel.

    Returns:
        `(H, W)` uint8: 1 left lung, 2 right lung; None where no lung is seen or they cannot be told apart.
    """
    result = derive_lungs(np.asarray(hu).T[:, :, None], (spacing_mm, spacing_mm, 5.0))
    return result.left_right[:, :, 0].T if result.told_apart[0] and result.left_right.any() else None


def _block_mean(hu: np.ndarray, factor: int) -> np.ndarray:
    """`(X, Y, Z)` to `(Z, Y, X)` int16, in-plane blocks of `factor` averaged."""
    volume = np.ascontiguousarray(np.asarray(hu).clip(-1024, 2000).astype(np.int16).transpose(2, 1, 0))
    if factor == 1:
        return volume
    depth, height, width = volume.shape
    volume = np.pad(volume, ((0, 0), (0, -height % factor), (0, -width % factor)), mode="edge")
    blocks = volume.reshape(depth, volume.shape[1] // factor, factor, volume.shape[2] // factor, factor)
    return blocks.mean((2, 4), dtype=np.float32).astype(np.int16)


def _enlarged(mask: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    """`(Z, Y, X)` at working size back to `(X, Y, Z)` of `shape`."""
    if factor > 1:
        mask = mask.repeat(factor, 1).repeat(factor, 2)
    return np.ascontiguousarray(mask[:, : shape[1], : shape[0]].transpose(2, 1, 0))


def _largest_in_plane(mask: np.ndarray) -> np.ndarray:
    """The largest component of every slice: the trunk, without arms and couch."""
    labels, count = ndimage.label(mask, IN_PLANE)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    largest = np.zeros(mask.shape, bool)
    first = 1
    for z, plane in enumerate(labels):  # components are numbered slice after slice
        last = int(plane.max())
        if last >= first:
            largest[z] = plane == first + sizes[first : last + 1].argmax()
            first = last + 1
    return largest


def _filled(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of every slice: all that is not connected to the slice's border."""
    labels, count = ndimage.label(~mask, IN_PLANE)
    outside = np.zeros(count + 1, bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        outside[edge] = True
    outside[0] = False
    return ~outside[labels]


def _airways(scan: Scan, air: np.ndarray) -> np.ndarray:
    """Trachea and main bronchi: small dark spots with a bright wall near the midline, linked to one that is central.

    Several thresholds are tried because a thin wall, averaged with the air on both sides, is itself dark.
    """
    centre, mm_x = scan.centre, scan.mm[2]
    band = slice(max(0, int(centre.min() - 70 / mm_x)), int(centre.max() + 70 / mm_x) + 1)
    hu, air = scan.hu[:, :, band], air[:, :, band]
    near, central = np.zeros(air.shape, bool), np.zeros(air.shape, bool)
    for threshold in (LUNG_HU, -600, -750, -850):
        labels, count = ndimage.label(air & (hu < threshold), IN_PLANE)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:] * scan.pixel_cm2
        boxes = ndimage.find_objects(labels)
        for number in np.flatnonzero((areas > 0.3) & (areas < 8)).tolist():
            z, rows, columns = boxes[number]
            if columns.start == 0 or columns.stop == air.shape[2]:
                continue
            window = (z.start, slice(max(0, rows.start - 1), rows.stop + 1), slice(columns.start - 1, columns.stop + 1))
            spot = labels[window] == number + 1
            x = np.nonzero(spot)[1].mean() + window[2].start + band.start
            offset = abs(x - centre[z.start]) * mm_x
            grown = ndimage.binary_dilation(spot)
            if offset > 60 or hu[window][grown & ~spot].mean() < WALL_HU:
                continue
            near[window] |= grown & air[window]
            if offset < 30 and areas[number] > 0.8 and hu[window][spot].mean() < -700:
                central[window] |= spot
    labels, count = ndimage.label(near, np.ones((3, 3, 3)))
    linked = np.zeros(count + 1, bool)
    linked[labels[central]] = True
    airway = np.zeros(scan.hu.shape, bool)
    airway[:, :, band] = linked[labels]
    return airway


def _without_gas(scan: Scan, air: np.ndarray) -> np.ndarray:
    """Keep the components that can be lung: not tiny, not free gas, not in the chest wall just under the skin."""
    labels, count = ndimage.label(air)
    inside = labels[air]
    size = np.bincount(inside, minlength=count + 1)
    gas = np.bincount(inside, weights=scan.hu[air] < GAS_HU, minlength=count + 1)
    under_skin = np.bincount(inside, weights=scan.rim(12.0)[air], minlength=count + 1)
    keep = (size > 0.02 * size.sum()) & (gas < 0.3 * size) & (under_skin < 0.4 * size)
    keep[0] = False
    return keep[labels]


def _close_vessels(scan: Scan, sides: np.ndarray, airway: np.ndarray) -> np.ndarray:
    """Close each lung by 5 mm in the plane and fill its holes; the other lung and the airways keep their pixels."""
    rows, columns = (np.flatnonzero(sides.any(axes)) for axes in ((0, 2), (0, 1)))
    if not rows.size:
        return sides
    reach = max(1, round(5 / scan.mm[1]))
    box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    closed = np.zeros_like(sides)
    for side in (LEFT, RIGHT):
        lung = np.pad(sides[box] == side, ((0, 0), (reach, reach), (reach, reach))).view(np.uint8)
        for axis, size in ((1, 2 * reach + 1), (2, 2 * reach + 1)):
            lung = ndimage.maximum_filter1d(lung, size, axis)
        for axis, size in ((1, 2 * reach + 1), (2, 2 * reach + 1)):
            lung = ndimage.minimum_filter1d(lung, size, axis)
        filled = _filled(lung.astype(bool))[:, reach:-reach, reach:-reach]
        closed[box][filled & (closed[box] == 0)] = side
    closed[airway | ~scan.body] = 0
    return np.where(sides > 0, sides, closed)
