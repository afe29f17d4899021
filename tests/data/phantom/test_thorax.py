"""The thorax phantom's files: layout, geometry, determinism, resuming."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg_gan.data.phantom.patient import LUNG_IDS, draw_patient
from medseg_gan.data.phantom.thorax import lungs_truth, patient_volumes, write_thorax_phantom
from medseg_gan.errors import MedsegError

COHORT = {"seed": 3, "gan_patients": 2, "labelled_patients": 2, "annotator_patients": 1, "slices_per_patient": 4}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_thorax_phantom(root, **COHORT, annotator_slices=3, matrix=32)
    return root


def to_lps(path: Path) -> nib.Nifti1Image:
    image = nib.Nifti1Image.from_filename(path)
    lps = nib.orientations.axcodes2ornt("LPS")
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), lps))


def test_layout_is_segthors(cohort):
    found = {str(path.relative_to(cohort)) for path in cohort.rglob("*.nii.gz")}
    assert found == {
        *(f"train/Patient_0{k}/{name}.nii.gz" for k in (1, 2) for name in (f"Patient_0{k}", "GT")),
        "test/Patient_03.nii.gz",
        "test/Patient_04.nii.gz",
        "annotator/Patient_05/Patient_05.nii.gz",
        "annotator/Patient_05/GT.nii.gz",
    }


def test_gt_shares_the_images_grid_and_holds_segthor_ids(cohort):
    for path in cohort.rglob("GT.nii.gz"):
        label = nib.load(path)
        image = nib.load(path.parent / f"{path.parent.name}.nii.gz")
        assert label.shape == image.shape
        assert np.array_equal(label.affine, image.affine)
        assert set(np.unique(np.asanyarray(label.dataobj))) <= {0, 1, 2, 3, 4}
        assert image.get_data_dtype() == np.int16


def test_voxels_lie_in_several_orientations():
    assert len({draw_patient(0, number).scan.axes for number in range(1, 20)}) > 2


def test_every_orientation_reads_back_to_the_same_patient(cohort):
    for number in (1, 2):
        image, truth, affine = patient_volumes(draw_patient(3, number), 32, 4)
        read = to_lps(cohort / f"train/Patient_0{number}/Patient_0{number}.nii.gz")
        label = to_lps(cohort / f"train/Patient_0{number}/GT.nii.gz")
        assert np.array_equal(np.asanyarray(read.dataobj), image)
        assert np.array_equal(np.asanyarray(label.dataobj), np.where(np.isin(truth, LUNG_IDS), 0, truth))
        assert np.allclose(read.affine, affine, atol=1e-3)


def test_left_is_the_patients_left():
    lungs = lungs_truth(0, 2, 32, 4)
    x = np.arange(32)[:, None, None]
    assert (x * (lungs == 5)).sum() / (lungs == 5).sum() > (x * (lungs == 6)).sum() / (lungs == 6).sum()


def test_a_patient_depends_on_seed_and_number_alone(cohort, tmp_path):
    write_thorax_phantom(tmp_path, **COHORT | {"gan_patients": 1, "annotator_patients": 0}, matrix=32, workers=2)
    for path in tmp_path.rglob("*.nii.gz"):
        assert path.read_bytes() == (cohort / path.relative_to(tmp_path)).read_bytes()
    other = patient_volumes(draw_patient(4, 1), 32, 4)[0]
    assert not np.array_equal(other, patient_volumes(draw_patient(3, 1), 32, 4)[0])


def test_resuming_writes_what_is_missing_and_keeps_the_rest(cohort):
    missing, kept = cohort / "test/Patient_03.nii.gz", cohort / "test/Patient_04.nii.gz"
    content, time = missing.read_bytes(), kept.stat().st_mtime_ns
    missing.unlink()
    progress = []
    write_thorax_phantom(cohort, **COHORT, annotator_slices=3, matrix=32, progress=lambda *at: progress.append(at))
    assert missing.read_bytes() == content
    assert kept.stat().st_mtime_ns == time
    assert progress == [(5, 5)]


def test_other_settings_in_the_same_folder_are_refused(cohort):
    with pytest.raises(MedsegError, match="other settings"):
        write_thorax_phantom(cohort, **COHORT | {"seed": 4}, annotator_slices=3, matrix=32)


def test_another_edition_is_refused(tmp_path):
    with pytest.raises(MedsegError, match="edition 99"):
        write_thorax_phantom(tmp_path, edition=99)
