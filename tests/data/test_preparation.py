"""From files to the store: names change nothing and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chest import affine, chest, save
from dicom_writer import save as save_dicom
from dicom_writer import single_frames

from medseg_gan.data import preparation
from medseg_gan.data.preparation import Preprocessing, describe, prepare_store
from medseg_gan.data.records import find_cases
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, lookup_table

Prepared = tuple[Path, Path, dict[str, Any]]  # data, store, counts
WINDOW = (-1000.0, 400.0)


def write_segthor(root: Path, names: list[str], unlabelled: int = 2) -> None:
    """A patient for each name, the last ones without ground truth."""
    for k, name in enumerate(names):
        hu, truth = chest(64, 3, seed=k)
        if k < len(names) - unlabelled:
            save(root / "train" / name / f"{name}.nii.gz", hu, affine())
            save(root / "train" / name / "GT.nii.gz", truth, affine())
        else:
            save(root / "test" / f"{name}.nii.gz", hu, affine())


def prepare(root: Path, folder: Path, table: str = "paper", **settings: Any) -> dict[str, Any]:
    how = Preprocessing(lookup_table(table), 64)
    defaults: dict[str, Any] = {"seed": 3, "window": WINDOW, "min_test": 2}
    return prepare_store(folder, find_cases(root), how, **{**defaults, **settings})


def artefacts(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def segthor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    root = tmp_path_factory.mktemp("segthor")
    write_segthor(root / "data", [f"Patient_{k:02d}" for k in range(9)])
    yield root / "data", root / "store", prepare(root / "data", root / "store")


def test_pools_never_share_a_patient_and_counts_add_up(segthor: Prepared) -> None:
    _, folder, counts = segthor
    store = SliceStore.open(folder)
    pools = {name: set(store.patients(name)) for name in ("gan", "labelled", "test")}
    assert {name: len(patients) for name, patients in pools.items()} == {"gan": 2, "labelled": 5, "test": 2}
    assert len(set().union(*pools.values())) == 9
    assert sum(pool["slices"] for pool in counts["pools"].values()) == len(store) == 27
    assert counts["left_out"] == {} or not any(counts["left_out"].values())
    assert counts["volumes"] == 9
    assert 0 < counts["outside_window"]["below"] < 0.5


def test_slices_without_ground_truth_are_unlabelled_and_records_carry_the_geometry(
    segthor: Prepared,
) -> None:
    store = SliceStore.open(segthor[1])
    for record, label in zip(store.records, store.labels, strict=True):
        assert record.labelled == (record.pool != "gan") == (label != UNLABELLED).all()
        assert record.spacing == pytest.approx((5.5, 5.5, 5.0))
        np.testing.assert_allclose(record.affine, affine(), atol=1e-4)


def test_names_of_files_change_nothing(segthor: Prepared, tmp_path: Path) -> None:
    """The same images under other names, in another order, give the same bytes: nothing depends on who it is."""
    names = ["Meier", "Abel", "Zorn", "Huber", "Kunz", "Beck", "Vogt", "Ott", "Amman"]
    write_segthor(tmp_path / "data", names)
    assert prepare(tmp_path / "data", tmp_path / "store") == segthor[2]
    assert artefacts(tmp_path / "store") == artefacts(segthor[1])


def test_the_cohort_of_the_annotator_is_a_pool_of_its_own(segthor: Prepared, tmp_path: Path) -> None:
    for k in (20, 21):  # the same name as a patient of the cohort and outside it is not the same patient
        hu, truth = chest(64, 3, seed=k)
        name = f"Patient_{k - 20:02d}"
        save(tmp_path / "annotator" / name / f"{name}.nii.gz", hu, affine())
        save(tmp_path / "annotator" / name / "GT.nii.gz", truth, affine())
    counts = prepare(segthor[0], tmp_path / "store", cohort=find_cases(tmp_path / "annotator"))
    assert counts["pools"]["annotator"] == {"patients": 2, "slices": 6, "labelled_slices": 6}
    assert {name: pool for name, pool in counts["pools"].items() if name != "annotator"} == segthor[2]["pools"]


def test_derived_lungs_fill_all_three_pools(segthor: Prepared, tmp_path: Path) -> None:
    counts = prepare(segthor[0], tmp_path, "lungs")
    assert {name: pool["patients"] for name, pool in counts["pools"].items()} == {"gan": 4, "labelled": 3, "test": 2}
    labelled = {name: pool["labelled_slices"] for name, pool in counts["pools"].items()}
    assert labelled == {"gan": 0, "labelled": 9, "test": 6}  # the GAN's patients lend images alone
    store = SliceStore.open(tmp_path)
    assert (store.labels[store.indices("gan")] == UNLABELLED).all()


def test_no_identity_leaves_prepare(tmp_path: Path) -> None:
    secrets = {
        "PatientName": "Meier^Hans",
        "PatientID": "MRN-4711",
        "PatientBirthDate": "19480312",
        "StudyDate": "20190704",
        "AccessionNumber": "ACC-99",
        "StudyInstanceUID": "1.2.826.77.1",
    }
    for k in range(5):
        own = {**secrets, "PatientID": f"MRN-4711-{k}", "series": f"1.2.826.77.2.{k}"}
        hu, _ = chest(64, 3, seed=k)
        for number, header in enumerate(single_frames(hu, affine(), **own)):
            save_dicom(header, tmp_path / "data" / f"Meier_{k}" / f"{number}.dcm")
    prepare(tmp_path / "data", tmp_path / "store", "lungs", min_test=1)
    everything = artefacts(tmp_path / "store")
    cases = {record.case for record in SliceStore.open(tmp_path / "store").records if record.pool == "test"}
    volumes = {f"volumes/{case}.npz" for case in cases}
    assert set(everything) == {"images.npy", "labels.npy", "cases.json"} | volumes
    for content in everything.values():
        for secret in ("Meier", "Hans", "MRN", "4711", "19480312", "20190704", "ACC-99", "1.2.826"):
            assert secret.encode() not in content


def test_slices_whose_lungs_are_not_told_apart_are_counted(tmp_path: Path) -> None:
    for k in range(6):
        hu, _ = chest(64, 3, seed=k)
        hu[:, :, 1] = np.rot90(hu[:, :, 1])
        save(tmp_path / "data" / f"s{k}.nii.gz", hu, affine())
    counts = prepare(tmp_path / "data", tmp_path / "store", "lungs", min_test=1)
    assert counts["left_out"] == {"lungs not told apart": 6}
    assert {record.slice_index for record in SliceStore.open(tmp_path / "store").records} == {0, 2}


def test_faults_are_one_line_and_leave_no_store(tmp_path: Path) -> None:
    write_segthor(tmp_path / "data", [f"Patient_{k:02d}" for k in range(6)], unlabelled=1)
    _, truth = chest(64, 3)
    save(tmp_path / "data/train/Patient_03/GT.nii.gz", truth[:, :, :2], affine())
    with pytest.raises(MedsegError, match=r"^Patient_03: label has shape \(64, 64, 2\), image \(64, 64, 3\)"):
        prepare(tmp_path / "data", tmp_path / "store")
    save(tmp_path / "belly" / "x.nii.gz", np.full((64, 64, 3), 40, np.int16), affine())
    with pytest.raises(MedsegError, match="no slice with lung was found in 1 volumes"):
        prepare(tmp_path / "belly", tmp_path / "store")
    save(tmp_path / "one" / "x.nii.gz", chest()[0], affine())
    with pytest.raises(MedsegError, match="patients with labels"):
        prepare(tmp_path / "one", tmp_path / "store", "lungs")
    assert not artefacts(tmp_path / "store")


def test_processes_give_what_one_process_gives(
    segthor: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "POOL_SECONDS", 0.0)
    done: list[int] = []
    assert prepare(segthor[0], tmp_path, workers=2, on_done=lambda: done.append(1)) == segthor[2]
    assert artefacts(tmp_path) == artefacts(segthor[1])
    assert len(done) == 9


def test_the_list_of_transforms_can_be_read() -> None:
    text = describe(Preprocessing(lookup_table("paper"), 256))
    assert [line.split(":")[0] for line in text.splitlines()][:3] == ["LoadVolumed", "CheckPaird", "StripPatientd"]
    assert "size 256" in text
