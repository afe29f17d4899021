"""A small chest whose organs are known by construction, for the tests of the data layer."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from medseg_gan.labels import SEGTHOR_GT


def chest(
    size: int = 64, depth: int = 4, mm: float = 5.5, *, touching: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ellipses: body, lungs, heart, aorta, trachea, esophagus, spine, sternum.

    Args:
        size: voxels along X and Y.
        depth: voxels along Z.
        mm: voxel size along X and Y.
        touching: whether the lungs meet in front of the heart.
        seed: of the noise and of small shifts.

    Returns:
        `(X, Y, Z)` int16 HU and `(X, Y, Z)` uint8 in SegTHOR's values with lungs 5 and 6, in LPS: x grows to the
        patient's left, y to the back.
    """
    rng = np.random.default_rng(seed)
    at = (np.arange(size) - (size - 1) / 2) * mm
    x, y, z = np.meshgrid(at + rng.uniform(-4, 4), at + rng.uniform(-4, 4), np.arange(depth), indexing="ij")

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1 + 0.02 * z

    hu = np.full(x.shape, -1000.0)
    truth = np.zeros(x.shape, np.uint8)
    hu[ellipse(0, 0, 160, 110)] = 30
    shapes = {  # the left lung is the smaller one: the heart lies to the left
        "left_lung": ellipse(72, 0, 48, 80),
        "right_lung": ellipse(-74, 0, 56, 82),
        "heart": ellipse(15, -25, 45, 38),
        "aorta": ellipse(22, 45, 13, 13),
        "trachea": ellipse(0, 22, 9, 9),
        "esophagus": ellipse(3, 40, 7, 6),
    }
    if touching:
        front = (np.abs(x) < 40) & (y > -80) & (y < -64)
        shapes["left_lung"] |= front & (x > 0)
        shapes["right_lung"] |= front & (x <= 0)
    values = {"left_lung": -850, "right_lung": -850, "heart": 45, "aorta": 60, "trachea": -1000, "esophagus": 25}
    for name, shape in shapes.items():
        hu[shape] = values[name]
        truth[shape] = SEGTHOR_GT[name]
    if touching:
        hu[front & (np.abs(x) < mm)] = -600  # the double pleura, thinner than a voxel
    hu[ellipse(0, 75, 20, 20)] = 500  # spine
    hu[ellipse(0, -98, 22, 7)] = 250  # sternum, spongy
    return (hu + rng.normal(0, 15, hu.shape)).round().astype(np.int16), truth


def affine(mm: float = 5.5, thickness: float = 5.0) -> np.ndarray:
    """RAS affine of an LPS grid."""
    return np.array([[-mm, 0, 0, 170], [0, -mm, 0, 150], [0, 0, thickness, -80], [0, 0, 0, 1]], float)


def save(path: Path, array: np.ndarray, matrix: np.ndarray, axes: str = "LPS") -> np.ndarray:
    """Write an LPS array as NIfTI laid out along `axes`; returns the affine of the file."""
    image = nib.Nifti1Image(array, matrix)
    turn = nib.orientations.ornt_transform(nib.io_orientation(matrix), nib.orientations.axcodes2ornt(tuple(axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = image.as_reoriented(turn)
    nib.save(turned, path)
    return np.asarray(turned.affine)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks."""
    return float(2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b)))
