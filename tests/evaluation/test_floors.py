"""Floors on tasks whose answers are known."""

import numpy as np
import pytest

from medseg_gan.evaluation.floors import floors, most_frequent_per_intensity, most_frequent_per_pixel
from medseg_gan.machine.seeding import seed_step
from medseg_gan.networks.segmenters import build_segmenter


@pytest.fixture
def halves():
    """Slices whose lower half is class 1, except in every third, where the upper half is; class 1 is bright."""
    label = np.zeros((9, 8, 8), np.uint8)
    label[:, 4:] = 1
    label[::3] = 1 - label[::3]
    return np.where(label == 1, 0.5, -0.5).astype(np.float32), label


def test_floors_are_what_each_predictor_can_know(halves):
    seed_step(0, "untrained")  # random weights answer this task by chance now and then
    found = floors(*halves, *halves, 2, build_segmenter("unet", 2))
    assert found["all_background"] == {"miou": 0.25, "foreground_miou": 0, "iou_per_class": [0.5, 0]}
    assert found["position"]["iou_per_class"] == pytest.approx([0.5, 0.5])  # right in two thirds: 2 / (2 + 1 + 1)
    assert found["intensity"]["miou"] == 1
    assert set(found) == {"all_background", "position", "intensity", "untrained"}
    assert 0 <= found["untrained"]["miou"] < 0.8


def test_floors_learn_from_training_slices_alone(halves):
    image, label = halves
    found = floors(image, label, image, 1 - label, 2, build_segmenter("unet", 2))
    assert found["intensity"]["miou"] == 0


def test_unlabelled_pixels_teach_nothing(halves):
    image, label = halves
    label[1:] = 255
    assert (most_frequent_per_pixel(label, 2) == label[0]).all()
    table = most_frequent_per_intensity(image, label, 2)
    assert table[64] == 0 and table[192] == 1 and table[0] == 0
