"""Left and right lung masks derived from Hounsfield units, on whole volumes and on single slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

LUNG_HU = -400  # half way between lung and soft tissue, so that partial volume moves the border as little as possible
GAS_HU = -980  # free air (bowel, between arm and chest); lungs are brighter, emphysema nearly always
WORKING_MM = 2.0  # finer pixels are averaged in whole blocks up to this size: ten times faster, the border moves by less

LEFT, RIGHT = 1, 2

_IN_PLANE = np.zeros((3, 3, 3), bool)  # neighbours within a slice, for arrays (Z, Y, X)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class LungResult:
    """Lungs of a volume.

    Attributes:
        left_right: `(X, Y, Z)` uint8, 0 outside, 1 the patient's left lung, 2 the right one.
        airway: `(X, Y, Z)` bool, trachea and main bronchi as far as they are told from lung.
        told_apart: `(Z,)` bool, False where a slice shows lung whose side cannot be decided.
    """

    left_right: np.ndarray
    airway: np.ndarray
    told_apart: np.ndarray


def derive_lungs(hu: np.ndarray, spacing: tuple[float, float, float]) -> LungResult:
    """Find both lungs by thresholds, connected components and a cheapest path down the mediastinum.

    Args:
        hu: `(X, Y, Z)` Hounsfield units in LPS (x grows to the patient's left, y to the back); Z may be 1.
        spacing: mm along X, Y, Z.

    Returns:
        Lungs without trachea and main bronchi, vessels and small nodules inside them included.
    """
    factor = max(1, int(WORKING_MM / max(spacing[0], spacing[1])))
    coarse = _block_mean(hu, factor)  # (Z, Y, X)
    mm = (float(spacing[2]), float(spacing[1]) * factor, float(spacing[0]) * factor)
    body = _body(coarse, mm)
    air = body & (coarse < LUNG_HU)
    airway = _airways(coarse, air, body, mm)
    lungs = _lung_components(coarse, air & ~airway, mm)
    sides = _split_sides(coarse, lungs, body, mm)
    told_apart = _told_apart(coarse, sides, body, mm)
    sides = _close_vessels(sides, airway, body, mm)
    return LungResult(
        left_right=_refine(sides, hu, factor),
        airway=_enlarge(airway, factor, hu.shape).astype(bool),
        told_apart=told_apart,
    )


def lungs_of_slice(hu: np.ndarray, spacing_mm: float) -> np.ndarray | None:
    """Lungs of one slice, real or generated.

    Args:
        hu: `(H, W)` Hounsfield units, anterior up, the patient's left at the image's right.
        spacing_mm: pixel size.

    Returns:
        `(H, W)` uint8 with 1 for the left and 2 for the right lung; None where they cannot be told apart.
    """
    result = derive_lungs(np.asarray(hu).T[:, :, None], (spacing_mm, spacing_mm, 5.0))
    return result.left_right[:, :, 0].T if result.told_apart[0] else None
