"""Exported slices have names that say nothing, true HU, and a geometry that readers agree on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from export_example import SPACING, generated, real

from medseg_gan.errors import MedsegError
from medseg_gan.export.slices import count_kinds, to_nifti


def test_slices_come_as_they_lie_in_the_store(tmp_path: Path) -> None:
    pairs, patients = generated(tmp_path / "g"), real(tmp_path / "r")
    for part in (pairs, patients):
        items = list(part)
        np.testing.assert_array_equal(np.stack([item.image for item in items]), part.store.images)
        np.testing.assert_array_equal(np.stack([item.label for item in items]), part.store.labels)
        assert len({item.name for item in items}) == len(part)
    first = next(iter(patients))
    assert (first.name, first.group, first.position) == ("patient-001-01-0010", "patient-001", 10 * SPACING[2])
    assert [item.uncertainty for item in pairs] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    kinds = {"synthetic_slices": 5, "real_slices": 12, "real_patients": 3}
    assert count_kinds([pairs, patients]) == kinds


def test_clipped_slices_stay_within_the_window(tmp_path: Path) -> None:
    whole, clipped = real(tmp_path / "a"), real(tmp_path / "b", clip=True)
    for item, other in zip(whole, clipped, strict=True):
        np.testing.assert_array_equal(np.clip(item.image, -1000, 400), other.image)
    assert max(item.image.max() for item in whole) > 400


def test_a_slice_with_unlabelled_pixels_is_refused(tmp_path: Path) -> None:
    part = generated(tmp_path)
    labels = np.array(part.store.labels)
    labels[2, 3, 3] = 255
    part.store.labels = labels
    with pytest.raises(MedsegError, match="generated-0003000002 has pixels without a class"):
        list(part)


def test_nifti_readers_agree_on_voxels_spacing_and_sides(tmp_path: Path) -> None:
    item = next(iter(generated(tmp_path / "g")))
    nibabel.save(to_nifti(item.image, item.spacing, "SYNTHETIC"), tmp_path / "x.nii.gz")
    row_mm, column_mm, _ = SPACING
    loaded = nibabel.load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(np.asarray(loaded.dataobj).T, item.image)
    assert loaded.get_data_dtype() == np.int16 and loaded.ndim == 2
    assert nibabel.aff2axcodes(loaded.affine) == ("L", "P", "S")  # columns to the left, rows to the back
    assert loaded.header.get_zooms() == pytest.approx((column_mm, row_mm))
    assert bytes(loaded.header["descrip"]).startswith(b"SYNTHETIC")
    other = SimpleITK.ReadImage(str(tmp_path / "x.nii.gz"))  # nnU-Net's reader
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(other), item.image)
    assert other.GetDimension() == 2 and other.GetSpacing() == pytest.approx((column_mm, row_mm))
    assert other.GetDirection() == pytest.approx((1, 0, 0, 1))  # ITK's axes point to the left and the back


def test_selections_are_plain_values(tmp_path: Path) -> None:
    part = generated(tmp_path)
    assert len(dataclasses.replace(part, indices=part.indices[:2])) == 2
