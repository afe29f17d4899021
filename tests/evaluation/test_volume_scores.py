"""Scores of volumes: perfect for a volume's own labels, in millimetres, and silent where there is nothing to score."""

import numpy as np
import pytest

from medseg_gan.evaluation.volumes import mean_volume_scores, volume_scores

CLASSES = ("background", "heart", "aorta")


def ball(shift: int = 0) -> np.ndarray:
    x, y, z = np.meshgrid(*(np.arange(24),) * 3, indexing="ij")
    return ((x - 10 - shift) ** 2 + (y - 12) ** 2 + (z - 12) ** 2 < 36).astype(np.uint8)


def test_own_labels_score_one_and_zero_millimetres():
    heart, aorta = volume_scores(ball(), ball(), (1, 1, 3), CLASSES)
    assert heart == {"class": "heart", "dice": 1.0, "hd95_mm": 0.0}
    assert aorta == {"class": "aorta", "dice": None, "hd95_mm": None}


@pytest.mark.parametrize("factor", [0.5, 2, 7])
def test_distances_grow_with_the_spacing_and_dice_does_not(factor):
    spacing = np.array([0.9, 0.9, 2.5])
    (one, _), (other, _) = (volume_scores(ball(3), ball(), mm, CLASSES) for mm in (spacing, factor * spacing))
    assert other["hd95_mm"] == pytest.approx(factor * one["hd95_mm"], rel=1e-5) and one["hd95_mm"] > 0
    assert other["dice"] == one["dice"] == pytest.approx(2 * (ball(3) * ball()).sum() / (2 * ball().sum()))


def test_a_shift_along_an_axis_is_as_long_as_its_voxels():
    slab = np.zeros((10, 10, 10), np.uint8)
    slab[2:5] = 1
    (found, _) = volume_scores(np.roll(slab, 2, axis=0), slab, (4.0, 1.0, 1.0), CLASSES)
    assert found["hd95_mm"] == pytest.approx(8)


def test_a_missed_class_counts_in_dice_and_is_told():
    lines = [line for pred in (ball(), 0 * ball()) for line in volume_scores(pred, ball(), (1, 1, 1), CLASSES)]
    found = mean_volume_scores(lines)
    assert found["heart"] == {"volumes": 2, "missed": 1, "dice": 0.5, "hd95_mm": 0.0}
    assert found["aorta"] == {"volumes": 0, "missed": 0, "dice": None, "hd95_mm": None}
