"""A DICOM CT series of exported slices, marked as synthetic."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medseg_gan import __version__
from medseg_gan.export.slices import LabelledSlice

ROOT = uuid.UUID("4b4f2f1e-6f7c-5d0e-9a55-0f3f5b1f7e6a")
"""Namespace of our UIDs, which lie under 2.25, the root of UIDs made from UUIDs."""

MANUFACTURER = "medseg-gan"
SYNTHETIC_HOW = "Drawn by a generative adversarial network; not acquired from a person. Research only."
REAL_HOW = "Cropped, resized and pseudonymised slices of an acquired series. Research only."


@dataclass(frozen=True)
class Origin:
    """Where a series comes from; together with its pixels it decides every UID.

    Attributes:
        digest: hexadecimal, of the run: its seed and its generator's weights.
        made: when the run made the slices; the only date in the files.
        window: HU shown from black to white.
    """

    digest: str
    made: datetime
    window: tuple[float, float]


def make_uid(*parts: str) -> UID:
    """A UID under 2.25 that depends on the parts alone, so that an export can be repeated."""
    return UID(f"2.25.{uuid.uuid5(ROOT, chr(31).join(parts)).int}")


def pixel_digest(*arrays: np.ndarray) -> str:
    """Hash of arrays, their shapes included."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def build_series(slices: Sequence[LabelledSlice], origin: Origin) -> list[Dataset]:
    """CT images of one case, ready to be saved.

    Every identifier is new. Positions are true relative to each other: the middle of the slices lies at x = y = 0, and
    z is the slices' position, whose zero is arbitrary.

    Args:
        slices: of one case, at distinct positions, all of one size.
        origin: of the run.
    """
    digest = pixel_digest(*(item.image for item in slices))
    return [_build_image(item, number, digest, origin) for number, item in enumerate(slices, start=1)]


def save_dataset(dataset: Dataset, path: Path) -> None:
    """Write with preamble and file meta information."""
    dataset.save_as(path, enforce_file_format=True)


def _build_image(item: LabelledSlice, number: int, digest: str, origin: Origin) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    series = (origin.digest, item.case, digest)
    image.SOPInstanceUID = make_uid(*series, "image", item.name)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID

    # Patient and study
    prefix = "SYNTHETIC" if item.synthetic else "PSEUDONYM"
    image.PatientID = f"{prefix}-{origin.digest[:8]}-{item.group.removeprefix('generated-')}"
    image.PatientName = f"{prefix}^{item.group}"
    image.PatientBirthDate = image.PatientSex = ""
    image.PatientIdentityRemoved = "YES"
    image.DeidentificationMethod = "never a person: generated" if item.synthetic else "pixels and geometry kept only"
    image.StudyInstanceUID = make_uid(*series, "study")
    image.StudyDate, image.StudyTime = _date(origin), _time(origin)
    image.StudyID = image.AccessionNumber = image.ReferringPhysicianName = ""
    image.StudyDescription = f"{prefix} CT, research only"

    # Series, frame of reference, equipment
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", make_uid(*series, "series"), 1
    image.SeriesDescription = f"{prefix} CT slices, medseg-gan, research only"
    image.BodyPartExamined, image.PatientPosition = "CHEST", "HFS"
    image.FrameOfReferenceUID = make_uid(*series, "frame of reference")
    image.PositionReferenceIndicator = ""
    image.Manufacturer, image.ManufacturerModelName, image.SoftwareVersions = MANUFACTURER, MANUFACTURER, __version__

    # Image
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    image.SyntheticData = "YES" if item.synthetic else "NO"
    image.BurnedInAnnotation, image.LossyImageCompression = "NO", "00"
    image.DerivationDescription = SYNTHETIC_HOW if item.synthetic else REAL_HOW
    image.ImageComments = image.StudyDescription
    image.InstanceNumber, image.AcquisitionNumber = number, None
    image.ContentDate, image.ContentTime = _date(origin), _time(origin)
    image.KVP = None

    # Geometry: columns run to the patient's left, rows to the back, as the slices lie in the store
    rows, columns = item.image.shape
    row_mm, column_mm, thickness = item.spacing
    image.PixelSpacing, image.SliceThickness = [_mm(row_mm), _mm(column_mm)], _mm(thickness)
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    corner = (-(columns - 1) / 2 * column_mm, -(rows - 1) / 2 * row_mm, item.position)
    image.ImagePositionPatient = [_mm(value) for value in corner]

    # Pixels
    image.Rows, image.Columns, image.SamplesPerPixel = rows, columns, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 1
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, 0, "HU"
    low, high = origin.window
    image.WindowCenter, image.WindowWidth = (low + high) / 2, high - low
    image.PixelData = np.ascontiguousarray(item.image, "<i2").tobytes()
    return image


def _mm(value: float) -> float:
    """Short enough for a decimal string of 16 characters."""
    return round(value, 6)


def _date(origin: Origin) -> str:
    return origin.made.strftime("%Y%m%d")


def _time(origin: Origin) -> str:
    return origin.made.strftime("%H%M%S")
