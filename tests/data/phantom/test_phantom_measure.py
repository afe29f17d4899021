"""The measuring command on slices whose figures are known, and the phantom against the targets."""

from pathlib import Path

import numpy as np
import pytest
from phantom_measure import (
    TARGETS,
    allowed_deviation,
    measure_slice,
    measure_slices,
    quantile_table,
)

from medseg_gan.data.phantom.thorax import write_thorax_phantom
from medseg_gan.errors import MedsegError


def test_measures_a_slice_made_by_hand():
    y, x = np.mgrid[-128:128, -128:128] * 1.5
    image = np.full((256, 256), -1000.0)
    image[(x / 160) ** 2 + (y / 110) ** 2 < 1] = -100  # fat
    image[(x / 145) ** 2 + (y / 95) ** 2 < 1] = 50  # muscle
    for side in (-1, 1):
        image[((x - side * 60) / 45) ** 2 + (y / 60) ** 2 < 1] = -850
    image[120:121] = np.where(np.abs(x[0]) < 250, 200, image[120])  # a thin line, as of a couch
    image += np.random.default_rng(0).normal(0, 8, image.shape)
    found = measure_slice(image, 1.5)
    assert found["body_cm2"] == pytest.approx(np.pi * 16 * 11, rel=0.02)
    assert found["lung_hu"] == pytest.approx(-850, abs=3)
    assert found["fat_hu"] == pytest.approx(-100, abs=3)
    assert found["soft_hu"] == pytest.approx(50, abs=4)
    assert 5 < found["noise_hu"] < 9
    assert found["pixel_mm"] == 1.5


def test_air_alone_gives_no_figures():
    found = measure_slice(np.full((64, 64), -1000), 2.0)
    assert np.isnan([found[key] for key in ("lung_hu", "fat_hu", "soft_hu", "noise_hu")]).all()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(MedsegError, match=r"holds no \*\.nii\.gz"):
        measure_slices(tmp_path)


def test_phantom_medians_meet_the_targets(tmp_path: Path):
    """A small sample: medians only, with room for its chance; the command checks all quantiles on a large one."""
    write_thorax_phantom(tmp_path, seed=1, gan_patients=14, labelled_patients=0, annotator_patients=0,
                         slices_per_patient=4, matrix=256)  # fmt: skip
    measured = measure_slices(tmp_path, per_patient=4)
    for key, (low, middle, high) in TARGETS.items():
        room = allowed_deviation(key, middle) + 0.15 * (high - low)
        assert abs(np.median(measured[key]) - middle) < room, key
    assert len(quantile_table(measured)) == 1 + len(TARGETS)
