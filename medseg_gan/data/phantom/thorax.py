"""Write a cohort of phantom patients as NIfTI volumes in SegTHOR's layout."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from medseg_gan.data.phantom.patient import EDITION, LUNG_IDS, Patient, Slicer, draw_patient, slice_depths
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import atomic_path, read_json, write_json
from medseg_gan.machine.pool import in_order


@dataclass(frozen=True)
class Order:
    """One patient to write: a plain value that travels to a worker process."""

    seed: int
    number: int
    matrix: int
    slices: int
    image: Path
    label: Path | None


def patient_volumes(patient: Patient, matrix: int, slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, sharp truth and geometry of one patient.

    Args:
        patient: from `draw_patient`.
        matrix: pixels per side.
        slices: number of slices, spread evenly over the lungs.

    Returns:
        `(X, Y, Z)` int16 HU and `(X, Y, Z)` uint8 ids in LPS order, slices from below upwards (ids as `SEGTHOR_GT`,
        lungs included), and the 4 x 4 affine (RAS millimetres, as NIfTI has it).
    """
    slicer, depths = Slicer(patient, matrix), slice_depths(patient, slices)[::-1]
    image = np.stack([slicer.image(float(d), k).T for k, d in enumerate(depths)], axis=2)
    truth = np.stack([slicer.truth(float(d)).T for d in depths], axis=2)
    spacing = float(depths[0] - depths[1]) if slices > 1 else patient.scan.thickness
    half = (matrix - 1) / 2 * slicer.pixel
    affine = np.diag([-slicer.pixel, -slicer.pixel, spacing, 1.0])
    affine[:3, 3] = (half, half, -float(depths[0]))
    return image, truth, affine


def lungs_truth(seed: int, number: int, matrix: int, slices: int) -> np.ndarray:
    """Sharp lungs of a patient on the grid of its volume turned to LPS.

    Vessels, airways' branches and lesions inside count as lung; fluid and airless lung do not.

    Returns:
        `(X, Y, Z)` uint8: 5 left, 6 right, 0 elsewhere.
    """
    _, truth, _ = patient_volumes(draw_patient(seed, number), matrix, slices)
    return np.where(np.isin(truth, LUNG_IDS), truth, 0).astype(np.uint8)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray, axes: str) -> None:
    """Write an LPS array with its voxels laid out along other `axes`; equal input gives equal bytes."""
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes)))
    image = image.as_reoriented(turn)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))


def write_patient(order: Order) -> int:
    """Write one patient, the label first: an existing image then says that the patient is complete."""
    patient = draw_patient(order.seed, order.number)
    image, truth, affine = patient_volumes(patient, order.matrix, order.slices)
    if order.label is not None:
        truth[np.isin(truth, LUNG_IDS)] = 0  # as published: SegTHOR has no lung labels
        save_nifti(order.label, truth, affine, patient.scan.axes)
    save_nifti(order.image, image, affine, patient.scan.axes)
    return order.number


def list_orders(
    root: Path, seed: int, gan: int, labelled: int, annotator: int, slices: int, annotator_slices: int, matrix: int
) -> list[Order]:
    """Patients are numbered through: labelled, then without GT, then the annotator cohort."""
    orders = []
    for number in range(1, labelled + gan + annotator + 1):
        name = f"Patient_{number:02d}"
        cohort = "train" if number <= labelled else "test" if number <= labelled + gan else "annotator"
        folder = root / cohort if cohort == "test" else root / cohort / name
        label = None if cohort == "test" else folder / "GT.nii.gz"
        count = annotator_slices if cohort == "annotator" else slices
        orders.append(Order(seed, number, matrix, count, folder / f"{name}.nii.gz", label))
    return orders


def write_thorax_phantom(
    root: Path,
    *,
    seed: int = 0,
    gan_patients: int = 60,
    labelled_patients: int = 22,
    annotator_patients: int = 12,
    slices_per_patient: int = 24,
    annotator_slices: int | None = None,
    matrix: int = 128,
    workers: int = 1,
    edition: int = EDITION,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the thorax phantom in SegTHOR's layout; patients already there are kept.

    `root/train/Patient_XX/{Patient_XX.nii.gz, GT.nii.gz}`, `root/test/Patient_XX.nii.gz` (no GT) and
    `root/annotator/Patient_XX/{...}`. A patient is a pure function of seed and number, whatever the workers.

    Args:
        root: folder to fill.
        seed: of the whole cohort.
        gan_patients: patients without GT.
        labelled_patients: patients with GT, for training and test pools alike.
        annotator_patients: patients with GT that train the stand-in annotator and nothing else.
        slices_per_patient: evenly spread over the lungs.
        annotator_slices: slices of each annotator patient (default: as the others).
        matrix: pixels per side, at least 32.
        workers: processes.
        edition: the phantom's edition the caller relies on.
        progress: called with (patients done, patients in all).

    Raises:
        MedsegError: another edition was asked for, or `root` holds a phantom of other settings.
    """
    if edition != EDITION:
        raise MedsegError(f"thorax phantom edition {edition} was asked for, this version draws edition {EDITION}")
    settings = {
        "phantom": "thorax", "edition": edition, "seed": seed, "gan_patients": gan_patients,
        "labelled_patients": labelled_patients, "annotator_patients": annotator_patients,
        "slices_per_patient": slices_per_patient, "annotator_slices": annotator_slices or slices_per_patient,
        "matrix": matrix,
    }  # fmt: skip
    root = Path(root)
    record = root / "phantom.json"
    if record.exists() and read_json(record) != settings:
        raise MedsegError(f"{root} holds a phantom of other settings; name another folder or remove that one")
    write_json(record, settings)
    counts = (gan_patients, labelled_patients, annotator_patients)
    orders = list_orders(root, seed, *counts, slices_per_patient, annotator_slices or slices_per_patient, matrix)
    open_orders = [order for order in orders if not order.image.exists()]
    for done, _ in enumerate(in_order(write_patient, open_orders, workers), len(orders) - len(open_orders) + 1):
        if progress:
            progress(done, len(orders))
