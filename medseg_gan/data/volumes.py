"""Read a CT volume or label map of any supported format as a MONAI MetaTensor in LPS order.

NIfTI goes through MONAI's NibabelReader (`NiftiReader`), NRRD and MetaImage through `SimpleITKReader`, DICOM through
`DicomSeriesReader`. The readers are called directly, because LoadImage builds all of MONAI's, with their warnings.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader, NibabelReader
from monai.transforms import MapTransform, Orientation
from monai.utils.enums import MetaKeys, SpaceKeys

from medseg_gan.data.dicom import RAS_FROM_LPS, DicomSeriesReader, read_header
from medseg_gan.data.silence import native_silence
from medseg_gan.errors import MedsegError

NIFTI = (".nii", ".nii.gz")
SIMPLEITK = (".nrrd", ".nhdr", ".mha", ".mhd")
HU_RANGE = (-1024, 3071)  # what 12 bits of CT hold; padding such as -3024 lies below


class NiftiReader(NibabelReader):
    """MONAI's reader, which must not make up a voxel size; nibabel's remarks on harmless header values are dropped."""

    def read(self, data: Sequence[os.PathLike | str] | os.PathLike | str, **kwargs: Any) -> Any:
        """Return the nibabel image of one file.

        Raises:
            MedsegError: a voxel size is zero and nothing else in the header says it.
        """
        remarks: list[str] = []

        def take(record: logging.LogRecord) -> bool:
            remarks.append(record.getMessage())
            return False

        nibabel.imageglobals.logger.addFilter(take)
        try:
            image = super().read(data, **kwargs)
        finally:
            nibabel.imageglobals.logger.removeFilter(take)
        if any("should be non-zero" in remark for remark in remarks) and not image.header["sform_code"]:
            raise MedsegError(f"{data} has a voxel size of zero in its header; wanted mm; export it again")
        return image


class SimpleITKReader(ImageReader):
    """MONAI reader of NRRD and MetaImage files, with SimpleITK."""

    def verify_suffix(self, filename: Sequence[os.PathLike | str] | os.PathLike | str) -> bool:
        """Return whether `filename` is one path with a suffix this reader knows."""
        return isinstance(filename, str | os.PathLike) and str(filename).lower().endswith(SIMPLEITK)

    def read(self, data: Sequence[os.PathLike | str] | os.PathLike | str, **kwargs: Any) -> sitk.Image:
        """Return the SimpleITK image of one file; its errors are RuntimeError."""
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with native_silence():
                return sitk.ReadImage(os.fspath(data))  # type: ignore[arg-type]
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)

    def get_data(self, img: sitk.Image) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the array with X first, a channel axis last if it has one, and the meta data with the RAS affine."""
        array = sitk.GetArrayFromImage(img)
        spatial = img.GetDimension()
        array = array.transpose(*reversed(range(spatial)), *range(spatial, array.ndim))
        affine = simpleitk_affine(img)
        meta = {
            str(MetaKeys.AFFINE): affine,
            str(MetaKeys.ORIGINAL_AFFINE): affine.copy(),
            str(MetaKeys.SPATIAL_SHAPE): np.asarray(array.shape[: min(spatial, 3)]),
            str(MetaKeys.SPACE): SpaceKeys.RAS,
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): float("nan") if array.ndim == spatial else -1,
        }
        return array, meta


def simpleitk_affine(image: sitk.Image) -> np.ndarray:
    """Return the `(4, 4)` affine from index to RAS mm of a 2-D, 3-D or 4-D SimpleITK image (its own mm are LPS)."""
    rank = image.GetDimension()
    space = min(rank, 3)
    affine = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(rank, rank)[:space, :space]
    affine[:space, :space] = direction * np.asarray(image.GetSpacing())[:space]
    affine[:space, 3] = image.GetOrigin()[:space]
    return RAS_FROM_LPS @ affine


def is_volume_file(path: Path) -> bool:
    """Return whether the name is that of a NIfTI, NRRD or MetaImage file; hidden files are none."""
    return path.name.lower().endswith(NIFTI + SIMPLEITK) and not path.name.startswith(".")


def load_volume(path: str | Path) -> MetaTensor:
    """Read a CT volume.

    Example:
        volume = load_volume("Patient_01.nii.gz")   # or a folder with a DICOM series
        middle = volume[0, :, :, volume.shape[3] // 2].T

    Args:
        path: a NIfTI, NRRD or MetaImage file, a DICOM file, or a folder with one DICOM series.

    Returns:
        `(1, X, Y, Z)` float32 HU clipped to [-1024, 3071], X towards the patient's left, Y posterior, Z superior (the
        nearest such axes of an oblique scan), with `.affine` from index to RAS mm. Z is 1 for a single slice.

    Raises:
        MedsegError: the file is missing, damaged, not a volume or has values that are not finite.
    """
    volume = load_raw(path)
    volume.clamp_(*HU_RANGE)
    return volume


def load_label(path: str | Path) -> MetaTensor:
    """Read a label map: `(1, X, Y, Z)` uint8 in the order of `load_volume`; no value is interpolated.

    Raises:
        MedsegError: as `load_volume`, or the values are not whole numbers from 0 to 255.
    """
    if Path(path).is_dir():
        raise MedsegError(f"{path} is a folder; wanted a label file (.nii.gz, .nrrd, .mha); give the file itself")
    label = load_raw(path)
    wrong = (label < 0) | (label > 255) | (label != label.round())
    if wrong.any():
        value = label[wrong][0].item()
        raise MedsegError(
            f"{path} has the value {value:g}; wanted label numbers from 0 to 255; check that it is a label"
        )
    return cast(MetaTensor, label.to(torch.uint8))


def load_raw(path: str | Path) -> MetaTensor:
    """Read a volume in LPS order with its values as stored (rescaled, not clipped): `(1, X, Y, Z)` float32.

    The move is traced: `applied_operations[0]["extra_info"]["original_affine"]` is the affine of the file.
    """
    path = Path(path)
    array, meta = _read(path)
    array = _three_axes(path, array)
    affine = np.asarray(meta[MetaKeys.AFFINE], dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise MedsegError(f"{path} has no voxel size or direction in its header; wanted both in mm; export it again")
    kept = {
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        "filename_or_obj": str(path),
    }
    tensor = MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine), meta=kept)
    oriented = Orientation(axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(tensor)
    return cast(MetaTensor, cast(MetaTensor, oriented).contiguous())


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Read array and meta data with the reader of the file's format; every failure becomes one line."""
    if not path.exists():
        raise MedsegError(f"{path} does not exist; wanted a volume file or a DICOM folder; check the path")
    reader = _reader_of(path)
    try:
        return reader.get_data(reader.read(path))
    except MedsegError:
        raise
    except MemoryError as error:
        raise MedsegError(f"{path} does not fit in memory; wanted a CT volume; check its size in the header") from error
    except Exception as error:  # nibabel, gzip, zlib and ITK each raise their own kinds
        reason = "truncated" if _is_truncation(error) else "damaged or of another format"
        raise MedsegError(f"{path} is {reason}; wanted a whole {_format(path)}; copy or export it again") from error


def _reader_of(path: Path) -> ImageReader:
    """Return the reader for a folder or a file's suffix."""
    name = path.name.lower()
    if path.is_dir():
        return DicomSeriesReader()
    if name.endswith(NIFTI):
        return NiftiReader()
    if name.endswith(SIMPLEITK):
        return SimpleITKReader()
    if read_header(path) is not None:
        return DicomSeriesReader()
    known = ", ".join(NIFTI + SIMPLEITK)
    raise MedsegError(f"{path} is not a volume; wanted {known}, or a DICOM folder; convert it or leave it out")


def _format(path: Path) -> str:
    """Return the format a suffix promises, in the user's words."""
    name = path.name.lower()
    if name.endswith(NIFTI):
        return "NIfTI file"
    if name.endswith(SIMPLEITK):
        return "NRRD file" if name.endswith((".nrrd", ".nhdr")) else "MetaImage file"
    return "DICOM series"


def _is_truncation(error: Exception) -> bool:
    """Return whether a reader's error means that the file ends too early."""
    text = str(error).lower()
    return isinstance(error, EOFError) or any(
        word in text for word in ("expected", "end-of-stream", "could not read", "not read completely", "truncated")
    )


def _three_axes(path: Path, array: np.ndarray) -> np.ndarray:
    """Return `(X, Y, Z)` float32, finite: a single slice gets depth 1, trailing axes of length 1 are dropped."""
    if array.dtype.kind not in "iufb":
        raise MedsegError(f"{path} has colour or complex values; wanted one number per voxel; export it in grey")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        shape = " x ".join(map(str, array.shape))
        raise MedsegError(f"{path} has {array.ndim} axes ({shape}); wanted one 3-D volume; save each volume on its own")
    bad = 0 if array.dtype.kind != "f" else int(array.size - np.isfinite(array).sum())
    if bad:
        raise MedsegError(f"{path} has {bad} values that are NaN or infinite; wanted HU everywhere; export it again")
    return np.ascontiguousarray(array, dtype=np.float32)


class LoadVolumed(MapTransform):
    """Read the paths of a case as LPS MetaTensors: `label` keys with `load_label`, all others with `load_volume`.

    Args:
        keys: entries that hold paths.
        label_keys: those of them that are label maps.
        allow_missing_keys: whether an absent key, or one that holds None, is left as it is.
    """

    def __init__(
        self, keys: KeysCollection, label_keys: Sequence[Hashable] = ("label",), allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_keys = tuple(label_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with tensors in place of paths."""
        case = dict(data)
        for key in self.key_iterator(case):
            if case[key] is None and self.allow_missing_keys:
                continue
            if case[key] is None:
                raise MedsegError(f"case {case.get('case', '?')} has no {key}; wanted a path; leave the case out")
            case[key] = load_label(case[key]) if key in self.label_keys else load_volume(case[key])
        return case
