"""DICOM: slices and segments are read back equal, in place, under new identifiers, and say that they are synthetic."""

from __future__ import annotations

import dataclasses
import errno
import os
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pydicom
import pytest
from export_example import SPACING, TABLE, WINDOW, card, generated, real

from medseg_gan.data.volumes import load_volume
from medseg_gan.errors import MedsegError
from medseg_gan.export.dicom_series import Origin, make_uid
from medseg_gan.export.slices import Selection

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
dicom_seg = pytest.importorskip("medseg_gan.export.dicom_seg")

ORIGIN = Origin("0123456789abcdef" * 4, datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), WINDOW)


def written(folder: Path, parts: list[Selection], kind: str = "synthetic") -> Path:
    return dicom_seg.write_dicom(folder, parts, card(kind), ORIGIN, "label factory")


def read_case(folder: Path) -> tuple[list[pydicom.Dataset], highdicom.seg.Segmentation]:
    series = [pydicom.dcmread(path) for path in sorted(folder.glob("ct-*.dcm"))]
    return series, highdicom.seg.segread(folder / "seg.dcm")


def test_pixels_and_segments_are_read_back_equal_by_source_uid(tmp_path: Path) -> None:
    parts = [generated(tmp_path / "g", 2), real(tmp_path / "r", 1)]
    folder = written(tmp_path / "x", parts)
    for part in parts:
        items = list(part)
        for case in {item.case for item in items}:
            own = [item for item in items if item.case == case]
            series, segmentation = read_case(folder / case)
            hu = [image.pixel_array * image.RescaleSlope + image.RescaleIntercept for image in series]
            np.testing.assert_array_equal(np.stack(hu), np.stack([item.image for item in own]))
            labels = segmentation.get_pixels_by_source_instance(
                source_sop_instance_uids=[image.SOPInstanceUID for image in series],
                combine_segments=True,
                assert_missing_frames_are_empty=True,
            )
            np.testing.assert_array_equal(labels, np.stack([item.label for item in own]))
            names = {number: segmentation.get_segment_description(number).segment_label for number in range(1, 6)}
            assert names == dict(enumerate(TABLE.classes[1:], start=1))


def test_a_label_without_any_organ_is_read_back_empty(tmp_path: Path) -> None:
    part = generated(tmp_path / "g", 1)
    part.store.labels = np.zeros_like(part.store.labels)
    series, segmentation = read_case(written(tmp_path / "x", [part]) / "generated-0003000000")
    pixels = segmentation.get_pixels_by_source_instance(
        [series[0].SOPInstanceUID], combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert not pixels.any()


def test_our_own_reader_finds_the_slices_in_place(tmp_path: Path) -> None:
    part = real(tmp_path / "r", 1)
    part = dataclasses.replace(part, indices=part.indices[:3])  # evenly spaced: 3 slice thicknesses apart
    folder = written(tmp_path / "x", [part], "real") / "patient-001-01"
    (folder / "seg.dcm").unlink()
    volume = load_volume(folder)  # (1, X, Y, Z) in LPS
    np.testing.assert_array_equal(np.asarray(volume)[0].transpose(2, 1, 0), np.stack([item.image for item in part]))
    row_mm, column_mm, thickness = SPACING
    steps = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    assert steps == pytest.approx((column_mm, row_mm, 3 * thickness))


def test_every_file_says_what_it_is(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", [generated(tmp_path / "g", 1), real(tmp_path / "r", 1)])
    for case, word, flag in (("generated-0003000000", "SYNTHETIC", "YES"), ("patient-001-01", "PSEUDONYM", "NO")):
        series, segmentation = read_case(folder / case)
        for image in (*series, segmentation):
            assert str(image.PatientID).startswith(f"{word}-") and str(image.PatientName).startswith(f"{word}^")
            assert word in image.SeriesDescription and "research only" in image.SeriesDescription
            assert list(image.ImageType)[:2] == ["DERIVED", "PRIMARY" if image is segmentation else "SECONDARY"]
            assert image.SyntheticData == flag and image.PatientBirthDate == ""
            assert image.StudyInstanceUID == series[0].StudyInstanceUID
        assert all(image.BurnedInAnnotation == "NO" for image in series)
        assert segmentation.FrameOfReferenceUID == series[0].FrameOfReferenceUID


def test_identifiers_are_new_unique_and_the_same_each_time(tmp_path: Path) -> None:
    part = generated(tmp_path / "g", 2)
    one, two = (written(tmp_path / name, [part]) for name in "ab")
    for file in (path.relative_to(one) for path in one.rglob("*") if path.is_file()):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    found = [pydicom.dcmread(path) for path in one.rglob("*.dcm")]
    assert len({image.SOPInstanceUID for image in found}) == 4 and len({i.StudyInstanceUID for i in found}) == 2
    assert all(
        uid.startswith("2.25.") and uid.is_valid for i in found for uid in (i.SOPInstanceUID, i.StudyInstanceUID)
    )
    other = dataclasses.replace(ORIGIN, digest="f" * 64)
    again = dicom_seg.write_dicom(tmp_path / "c", [part], card(), other, "label factory")
    ids = {pydicom.dcmread(path).SOPInstanceUID for path in again.rglob("*.dcm")}
    assert not ids & {image.SOPInstanceUID for image in found}
    assert make_uid("a", "b") != make_uid("ab")


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dicom_seg, "save_dataset", full)
    part = generated(tmp_path / "g", 1)
    with pytest.raises(MedsegError, match="disk full while writing"):
        written(tmp_path / "out" / "x", [part])
    assert os.listdir(tmp_path / "out") == []
