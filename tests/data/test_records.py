"""Cases are found in every layout; pools never share a patient; pseudonyms say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest import affine, save
from dicom_writer import save as save_dicom
from dicom_writer import single_frames

from medseg_gan.data.records import DOMINANT_SHARE, Case, PatientSlices, cut_pools, disguise, find_cases
from medseg_gan.errors import MedsegError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(cases: list[Case]) -> dict[str, tuple[str, str | None]]:
    return {str(case["case"]): (case["patient"], case["label"].name if case["label"] else None) for case in cases}


def test_segthor_is_found_as_published_from_any_of_its_folders(tmp_path: Path) -> None:
    for name in ("Patient_01", "Patient_02"):
        touch(tmp_path, f"train/{name}/{name}.nii.gz", f"train/{name}/GT.nii.gz")
    touch(tmp_path, "test/Patient_41.nii.gz")
    train = {name: (name, "GT.nii.gz") for name in ("Patient_01", "Patient_02")}
    assert found(find_cases(tmp_path)) == {**train, "Patient_41": ("Patient_41", None)}
    assert found(find_cases(tmp_path / "train")) == train


def test_ground_truth_without_its_image_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "train/Patient_01/Patient_01.nii.gz", "train/Patient_02/GT.nii.gz")
    with pytest.raises(MedsegError, match=r"no Patient_02\.nii\.gz"):
        find_cases(tmp_path)


def test_patients_of_a_plain_folder_come_from_file_names(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/TCGA-17-Z021_3.nii.gz",
        "a/TCGA-17-Z021_1.nii.gz",
        "b/CMB-CRC-01068.nrrd",
        "Patient_07.mha",
        "x.txt",
    )
    assert {case: patient for case, (patient, _) in found(find_cases(tmp_path)).items()} == {
        "a/TCGA-17-Z021_1": "TCGA-17-Z021",
        "a/TCGA-17-Z021_3": "TCGA-17-Z021",
        "b/CMB-CRC-01068": "CMB-CRC-01068",
        "Patient_07": "Patient_07",
    }
    pattern = find_cases(tmp_path, patient_pattern=r"^(....)")
    assert {case["patient"] for case in pattern} == {"TCGA", "CMB-", "Pati"}


@pytest.mark.parametrize("pattern", ["(", "nothing", r"Z0\d\d"])
def test_a_pattern_that_finds_no_patient_is_an_error(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "TCGA-17-Z021_3.nii.gz")
    with pytest.raises(MedsegError, match=r"prepare\.patient_pattern"):
        find_cases(tmp_path, patient_pattern=pattern)


def test_labels_lie_beside_their_images_or_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a_label.nii.gz", "b.nrrd", "b-label.nrrd", "c.nii", "labels/c.nii.gz")
    touch(tmp_path, "images/d.nii.gz", "labels/d.nii.gz", "e.nii.gz")
    labels = {case: label for case, (_, label) in found(find_cases(tmp_path)).items()}
    assert labels == {"a": "a_label.nii.gz", "b": "b-label.nrrd", "c": "c.nii.gz", "images/d": "d.nii.gz", "e": None}
    touch(tmp_path, "labels/nobody.nii.gz")
    with pytest.raises(MedsegError, match="no image has its name"):
        find_cases(tmp_path)


def test_missing_empty_and_ambiguous_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="is not a folder"):
        find_cases(tmp_path / "absent")
    with pytest.raises(MedsegError, match="no volumes found"):
        find_cases(tmp_path)
    touch(tmp_path, "scan.nii.gz")
    with pytest.raises(MedsegError, match="no volumes found, wanted folders of DICOM"):
        find_cases(tmp_path, "dicom")


def patients(rng: np.random.Generator) -> list[PatientSlices]:
    counts = rng.integers(1, 30, rng.integers(9, 40)) * rng.choice([1, 1, 1, 1, 20], 1)
    return [
        PatientSlices(f"patient-{k:03d}", int(count), int(count) if rng.random() < 0.8 else 0)
        for k, count in enumerate(counts)
    ]


@pytest.mark.parametrize("gan_share", [None, 0.5])
def test_every_patient_lands_in_one_pool_and_pools_have_their_sizes(gan_share: float | None) -> None:
    rng = np.random.default_rng(0)
    cut = 0
    for seed in range(200):
        given = patients(rng)
        labelled = [item for item in given if item.labelled]
        try:
            pools = cut_pools(given, seed=seed, test_share=0.2, min_test=3, gan_share=gan_share)
        except MedsegError:
            assert len(labelled) < 3 + 3 or any(item.slices > 0.25 * sum(i.slices for i in given) for item in given)
            continue
        cut += 1
        assert set(pools) == {item.patient for item in given}
        assert set(pools.values()) == {"gan", "labelled", "test"}
        assert all(pools[item.patient] == "gan" for item in given if not item.labelled)
        assert sum(pool == "test" for pool in pools.values()) == max(3, round(0.2 * len(labelled)))
        assert sum(pool == "labelled" for pool in pools.values()) >= 2
        assert pools == cut_pools(given[::-1], seed=seed, test_share=0.2, min_test=3, gan_share=gan_share)
    assert cut > 100


def test_patients_who_dominate_train_and_are_never_tested_on() -> None:
    given = [PatientSlices(f"p{k:02d}", 1, 1) for k in range(40)] + [PatientSlices(f"x{k}", 90, 90) for k in range(2)]
    assert DOMINANT_SHARE < 90 / 220
    for seed in range(30):
        pools = cut_pools(given, seed=seed, gan_share=0.5)
        assert {pools["x0"], pools["x1"]} == {"gan", "labelled"}
        sizes = [sum(pool == name for pool in pools.values()) for name in ("gan", "labelled", "test")]
        assert sizes == [21, 13, 8]


def test_too_few_patients_are_one_clear_line() -> None:
    given = [PatientSlices(f"p{k}", 5, 5) for k in range(6)]
    with pytest.raises(MedsegError, match=r"usable slices: 6; wanted at least 8: 5 for the test"):
        cut_pools(given, seed=0)
    with pytest.raises(MedsegError, match=r"usable slices: 0; .* prepare\.labels=lungs"):
        cut_pools([PatientSlices("p", 5, 0)], seed=0)


def test_pseudonyms_depend_on_images_alone() -> None:
    names = ["Meier", "Schulze", "Meier", "Abel"]
    digests = ["c", "a", "b", "d"]
    cases = [{"case": f"{name}_{k}", "patient": name} for k, name in enumerate(names)]
    hidden = [(case["patient"], case["case"]) for case in disguise(cases, digests)]
    assert hidden == [
        ("patient-002", "patient-002-02"),
        ("patient-001", "patient-001-01"),
        ("patient-002", "patient-002-01"),
        ("patient-003", "patient-003-01"),
    ]
    renamed = [{**case, "patient": case["patient"][::-1], "case": "x"} for case in cases]
    assert [(case["patient"], case["case"]) for case in disguise(renamed, digests)] == hidden


def test_the_same_images_of_two_patients_are_refused() -> None:
    cases = [{"case": name, "patient": name} for name in ("Meier", "Schulze")]
    with pytest.raises(MedsegError, match="Meier and Schulze hold the same slices"):
        disguise(cases, ["a", "a"])
    assert len(disguise([{**case, "patient": "one"} for case in cases], ["a", "a"])) == 2


def test_a_folder_of_files_and_dicom_asks_which_is_meant(tmp_path: Path) -> None:
    hu = np.zeros((8, 8, 2), np.int16)
    save(tmp_path / "scan.nii.gz", hu, affine())
    for k, header in enumerate(single_frames(hu, affine())):
        save_dicom(header, tmp_path / "series" / f"{k}.dcm")
    with pytest.raises(MedsegError, match=r"prepare\.layout=folder or prepare\.layout=dicom"):
        find_cases(tmp_path)
    assert len(find_cases(tmp_path, "folder")) == len(find_cases(tmp_path, "dicom")) == 1
