"""What a phantom slice shows: tissue where the labels say, contrast phases, partial volume, noise."""

import numpy as np
import pytest
from scipy import ndimage

from medseg_gan.data.phantom.habitus import PHASES
from medseg_gan.data.phantom.noise import add_noise, noise_amplitude
from medseg_gan.data.phantom.patient import Slicer, draw_patient, slice_depths
from medseg_gan.labels import SEGTHOR_GT

LEFT, RIGHT, AORTA = SEGTHOR_GT["left_lung"], SEGTHOR_GT["right_lung"], SEGTHOR_GT["aorta"]


def inside(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(mask, iterations=2)


@pytest.fixture(scope="module")
def slices() -> list[tuple[np.ndarray, np.ndarray, object]]:
    """(image, truth, patient) of six patients, three levels each."""
    found = []
    for number in range(1, 7):
        patient = draw_patient(0, number)
        slicer = Slicer(patient, 96)
        for index, depth in enumerate(slice_depths(patient, 3)):
            found.append((slicer.image(float(depth), index), slicer.truth(float(depth)), patient))
    return found


def test_sharp_labels_lie_on_their_tissue(slices):
    lungs, trachea, heart = [], [], []
    for image, truth, _ in slices:
        lungs.append(image[inside(np.isin(truth, (LEFT, RIGHT)))])
        trachea.append(image[ndimage.binary_erosion(truth == SEGTHOR_GT["trachea"])])
        heart.append(image[inside(truth == SEGTHOR_GT["heart"])])
    assert np.mean(np.concatenate(lungs) < -600) > 0.85  # the rest: vessels, lesions
    assert np.median(np.concatenate(trachea)) < -850
    assert 20 < np.median(np.concatenate(heart)) < 300


def test_every_organ_appears(slices):
    ids = set(np.unique(np.stack([truth for _, truth, _ in slices])))
    assert ids == {0, *SEGTHOR_GT.values()}


@pytest.mark.parametrize(("phase", "low", "high"), [("none", 20, 65), ("arterial", 150, 360), ("venous", 130, 215)])
def test_contrast_phase_sets_the_aortas_hu(phase, low, high):
    patient = draw_patient(0, 4, phase)
    slicer, depth = Slicer(patient, 96), 0.75 * patient.build.lung_length
    aorta = ndimage.binary_erosion(slicer.truth(depth) == AORTA)
    assert patient.tissue.phase == phase
    assert aorta.any()
    assert low < np.median(slicer.image(depth, 0)[aorta]) < high


def test_all_phases_are_drawn():
    assert {draw_patient(0, number).tissue.phase for number in range(1, 16)} == set(PHASES)


def test_a_slice_depends_on_nothing_drawn_before_it():
    patient = draw_patient(1, 1)
    first, again = Slicer(patient, 48), Slicer(patient, 48)
    again.image(30.0, 0)
    assert np.array_equal(first.image(120.0, 5), again.image(120.0, 5))


def test_thick_slices_average_what_thin_ones_show():
    """The dome of the liver: a slab's image lies between those of its ends."""
    patient = draw_patient(0, 2)
    slicer = Slicer(patient, 64, sub_slices=8)
    fine = slicer._paint(slicer.fine, np.linspace(150, 190, 8).astype(np.float32), labels=False)[0].hu
    assert np.unique(fine.mean(0)).size > np.unique(fine[0]).size
    assert (fine.mean(0) <= fine.max(0) + 1e-3).all()
    assert (fine.mean(0) >= fine.min(0) - 1e-3).all()


@pytest.mark.parametrize("matrix", [128, 256])
def test_noise_is_a_physical_process(matrix):
    """Unit strength at 256 columns; a coarser matrix, whose pixels average, is calmer."""
    pixel, rng = 1.5 * 256 / matrix, np.random.default_rng(0)
    image = np.zeros((matrix, matrix), np.float32)
    add_noise(image, rng, noise_amplitude(matrix, pixel, 0.2), 10.0, np.ones_like(image), 0.0)
    if matrix == 256:
        assert image.std() == pytest.approx(10.0, rel=0.05)
        neighbours = np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1]
        assert 0.1 < neighbours < 0.9  # coloured, not white
    else:
        assert 2.0 < image.std() < 9.0


def test_noise_is_stronger_in_the_middle():
    image = np.zeros((64, 64), np.float32)
    middle = np.zeros_like(image)
    middle[16:48, 16:48] = 1
    add_noise(image, np.random.default_rng(0), noise_amplitude(64, 6.0, 0.2), 10.0, middle, 0.0)
    assert image[middle == 1].std() > 2 * image[middle == 0].std()
