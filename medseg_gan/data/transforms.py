"""The few transforms MONAI lacks, and the visible `Compose` from a case's files to slices of the network's size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterScaleCropd, Compose, Invertd, MapTransform, Orientation, Pad, Padd, Resized, Spacingd

from medseg_gan.data.lungs import LEFT, RIGHT, derive_lungs
from medseg_gan.data.volumes import LoadVolumed
from medseg_gan.errors import MedsegError
from medseg_gan.labels import SEGTHOR_GT, LabelTable

OUTSIDE_HU = -1024
KEYS = ("image", "label")
LUNGS = {"left_lung": LEFT, "right_lung": RIGHT}


class CheckPaird(MapTransform):
    """Refuse a ground truth that does not belong to its image."""

    def __init__(self) -> None:
        super().__init__(KEYS, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compare shapes, positions and values; a label of None is dropped."""
        case = dict(data)
        image, label, name = case["image"], case.get("label"), case.get("case", "?")
        if label is None:
            case.pop("label", None)
            return case
        if image.shape != label.shape:
            raise MedsegError(
                f"{name}: label has shape {tuple(label.shape[1:])}, image {tuple(image.shape[1:])}. "
                "Check the two files belong together."
            )
        if not np.allclose(image.affine, label.affine, atol=1e-2):
            raise MedsegError(f"{name}: label and image lie in different places. Check the two files belong together.")
        unknown = sorted(set(np.unique(np.asarray(label)).tolist()) - {0, *SEGTHOR_GT.values()})
        if unknown:
            meant = ", ".join(f"{value} {organ}" for organ, value in SEGTHOR_GT.items())
            raise MedsegError(
                f"{name}: the label has unknown values ({', '.join(map(str, unknown[:5]))}), "
                f"wanted 0 background, {meant}; renumber the file"
            )
        return case


class CheckPixelsd(MapTransform):
    """Refuse pixels that are not square: a square network input would stretch the patient."""

    def __init__(self) -> None:
        super().__init__(("image",))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compare the in-plane pixel sizes."""
        x, y, z = spacing_of(data["image"])
        if abs(x - y) > 0.02 * max(x, y):
            raise MedsegError(
                f"{data.get('case', '?')}: axial pixels measure {x:.2f} x {y:.2f} mm (slices {z:.2f} mm), wanted "
                "square ones; set prepare.spacing, or leave out series that were not taken in axial slices"
            )
        return dict(data)


class StripPatientd(MapTransform):
    """Forget what a file says about a person; affine and transforms done stay, for they bring predictions back."""

    def __init__(self) -> None:
        super().__init__(KEYS, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Keep values, affine and the list of transforms."""
        case = dict(data)
        for key in self.key_iterator(case):
            volume = case[key]
            case[key] = MetaTensor(
                volume.as_tensor(), affine=volume.affine, applied_operations=list(volume.applied_operations)
            )
        return case


class DeriveLungsd(MapTransform):
    """Make the label of a label table: organs as painted, lungs as painted or else derived from HU.

    Organs win over derived lungs where they overlap. A case without ground truth gets a label only where the table
    holds nothing but lungs. Adds `lung_area` `(Z,)` in cm2, `told_apart` `(Z,)`, `volume_affine` and, with a label,
    `volume_label` `(X, Y, Z)`: both as they are before slices are cropped and resized.
    """

    def __init__(self, table: LabelTable) -> None:
        super().__init__(("image",))
        self.table = table

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Derive, merge, measure."""
        case = dict(data)
        image, spacing = case["image"], spacing_of(case["image"])
        found = derive_lungs(image[0].numpy(), spacing)
        lungs, told_apart = found.left_right, found.told_apart
        truth = case["label"][0].numpy() if "label" in case else np.zeros_like(lungs)
        painted = sum((truth == SEGTHOR_GT[name]) * np.uint8(side) for name, side in LUNGS.items())
        if painted.any():
            lungs, told_apart = painted, np.ones_like(told_apart)
        lungs = np.where((truth > 0) & (painted == 0), 0, lungs)
        case["volume_affine"] = np.asarray(image.affine)
        case["lung_area"] = np.count_nonzero(lungs, axis=(0, 1)) * spacing[0] * spacing[1] / 100
        case["told_apart"] = told_apart if set(LUNGS) & set(self.table.classes) else np.ones_like(told_apart)
        if "label" in case or set(self.table.classes[1:]) == set(LUNGS):
            label = np.zeros(truth.shape, np.uint8)
            for number, name in enumerate(self.table.classes[1:], start=1):
                label[lungs == LUNGS[name] if name in LUNGS else truth == SEGTHOR_GT[name]] = number
            case["volume_label"] = label
            case["label"] = MetaTensor(
                torch.from_numpy(label)[None], affine=image.affine, applied_operations=list(image.applied_operations)
            )
        return case


class SelectLungSlicesd(MapTransform):
    """Choose the slices that contain lung whose sides are known.

    The volumes stay whole, so that their geometry stays true; adds `slices`, positions along z, and `left_out`, reason
    to number of slices.
    """

    def __init__(self, min_lung_cm2: float) -> None:
        super().__init__(("image",))
        self.min_lung_cm2 = min_lung_cm2

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Note which slices to take."""
        contains, told_apart = data["lung_area"] >= self.min_lung_cm2, data["told_apart"]
        left_out = {
            f"less than {self.min_lung_cm2:g} cm2 of lung": int((~contains).sum()),
            "lungs not told apart": int((contains & ~told_apart).sum()),
        }
        return {**data, "slices": np.flatnonzero(contains & told_apart), "left_out": left_out}


class PadToSquare(Pad):
    """Pad the shorter in-plane side on both ends until slices are square."""

    def compute_pad_width(self, spatial_shape: Sequence[int]) -> Any:
        """Half of what is missing before, half after."""
        side = max(spatial_shape[0], spatial_shape[1])
        missing = [side - int(length) for length in spatial_shape[:2]]
        return ((0, 0), *((width // 2, width - width // 2) for width in missing), (0, 0))


class ResizeSlicesd(Resized):
    """Resize slices in their plane: whole blocks are averaged, other ratios smoothed and interpolated, labels nearest.

    HU are averaged while they are still HU: a pixel half lung, half muscle is then what a coarser scanner would see.
    """

    def __init__(self, size: int) -> None:
        super().__init__(KEYS, (size, size, -1), allow_missing_keys=True)
        self.size = size

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resize image and label."""
        case = dict(data)
        blocks = case["image"].shape[1] % self.size == 0
        case["image"] = self.resizer(case["image"], mode="area" if blocks else "trilinear", anti_aliasing=not blocks)
        if "label" in case:
            case["label"] = self.resizer(case["label"], mode="nearest-exact")
        return case


def build_preprocessing(
    table: LabelTable, *, size: int, crop: float = 1.0, spacing: float | None = None, min_lung_cm2: float = 20.0
) -> Compose:
    """From the files of a case to HU and class ids `(1, size, size, Z)`, with `slices`, those that are wanted.

    Args:
        table: classes of the labels.
        size: pixels a side.
        crop: centred share of the field of view that is kept.
        spacing: in-plane mm to resample to first; None keeps each scan's own.
        min_lung_cm2: lung area from which a slice is wanted.

    Returns:
        Transforms of `{"image": path, "label": path or None, "case": name}`; all that move pixels can be inverted.
    """
    steps: list[Any] = [LoadVolumed(KEYS, allow_missing_keys=True), CheckPaird(), StripPatientd()]
    if spacing is not None:
        steps.append(Spacingd(KEYS, (spacing, spacing, -1), mode=("bilinear", "nearest"), allow_missing_keys=True))
    steps += [CheckPixelsd(), DeriveLungsd(table), SelectLungSlicesd(min_lung_cm2)]
    return Compose([*steps, *in_plane_steps(size, crop)])


def in_plane_steps(size: int, crop: float) -> list[Any]:
    """From volumes of any in-plane shape to slices of `size` pixels a side; arguments as in `build_preprocessing`."""
    return [
        Padd(("image",), PadToSquare(value=OUTSIDE_HU)),
        Padd(("label",), PadToSquare(value=0), allow_missing_keys=True),
        CenterScaleCropd(KEYS, (crop, crop, 1.0), allow_missing_keys=True),
        ResizeSlicesd(size),
    ]


def as_slices(volume: torch.Tensor) -> np.ndarray:
    """`(1, X, Y, Z)` in LPS to `(Z, H, W)`: anterior up, the patient's left at the right."""
    return np.ascontiguousarray(np.asarray(volume)[0].transpose(2, 1, 0))


def to_volume_grid(pred: np.ndarray, case: Mapping[Hashable, Any], preprocessing: Compose) -> MetaTensor:
    """Bring predicted slices back to the voxels of the file they came from.

    Args:
        pred: `(N, H, W)` class ids of the slices `case["slices"]`.
        case: what `preprocessing` made of the case's files.
        preprocessing: the same object.

    Returns:
        `(1, X, Y, Z)` uint8 in the file's own orientation, with its affine; 0 on slices without a prediction.
    """
    image = case["image"]
    slices = np.zeros(image.shape[1:], np.float32)
    slices[:, :, case["slices"]] = pred.transpose(2, 1, 0)
    volume = MetaTensor(torch.from_numpy(slices)[None], meta=image.meta, applied_operations=image.applied_operations)
    back = Invertd("pred", preprocessing, "image", nearest_interp=True)({"image": image, "pred": volume})["pred"]
    original = back.applied_operations[0]["extra_info"]["original_affine"] if back.applied_operations else back.affine
    axes = "".join(nib.orientations.aff2axcodes(np.asarray(original)))
    turned: Any = Orientation(axes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(back)
    return MetaTensor(turned.as_tensor().round().to(torch.uint8), affine=turned.affine)


def spacing_of(volume: MetaTensor) -> tuple[float, float, float]:
    """Size of a voxel along X, Y, Z in mm."""
    x, y, z = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0).tolist()
    return x, y, z
