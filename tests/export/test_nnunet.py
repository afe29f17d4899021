"""nnU-Net raw data: what is written is read back, in the layout that nnU-Net v2 checks."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from export_example import SPACING, TABLE, WINDOW, card, generated, real
from PIL import Image

from medseg_gan.data.slices import to_unit
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.export import nnunet
from medseg_gan.export.nnunet import group_folds, write_nnunet
from medseg_gan.machine.atomic import read_json


def written(raw: Path, train: list, test: list | None = None, kind: str = "hybrid", **more: object) -> Path:
    return write_nnunet(raw, train, test or [], card(kind), name="Toy", **more)


def test_voxels_and_labels_are_read_back_equal(tmp_path: Path) -> None:
    pairs, patients = generated(tmp_path / "g"), real(tmp_path / "r")
    folder = written(tmp_path / "raw", [pairs, patients], [patients])
    assert folder == tmp_path / "raw" / "Dataset500_Toy"
    for suffix, parts in (("Tr", [pairs, patients]), ("Ts", [patients])):
        items = [item for part in parts for item in part]
        names = {f"{item.name}.nii.gz" for item in items}
        assert set(os.listdir(folder / f"labels{suffix}")) == names
        assert set(os.listdir(folder / f"images{suffix}")) == {n.replace(".nii", "_0000.nii") for n in names}
        for item in items:
            image = SimpleITK.ReadImage(str(folder / f"images{suffix}" / f"{item.name}_0000.nii.gz"))
            label = SimpleITK.ReadImage(str(folder / f"labels{suffix}" / f"{item.name}.nii.gz"))
            np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), item.image)
            np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), item.label)
            for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(image, get)() == getattr(label, get)()
            assert image.GetSpacing() == pytest.approx((SPACING[1], SPACING[0]))


def test_dataset_json_has_what_nnunet_checks(tmp_path: Path) -> None:
    folder = written(tmp_path / "raw", [generated(tmp_path / "g")], kind="synthetic")
    facts = read_json(folder / "dataset.json")
    assert facts["channel_names"] == {"0": "CT"} and facts["file_ending"] == ".nii.gz" and facts["numTraining"] == 5
    assert next(iter(facts["labels"].items())) == ("background", 0)
    assert list(facts["labels"].values()) == list(range(TABLE.num_classes))  # consecutive
    assert facts["synthetic"] is True and "SYNTHETIC" in facts["description"] and "esearch only" in facts["description"]
    header = nibabel.load(next((folder / "imagesTr").iterdir())).header
    assert b"SYNTHETIC" in bytes(header["descrip"]) and b"research only" in bytes(header["descrip"])
    assert not (folder / "imagesTs").exists()  # generated data comes without real slices


def test_png_holds_the_window_and_says_so(tmp_path: Path) -> None:
    patients = real(tmp_path / "r")
    folder = written(tmp_path / "raw", [patients], kind="real", file_format="png")
    facts = read_json(folder / "dataset.json")
    assert facts["channel_names"] == {"0": "noNorm"} and facts["file_ending"] == ".png"
    for item in patients:
        image = np.asarray(Image.open(folder / "imagesTr" / f"{item.name}_0000.png"))
        assert image.dtype == np.uint8
        assert np.abs(image / 127.5 - 1 - to_unit(item.image, WINDOW)).max() <= 1 / 255 + 1e-6
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "labelsTr" / f"{item.name}.png")), item.label)


def test_folds_never_divide_a_patient(tmp_path: Path) -> None:
    pairs, patients = generated(tmp_path / "g"), real(tmp_path / "r")
    folder = written(tmp_path / "raw", [pairs, patients])
    groups = {item.name: item.group for part in (pairs, patients) for item in part}
    splits = read_json(folder / "splits_final.json")
    assert len(splits) == 5
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(groups)  # each validates once
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == sorted(groups)
        assert not {groups[case] for case in fold["train"]} & {groups[case] for case in fold["val"]}


@pytest.mark.parametrize(("count", "folds"), [(1, 1), (2, 2), (9, 5)])
def test_there_are_no_more_folds_than_groups(count: int, folds: int) -> None:
    splits = group_folds({f"c{k}": f"g{k}" for k in range(count)}, seed=0)
    assert len(splits) == folds and all(fold["train"] and fold["val"] for fold in splits)


def test_a_number_is_used_once(tmp_path: Path) -> None:
    pairs = generated(tmp_path / "g")
    written(tmp_path / "raw", [pairs])
    with pytest.raises(UsageError, match=r"already has Dataset500_Toy.*--dataset-id"):
        write_nnunet(tmp_path / "raw", [pairs], [], card(), name="Other")
    assert written(tmp_path / "raw", [pairs], dataset_id=501).name == "Dataset501_Toy"


def test_nothing_to_train_on_and_a_full_disk_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = generated(tmp_path / "g")
    with pytest.raises(MedsegError, match="no labelled slice"):
        written(tmp_path / "raw", [dataclasses.replace(pairs, indices=pairs.indices[:0])])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nnunet.nibabel, "save", full)
    with pytest.raises(MedsegError, match="disk full while writing"):
        written(tmp_path / "raw", [pairs])
    assert os.listdir(tmp_path / "raw") == []
