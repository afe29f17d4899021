"""Lungs are found, told apart and never mistaken for one another."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from chest import chest, dice

from medseg_gan.data.lungs import LEFT, RIGHT, body_of, derive_lungs, lungs_of_slice
from medseg_gan.labels import SEGTHOR_GT

SIDES = {LEFT: SEGTHOR_GT["left_lung"], RIGHT: SEGTHOR_GT["right_lung"]}


@pytest.mark.parametrize("size, mm", [(64, 5.5), (128, 2.75), (352, 1.0)])
def test_lungs_are_found_at_any_resolution_without_the_trachea(size: int, mm: float) -> None:
    hu, truth = chest(size, 2, mm)
    found = derive_lungs(hu, (mm, mm, 5.0))
    assert found.told_apart.all()
    for side, value in SIDES.items():
        assert dice(found.left_right == side, truth == value) > 0.97
    assert not (found.left_right > 0)[truth == SEGTHOR_GT["trachea"]].any()
    assert found.airway[truth == SEGTHOR_GT["trachea"]].mean() > 0.8


def test_a_mirrored_patient_has_mirrored_lungs() -> None:
    hu, _ = chest(96, 3, 3.7)
    plain, mirrored = (derive_lungs(volume, (3.7, 3.7, 5.0)).left_right for volume in (hu, hu[::-1]))
    swapped = np.array([0, RIGHT, LEFT])[mirrored[::-1]]
    assert dice(plain == LEFT, swapped == LEFT) > 0.99
    assert dice(plain == RIGHT, swapped == RIGHT) > 0.99


def test_a_volume_of_separate_slices_equals_its_slices() -> None:
    hu, _ = chest(64, 4)
    hu = np.stack([hu[:, :, k] if k % 2 == 0 else np.full_like(hu[:, :, 0], -1000) for k in range(4)], axis=2)
    volume = derive_lungs(hu, (5.5, 5.5, 5.0)).left_right
    for k in range(4):
        np.testing.assert_array_equal(volume[:, :, [k]], derive_lungs(hu[:, :, [k]], (5.5, 5.5, 5.0)).left_right)


@pytest.mark.parametrize("size, mm", [(64, 5.5), (176, 2.0)])
def test_touching_lungs_are_cut_where_they_touch(size: int, mm: float) -> None:
    hu, truth = chest(size, 2, mm, touching=True)
    found = derive_lungs(hu, (mm, mm, 5.0))
    assert found.told_apart.all()
    for side, value in SIDES.items():
        assert dice(found.left_right == side, truth == value) > 0.94


def test_vessels_and_nodules_inside_a_lung_belong_to_it() -> None:
    hu, _ = chest(128, 1, 2.75)
    x, y = np.meshgrid(*[(np.arange(128) - 63.5) * 2.75] * 2, indexing="ij")
    spots = ((x + 74) ** 2 + y**2 < 6**2) | ((x - 75) ** 2 + (y - 20) ** 2 < 6**2)
    hu[spots, 0] = 40
    assert (derive_lungs(hu, (2.75, 2.75, 5.0)).left_right[spots, 0] > 0).all()


def test_patients_on_the_side_and_upside_down_files_are_not_told_apart() -> None:
    hu, _ = chest(128, 2, 2.75)
    assert not derive_lungs(np.rot90(hu).copy(), (2.75, 2.75, 5.0)).told_apart.any()
    assert not derive_lungs(hu[::-1, ::-1], (2.75, 2.75, 5.0)).told_apart.any()


def test_free_gas_and_a_body_without_lung_give_no_lung() -> None:
    hu, truth = chest(128, 2, 2.75)
    belly = np.where(np.isin(truth, (5, 6)), 30, hu)
    bowel = np.where(truth == SEGTHOR_GT["left_lung"], -1000, belly)
    for volume in (belly, bowel, np.full_like(hu, -1000), np.full_like(hu, 40)):
        found = derive_lungs(volume, (2.75, 2.75, 5.0))
        assert not found.left_right.any()
        assert found.told_apart.all()


def test_a_slice_has_its_left_lung_at_the_right() -> None:
    hu, truth = chest(64, 1)
    upright = hu[:, :, 0].T
    lungs = lungs_of_slice(upright, 5.5)
    assert lungs is not None
    assert np.nonzero(lungs == LEFT)[1].mean() > 40 > 24 > np.nonzero(lungs == RIGHT)[1].mean()
    assert dice(lungs == LEFT, SEGTHOR_GT["left_lung"] == truth[:, :, 0].T) > 0.97
    assert lungs_of_slice(np.full((64, 64), 40), 5.5) is None


def reference() -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """A whole chest at 4 mm with its reference labels."""
    root = os.environ.get("MEDSEG_GAN_REAL_DATA")
    if not root:
        pytest.skip("MEDSEG_GAN_REAL_DATA is not set: lungs are not compared with a reference on real CT")
    folder = Path(root) / "ct" / "lungs_truth"
    image = SimpleITK.ReadImage(str(folder / "ct-64.nrrd"))
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "lm-64.nrrd"))).T
    return SimpleITK.GetArrayFromImage(image).T, labels, image.GetSpacing()


def test_real_lungs_agree_with_the_reference() -> None:
    hu, labels, spacing = reference()
    region = labels & 255  # thirds of the left lung are 9 to 11, of the right lung 12 to 14
    truth = np.select([(region >= 9) & (region <= 11), region >= 12], [LEFT, RIGHT], 0)
    airway = (labels >> 8 == 2) & (region == 0)
    volume = derive_lungs(hu, spacing)
    slices = [derive_lungs(hu[:, :, [z]], spacing) for z in range(hu.shape[2])]
    one_by_one = np.concatenate([result.left_right for result in slices], axis=2)
    for side in (LEFT, RIGHT):
        assert dice(volume.left_right == side, truth == side) > 0.98
        assert dice(one_by_one == side, truth == side) > 0.97
        assert np.count_nonzero((volume.left_right == side) & (truth == LEFT + RIGHT - side)) < 20
    assert volume.left_right[airway].astype(bool).mean() < 0.4  # at 4 mm the bronchi inside the hilum cannot be seen
    area = np.count_nonzero(truth, axis=(0, 1)) * spacing[0] * spacing[1] / 100
    told_apart = np.array([result.told_apart[0] for result in slices])
    assert volume.told_apart.all()
    assert told_apart[area > 30].all()


def test_the_body_holds_its_lungs_and_neither_table_nor_air() -> None:
    hu, truth = (volume.transpose(2, 1, 0) for volume in chest(64, 3))
    body = body_of(hu)
    assert body.shape == hu.shape and body.dtype == bool
    assert body[truth > 0].all()
    assert not body[:, 0].any() and not body[:, :, 0].any() and not body[:, :, -1].any()
    table = hu.copy()
    table[:, -2:, 20:40] = 100
    assert not body_of(table)[:, -2:].any()


def test_each_slice_has_a_body_of_its_own() -> None:
    hu = chest(64, 3)[0].transpose(2, 1, 0)
    for k in range(3):
        assert np.array_equal(body_of(hu)[k], body_of(hu[k : k + 1])[0])
