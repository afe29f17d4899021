"""One slice of a volume, or one image file, in the form that a network takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterScaleCropd, Padd, Spacingd
from torch import Tensor

from medseg_gan.data.picture_files import SUFFIXES, crop_resize, load_image, to_channels
from medseg_gan.data.slices import to_unit
from medseg_gan.data.transforms import OUTSIDE_HU, CheckPixelsd, PadToSquare, ResizeSlicesd, as_slices
from medseg_gan.data.volumes import load_volume
from medseg_gan.errors import UsageError


def is_picture(path: Path) -> bool:
    """Whether a name is that of a picture file, not of a volume."""
    return path.name.lower().endswith(SUFFIXES) and not path.is_dir()


def load_picture(path: Path, size: int, channels: int) -> Tensor:
    """A picture file: centre square, resized.

    Returns:
        `(channels, size, size)` float32 in [-1, 1].

    Raises:
        MedsegError: the file is no usable picture, or 16-bit grey that fills a part of its range only.
    """
    image = to_channels(load_image(path), channels, path)
    pixels = np.array(crop_resize(image, size)).reshape(size, size, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def load_slice(
    path: Path,
    *,
    size: int,
    window: tuple[float, float],
    index: int | None = None,
    crop: float = 1.0,
    spacing: float | None = None,
) -> Tensor:
    """One axial slice of a volume, prepared as `build_preprocessing` does it.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a DICOM file, or a folder with one DICOM series.
        size: pixels a side.
        window: HU that become -1 and 1.
        index: position along z in the volume turned to LPS, from 0 at the feet; None for a volume of one slice.
        crop: centred share of the field of view that is kept.
        spacing: in-plane mm to resample to first; None keeps the scan's own.

    Returns:
        `(1, size, size)` float32 in [-1, 1].

    Raises:
        MedsegError: the volume cannot be used.
        UsageError: there is no such slice.
    """
    volume = load_volume(path)
    depth = volume.shape[-1]
    if index is None and depth > 1:
        raise UsageError(f"{path} has {depth} slices; choose one with --index, 0 to {depth - 1} from the feet up")
    k = index or 0
    if not 0 <= k < depth:
        raise UsageError(f"--index {k}: {path} has {depth} slice{'s' * (depth > 1)}; wanted 0 to {depth - 1}")
    steps: list[Any] = [CheckPixelsd(), Padd(("image",), PadToSquare(value=OUTSIDE_HU))]
    steps += [CenterScaleCropd(("image",), (crop, crop, 1.0)), ResizeSlicesd(size)]
    if spacing is not None:
        steps.insert(0, Spacingd(("image",), (spacing, spacing, -1), mode="bilinear"))
    one = MetaTensor(volume.as_tensor()[..., k : k + 1].clone(), affine=volume.affine)
    case: dict[str, Any] = {"image": one, "case": path.name}
    for step in steps:  # not a Compose, which wraps the errors
        case = step(case)
    hu = as_slices(case["image"]).round().astype(np.int16)
    return torch.from_numpy(to_unit(hu, window))
