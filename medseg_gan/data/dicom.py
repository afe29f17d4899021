"""CT series in DICOM folders: find them, order their slices in space, decode them to Hounsfield units.

Geometry and rescale are read with pydicom for single-frame and multi-frame (enhanced CT) files alike; file names and
InstanceNumber are never trusted.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from medseg_gan.data.dicom_pixels import stored_values
from medseg_gan.errors import MedsegError
from medseg_gan.machine.walk import walk_folder

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts mm towards left and posterior, MONAI right and anterior
AIR_HU = -1024  # what pixels outside the reconstructed circle become
SAME_MM = 0.01  # closer slices lie at one place: positions are written with two or three decimals
UNEVEN = 0.1  # share by which the distance of neighbours may differ from the usual one
FUNCTIONAL_GROUP = {  # where an enhanced object keeps what a single slice has at its top level
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies and how its stored values become HU.

    Attributes:
        path: its file; `number`: its place in that file.
        shape: rows, columns.
        position: `(3,)` LPS mm of the centre of the first pixel.
        orientation: `(6,)` LPS direction along a row, then along a column.
        spacing: mm between rows, between columns.
        depth: mm between slices as the header claims it; used for a lone slice only.
        slope, intercept: HU = slope * stored value + intercept.
    """

    path: Path
    number: int
    shape: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    depth: float
    slope: float
    intercept: float


class DicomSeriesReader(ImageReader):
    """MONAI reader of one CT series: a folder of slices, or one multi-frame file."""

    def verify_suffix(self, filename: Sequence[os.PathLike | str] | os.PathLike | str) -> bool:
        """Return whether `filename` is one folder or one DICOM image."""
        if not isinstance(filename, str | os.PathLike):
            return False
        return Path(filename).is_dir() or read_header(Path(filename)) is not None

    def read(self, data: Sequence[os.PathLike | str] | os.PathLike | str, **kwargs: Any) -> list[Frame]:
        """Return the slices of the series in order along its normal; no pixel is decoded yet."""
        if not isinstance(data, str | os.PathLike):
            raise MedsegError("several DICOM paths were given; wanted one folder or one file; load them one by one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on odd but harmless header values
            return in_order(Path(data), series_frames(Path(data)))

    def get_data(self, img: Sequence[Frame]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return `(X, Y, Z)` float32 HU, X along a row, and the meta data with the RAS affine."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = decode(img)
        affine = series_affine(img)
        meta = {
            str(MetaKeys.AFFINE): affine,
            str(MetaKeys.ORIGINAL_AFFINE): affine.copy(),
            str(MetaKeys.SPATIAL_SHAPE): np.asarray(volume.shape),
            str(MetaKeys.SPACE): SpaceKeys.RAS,
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): float("nan"),
        }
        return volume, meta


def read_header(path: Path) -> Dataset | None:
    """Return the header of a DICOM image without its pixels, or None for any other file.

    Raises:
        MedsegError: the file says it is DICOM but cannot be read.
    """
    if path.name.startswith(".") or not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(132)
    marked = start[128:] == b"DICM"
    if not marked and start[:2] not in (b"\x02\x00", b"\x08\x00"):  # without preamble, group 2 or 8 comes first
        return None
    try:
        header = dcmread(path, stop_before_pixels=True, force=True)
        image = "Rows" in header and "SOPClassUID" in header and header.SOPClassUID != MediaStorageDirectoryStorage
    except Exception as error:  # pydicom lets many kinds through on damaged files
        if marked:
            raise MedsegError(f"{path} is a damaged DICOM file; wanted a CT slice; copy it again") from error
        return None
    return header if image else None


def find_dicom_folders(root: Path) -> list[Path]:
    """Return the folders at and below `root` that directly contain DICOM images, sorted."""
    found: set[Path] = set()
    for path in walk_folder(root):
        if path.parent not in found and read_header(path) is not None:
            found.add(path.parent)
    return sorted(found)


def dicom_patient(folder: Path) -> str:
    """Return the PatientID of a DICOM folder, or the folder's name where it has none."""
    for path in sorted(folder.iterdir()):
        header = read_header(path)
        if header is not None:
            return str(header.get("PatientID", "") or "").strip() or folder.name
    return folder.name


def series_frames(path: Path) -> list[Frame]:
    """Return the slices of the one CT series in a folder or file, in no order.

    Raises:
        MedsegError: no series, two series, not CT, or slices without geometry or rescale.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    headers = [(file, header) for file in files if (header := read_header(file)) is not None]
    if not headers:
        raise MedsegError(f"{path} holds no DICOM images; wanted the slices of one CT series; check the path")
    series: dict[str, list[Dataset]] = {}
    for _, header in headers:
        series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
    if len(series) > 1:
        names = ", ".join(sorted(_series_name(members) for members in series.values()))
        raise MedsegError(f"{path} holds {len(series)} series: {names}; wanted one; move each into its own folder")
    modality = str(headers[0][1].get("Modality", ""))
    if modality != "CT":
        raise MedsegError(f"{path} has modality {modality or 'unknown'}; wanted CT; leave this folder out")
    return [frame for file, header in headers for frame in _file_frames(file, header)]


def _series_name(headers: Sequence[Dataset]) -> str:
    """Return `number 3 "lung" (12 files)`."""
    number, description = headers[0].get("SeriesNumber", None), headers[0].get("SeriesDescription", None)
    return f'number {number if number is not None else "?"} "{description or ""}" ({len(headers)} files)'


def _file_frames(path: Path, header: Dataset) -> list[Frame]:
    """Return the frames of one file; those of an enhanced object have their own functional groups."""
    count = int(header.get("NumberOfFrames", 1) or 1)
    if "PerFrameFunctionalGroupsSequence" not in header:
        if count > 1:
            raise MedsegError(f"{path} has {count} frames without positions; wanted enhanced CT; export it as slices")
        return [_frame(path, 0, [header])]
    groups = list(header.PerFrameFunctionalGroupsSequence)
    if len(groups) != count:
        raise MedsegError(f"{path} has {count} frames but describes {len(groups)}; wanted as many; export it again")
    shared = list(header.get("SharedFunctionalGroupsSequence", None) or [])
    return [_frame(path, number, [group, *shared, header]) for number, group in enumerate(groups)]


def _frame(path: Path, number: int, places: Sequence[Dataset]) -> Frame:
    """Collect one frame's geometry; the first of `places` that has a value decides."""

    def value(keyword: str) -> Any:
        for place in places:
            group = place.get(FUNCTIONAL_GROUP[keyword], None)
            for source in (*(group or ()), place):
                if source.get(keyword, None) not in (None, ""):
                    return source.get(keyword)
        return None

    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    for keyword in needed:
        if value(keyword) is None:
            raise MedsegError(f"{path} has no {keyword}; wanted an axial CT slice; remove the file or export it again")
    header = places[-1]
    row_mm, column_mm = (float(mm) for mm in value("PixelSpacing"))
    return Frame(
        path=path,
        number=number,
        shape=(int(header.Rows), int(header.Columns)),
        position=np.asarray(value("ImagePositionPatient"), dtype=float),
        orientation=np.asarray(value("ImageOrientationPatient"), dtype=float),
        spacing=(row_mm, column_mm),
        depth=abs(float(value("SpacingBetweenSlices") or value("SliceThickness") or 1.0)),
        slope=float(value("RescaleSlope")),
        intercept=float(value("RescaleIntercept")),
    )


def in_order(path: Path, frames: Sequence[Frame]) -> list[Frame]:
    """Sort slices along their common normal and check that they fill it evenly.

    Raises:
        MedsegError: slices of different size or direction, twice at one place, missing, uneven or shifted.
    """
    first = frames[0]
    for frame in frames:
        if frame.shape != first.shape or not np.allclose(frame.spacing, first.spacing, rtol=1e-3):
            raise MedsegError(f"{path} mixes slices of different size; wanted one grid; remove {frame.path.name}")
        if not np.allclose(frame.orientation, first.orientation, atol=1e-3):
            raise MedsegError(
                f"{path} mixes slices of different direction (a localizer?); wanted parallel ones; "
                f"check {first.path.name} and {frame.path.name}"
            )
    places = np.array([frame.position @ _normal(first) for frame in frames])
    order = np.argsort(places, kind="stable")
    _check_even(path, places[order])
    ordered = [frames[index] for index in order]
    positions = np.array([frame.position for frame in ordered])
    straight = np.linspace(positions[0], positions[-1], len(positions))
    if len(positions) > 1 and np.abs(positions - straight).max() > UNEVEN * np.diff(places[order]).max():
        raise MedsegError(f"{path} has slices shifted against each other; wanted a straight stack; resample it first")
    return ordered


def _check_even(path: Path, places: np.ndarray) -> None:
    """Refuse doubled, missing and uneven slices; `places` are sorted mm along the normal."""
    steps = np.diff(places)
    if not len(steps):
        return
    if steps.min() < SAME_MM:
        twice = places[int(steps.argmin())]
        raise MedsegError(
            f"{path} has {int((steps < SAME_MM).sum())} slices twice at one position, the first at {twice:.2f} mm; "
            "wanted one slice per position; remove copies or split the phases into folders"
        )
    usual = np.sort(steps)[(len(steps) - 1) // 2]  # the lower median: two steps of which one is doubled show the gap
    widest = int(steps.argmax())
    where = f"between {places[widest]:.2f} and {places[widest + 1]:.2f} mm"
    if steps[widest] > 1.5 * usual:
        gaps = int((steps > 1.5 * usual).sum())
        raise MedsegError(
            f"{path} has {gaps} gap{'s' * (gaps > 1)} of missing slices, the widest {where} "
            f"(usual step {usual:.2f} mm); wanted every slice; copy the series again"
        )
    if np.abs(steps - usual).max() > UNEVEN * usual:
        raise MedsegError(
            f"{path} has uneven steps, e.g. {steps[widest]:.2f} mm {where}; wanted {usual:.2f} mm everywhere"
        )


def _normal(frame: Frame) -> np.ndarray:
    """Return the `(3,)` LPS normal of a slice."""
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def series_affine(frames: Sequence[Frame]) -> np.ndarray:
    """Return the `(4, 4)` affine from (column, row, slice) index to RAS mm of ordered slices; a gantry tilt is kept."""
    first, last = frames[0], frames[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    if len(frames) > 1:
        affine[:3, 2] = (last.position - first.position) / (len(frames) - 1)
    else:
        affine[:3, 2] = _normal(first) * first.depth
    affine[:3, 3] = first.position
    return RAS_FROM_LPS @ affine


def decode(frames: Sequence[Frame]) -> np.ndarray:
    """Return `(X, Y, Z)` float32 HU of ordered slices, padding set to air."""
    volume = np.empty((len(frames), *frames[0].shape), dtype=np.float32)
    wanted: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        wanted.setdefault(frame.path, []).append(place)
    for path, places in wanted.items():
        stored, padding = stored_values(path, frames[0].shape)
        for place in places:
            frame, values = frames[place], stored[frames[place].number]
            volume[place] = values.astype(np.float32) * frame.slope + frame.intercept
            if padding is not None:
                volume[place][(values >= padding[0]) & (values <= padding[1])] = AIR_HU
    return volume.transpose(2, 1, 0)
