"""Write an array as DICOM CT, single-frame or multi-frame, for the tests of the readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid(entropy_srcs=["series"])


def image_header(stored: np.ndarray, series: str = SERIES, **changes: Any) -> Dataset:
    """Everything of a CT image but its geometry; `stored` is `(rows, columns)` or `(frames, rows, columns)` int16."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = generate_uid()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.SeriesInstanceUID, header.SeriesNumber, header.SeriesDescription = series, 3, "lung"
    header.PatientID, header.Modality = "P-17", "CT"
    header.Rows, header.Columns = stored.shape[-2:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.PixelData = np.ascontiguousarray(stored, dtype=np.int16).tobytes()
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    return header


def save(header: Dataset, path: Path) -> None:
    """Write with preamble and meta header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


def lps_parts(affine: np.ndarray) -> tuple[list[float], list[float], np.ndarray]:
    """Split an affine to RAS mm into DICOM's orientation, pixel spacing and LPS matrix."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    sizes = np.linalg.norm(lps[:3, :2], axis=0)
    orientation = (lps[:3, :2] / sizes).T.ravel().round(10).tolist()
    return orientation, [sizes[1], sizes[0]], lps


def single_frames(
    hu: np.ndarray, affine: np.ndarray, slope: float = 1, intercept: float = -1024, **changes: Any
) -> list[Dataset]:
    """Headers of the slices of `(X, Y, Z)` HU, in order."""
    orientation, spacing, lps = lps_parts(affine)
    slices = []
    for k in range(hu.shape[2]):
        header = image_header(((hu[:, :, k].T - intercept) / slope).round(), **changes)
        header.ImageOrientationPatient, header.PixelSpacing = orientation, spacing
        header.ImagePositionPatient = (lps @ [0, 0, k, 1])[:3].round(6).tolist()
        header.SliceThickness = float(np.linalg.norm(lps[:3, 2]))
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        header.InstanceNumber = 1  # never to be trusted
        slices.append(header)
    return slices


def write_series(folder: Path, slices: list[Dataset]) -> Path:
    """Write slices under names whose order is not theirs."""
    for k, header in enumerate(slices):
        save(header, folder / f"{(k * 7 + 3) % 101:03d}.dcm")
    return folder


def macro(**values: Any) -> list[Dataset]:
    """A functional group: a sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def write_multi_frame(path: Path, hu: np.ndarray, affine: np.ndarray, order: list[int]) -> Path:
    """One enhanced CT object with its frames in `order` and an intercept of its own per frame."""
    orientation, spacing, lps = lps_parts(affine)
    intercepts = [-1024 - 10 * k for k in order]
    stored = np.stack([hu[:, :, k].T - low for k, low in zip(order, intercepts, strict=True)])
    header = image_header(stored, SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(order))
    header.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared = Dataset()
    shared.PlaneOrientationSequence = macro(ImageOrientationPatient=orientation)
    shared.PixelMeasuresSequence = macro(PixelSpacing=spacing, SliceThickness=2.5)
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k, low in zip(order, intercepts, strict=True):
        group = Dataset()
        group.PlanePositionSequence = macro(ImagePositionPatient=(lps @ [0, 0, k, 1])[:3].round(6).tolist())
        group.PixelValueTransformationSequence = macro(RescaleSlope=1, RescaleIntercept=low, RescaleType="HU")
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    save(header, path)
    return path
