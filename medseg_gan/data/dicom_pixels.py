"""Stored values of one DICOM file: decoded by pydicom's decoders, else by the GDCM inside SimpleITK."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg_gan.data.silence import native_silence
from medseg_gan.errors import MedsegError

PIXEL_DESCRIPTION = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def stored_values(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return `(F, rows, columns)` stored values of a file and the range of those that mean padding.

    Raises:
        MedsegError: the pixels are damaged, in colour, or in a transfer syntax that nothing here decodes.
    """
    try:
        data = dcmread(path, force=True)
        syntax = _transfer_syntax(data)
    except Exception as error:  # pydicom lets many kinds through on damaged files
        raise MedsegError(f"{path} is truncated or damaged; wanted a whole CT slice; copy it again") from error
    try:
        with native_silence():
            stored = data.pixel_array
    except Exception as error:  # as many kinds, and more from its plug-ins
        if not syntax.is_compressed:
            raise MedsegError(f"{path} has truncated pixel data; wanted a whole CT slice; copy it again") from error
        stored = _decode_with_gdcm(path, data, syntax)
    if stored.size % (shape[0] * shape[1]) or int(data.get("SamplesPerPixel", 1)) != 1:
        raise MedsegError(f"{path} is in colour or of odd size; wanted grey CT slices; remove the file")
    return stored.reshape(-1, *shape), _padding_range(data)


def _transfer_syntax(data: Dataset) -> UID:
    """Return the transfer syntax; where the file states none, that in which its header was readable."""
    meta = getattr(data, "file_meta", None)
    if meta is None:
        data.file_meta = meta = FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
    return UID(meta.TransferSyntaxUID)


def _decode_with_gdcm(path: Path, data: Dataset, syntax: UID) -> np.ndarray:
    """Decode the stored values with the GDCM in SimpleITK.

    GDCM applies the rescale it finds, and of an enhanced object only the first frame's; so it is handed the pixels
    without their rescale, and both kinds of file go the same way afterwards.
    """
    bare = Dataset()
    for keyword in PIXEL_DESCRIPTION:
        if keyword in data:
            bare[keyword] = data[keyword]
    bare.SOPClassUID, bare.SOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    bare.file_meta = data.file_meta
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what it says on stderr we say in one line
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pixels.dcm"
            bare.save_as(file, enforce_file_format=True)
            with native_silence():
                return sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    except Exception as error:  # nothing left to try
        raise MedsegError(
            f"{path} is in transfer syntax {syntax.name} ({syntax}) and neither pydicom nor GDCM decodes it; "
            "wanted CT slices they can read; convert the series to uncompressed DICOM or to NIfTI"
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _padding_range(data: Dataset) -> tuple[int, int] | None:
    """Return the lowest and highest stored value that mean padding, or None."""
    if data.get("PixelPaddingValue", None) is None:
        return None
    limit = data.get("PixelPaddingRangeLimit", None)
    limits = [int(data.PixelPaddingValue), int(data.PixelPaddingValue if limit is None else limit)]
    if data.PixelRepresentation == 1:  # often written as if unsigned: 63536 for -2000
        bits = int(data.BitsAllocated)
        limits = [limit - 2**bits if limit >= 2 ** (bits - 1) else limit for limit in limits]
    return min(limits), max(limits)
