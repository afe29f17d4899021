"""Whatever the file's orientation, slices are the same, and labels return to the file's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from chest import affine, chest, dice, save

from medseg_gan.data.transforms import as_slices, build_preprocessing, spacing_of, to_volume_grid
from medseg_gan.errors import MedsegError
from medseg_gan.labels import SEGTHOR_GT, lookup_table

TABLE = lookup_table("all")
AXES = ("LPS", "RAS", "RAI", "PLS", "SAL", "IRP")


def prepared(folder: Path, size: int = 64, table: str = "all", **settings: Any) -> tuple[dict[str, Any], Any]:
    """The case in `folder` after preprocessing, and the preprocessing."""
    label = folder / "GT.nii.gz"
    compose = build_preprocessing(lookup_table(table), size=size, **settings)
    case = {"image": folder / "x.nii.gz", "label": label if label.exists() else None, "case": "Patient_07"}
    return dict(compose(case)), compose


def write(folder: Path, axes: str = "LPS", truth: np.ndarray | None = None, **settings: Any) -> np.ndarray:
    """Write a chest and its ground truth; returns the ground truth in LPS."""
    hu, drawn = chest(**settings)
    mm = settings.get("mm", 5.5)
    save(folder / "x.nii.gz", hu, affine(mm), axes)
    save(folder / "GT.nii.gz", drawn if truth is None else truth, affine(mm), axes)
    return drawn if truth is None else truth


@pytest.mark.parametrize("axes", AXES)
def test_slices_do_not_depend_on_the_orientation_of_the_file(tmp_path: Path, axes: str) -> None:
    write(tmp_path / "lps")
    write(tmp_path / axes, axes)
    first, other = (prepared(tmp_path / name)[0] for name in ("lps", axes))
    for key in ("image", "label"):
        np.testing.assert_array_equal(as_slices(first[key]), as_slices(other[key]))
    np.testing.assert_allclose(first["image"].affine, other["image"].affine, atol=1e-4)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("size, settings", [(64, {}), (64, {"crop": 0.9}), (80, {}), (64, {"spacing": 3.1})])
def test_label_returns_to_its_own_grid(tmp_path: Path, axes: str, size: int, settings: dict[str, float]) -> None:
    write(tmp_path, axes, size=128, mm=2.75, depth=3)
    case, preprocessing = prepared(tmp_path, size, **settings)
    back = to_volume_grid(as_slices(case["label"])[case["slices"]], case, preprocessing)
    file = nib.load(tmp_path / "GT.nii.gz")
    assert back.shape[1:] == file.shape
    np.testing.assert_allclose(back.affine, file.affine, atol=1e-4)
    found, truth = back[0].numpy(), np.asarray(file.dataobj)
    for name in ("heart", "left_lung", "right_lung"):
        assert dice(found == TABLE.id_of(name), truth == SEGTHOR_GT[name]) > 0.95


def test_slices_show_the_patient_from_below_anterior_up(tmp_path: Path) -> None:
    write(tmp_path, "RAS")
    label = as_slices(prepared(tmp_path)[0]["label"])[0]
    row, column = (
        {name: np.nonzero(label == TABLE.id_of(name))[k].mean() for name in TABLE.classes[1:]} for k in (0, 1)
    )
    assert column["right_lung"] < column["trachea"] < column["left_lung"]
    assert row["heart"] < row["trachea"] < row["aorta"]


def test_predictions_on_some_slices_leave_the_others_empty(tmp_path: Path) -> None:
    hu, truth = chest(depth=5)
    hu[:, :, 2], truth[:, :, 2] = 30, 0
    save(tmp_path / "x.nii.gz", hu, affine(), "RAS")
    save(tmp_path / "GT.nii.gz", truth, affine(), "RAS")
    case, preprocessing = prepared(tmp_path)
    assert case["slices"].tolist() == [0, 1, 3, 4]
    assert case["left_out"] == {"less than 20 cm2 of lung": 1, "lungs not told apart": 0}
    back = to_volume_grid(np.ones((4, 64, 64), np.uint8), case, preprocessing)[0].numpy()
    assert back.any(axis=(0, 1)).tolist() == [True, True, False, True, True]


def test_whole_blocks_are_averaged_in_hu(tmp_path: Path) -> None:
    write(tmp_path, size=128, mm=2.75, depth=2)
    image = as_slices(prepared(tmp_path, 64)[0]["image"])
    hu = np.asarray(nib.load(tmp_path / "x.nii.gz").dataobj, np.float32).clip(-1024)
    blocks = hu.reshape(64, 2, 64, 2, 2).mean((1, 3)).transpose(2, 1, 0)
    np.testing.assert_allclose(image, blocks, atol=0.01)


def test_slices_become_square_with_air_around(tmp_path: Path) -> None:
    hu, truth = chest(64)
    save(tmp_path / "x.nii.gz", hu[:, 8:56], affine())
    save(tmp_path / "GT.nii.gz", truth[:, 8:56], affine())
    case, _ = prepared(tmp_path)
    image = as_slices(case["image"])
    assert image.shape == (4, 64, 64)
    np.testing.assert_array_equal(image[:, 8:56], hu[:, 8:56].transpose(2, 1, 0).clip(-1024))
    assert (image[:, :8] == -1024).all()
    assert spacing_of(case["image"]) == pytest.approx((5.5, 5.5, 5.0))


def test_lung_area_decides_which_slices_are_taken(tmp_path: Path) -> None:
    truth = write(tmp_path, depth=3)
    area = np.isin(truth, (5, 6)).sum((0, 1)) * 0.55**2
    for limit, expected in ((area.min() - 1, 3), (area.max() + 1, 0)):
        assert len(prepared(tmp_path, min_lung_cm2=float(limit))[0]["slices"]) == expected


@pytest.mark.parametrize("name", ["paper", "all", "segthor", "lungs"])
def test_every_table_gets_its_own_numbers(tmp_path: Path, name: str) -> None:
    truth = write(tmp_path)
    table = lookup_table(name)
    label = prepared(tmp_path, table=name)[0]["label"][0].numpy()
    for number, organ in enumerate(table.classes[1:], start=1):
        np.testing.assert_array_equal(label == number, truth == SEGTHOR_GT[organ])


def test_painted_lungs_win_over_derived_ones_and_organs_over_both(tmp_path: Path) -> None:
    _, truth = chest()
    organs = np.where(np.isin(truth, (5, 6)), 0, truth)
    organs[20:30, 30:34] = SEGTHOR_GT["heart"]  # inside the right lung
    write(tmp_path / "derived", truth=organs)
    write(tmp_path / "painted", truth=np.where(truth == 5, 5, organs))
    derived, painted = (prepared(tmp_path / name)[0]["label"][0].numpy() for name in ("derived", "painted"))
    right, heart = TABLE.id_of("right_lung"), TABLE.id_of("heart")
    assert dice(derived == right, (truth == 6) & (organs == 0)) > 0.97
    assert (derived[20:30, 30:34] == heart).all()
    assert not (painted == right).any()
    np.testing.assert_array_equal(painted == TABLE.id_of("left_lung"), truth == 5)


def test_a_case_without_ground_truth_gets_labels_only_where_they_are_lungs(tmp_path: Path) -> None:
    hu, truth = chest()
    save(tmp_path / "x.nii.gz", hu, affine())
    assert "label" not in prepared(tmp_path, table="paper")[0]
    label = prepared(tmp_path, table="lungs")[0]["label"][0].numpy()
    assert dice(label == 1, truth == 5) > 0.97


def test_nothing_of_the_file_is_left_in_the_meta_data(tmp_path: Path) -> None:
    write(tmp_path / "Meier_Hans")
    case, _ = prepared(tmp_path / "Meier_Hans")
    for key in ("image", "label"):
        assert "Meier" not in repr((case[key].meta, case[key].applied_operations))


def test_ground_truth_that_does_not_belong_is_refused(tmp_path: Path) -> None:
    hu, truth = chest(depth=3)
    save(tmp_path / "x.nii.gz", hu, affine())
    faults = {
        r"Patient_07: label has shape \(64, 64, 2\), image \(64, 64, 3\)\. Check": (truth[:, :, :2], affine()),
        r"Patient_07: label and image lie in different places": (truth, affine(thickness=4)),
        r"Patient_07: the label has unknown values \(7, 9\), wanted 0 background, 1 esophagus": (
            np.where(truth == 5, 7, np.where(truth == 6, 9, truth)).astype(np.uint8),
            affine(),
        ),
    }
    for message, (array, matrix) in faults.items():
        save(tmp_path / "GT.nii.gz", array, matrix)
        with pytest.raises(RuntimeError) as raised:  # MONAI's Compose wraps it
            prepared(tmp_path)
        assert isinstance(raised.value.__cause__, MedsegError)
        with pytest.raises(MedsegError, match=message):
            raise raised.value.__cause__


def test_pixels_that_are_not_square_ask_for_a_spacing(tmp_path: Path) -> None:
    hu, _ = chest()
    matrix = affine()
    matrix[1, 1] = -4.0
    save(tmp_path / "x.nii.gz", hu, matrix)
    with pytest.raises(RuntimeError) as raised:
        prepared(tmp_path)
    assert r"5.50 x 4.00 mm" in str(raised.value.__cause__)
    assert spacing_of(prepared(tmp_path, spacing=5.5)[0]["image"])[0] == pytest.approx(5.5, rel=0.02)
