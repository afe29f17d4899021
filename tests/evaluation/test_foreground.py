"""Scores of one foreground class by hand, and what each floor is worth."""

import numpy as np
import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.foreground import (
    PRIOR_AREA,
    bootstrap,
    centred_disc,
    foreground_floors,
    foreground_scores,
    mean_area,
    polarity_diagnostic,
)
from medseg_gan.evaluation.segmentation import confusion, scores


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    label = (rng.random((12, 8, 8)) < rng.random((12, 1, 1))).astype(np.uint8)
    pred = np.where(rng.random(label.shape) < 0.8, label, 1 - label)
    return pred, label


def test_scores_of_two_images_by_hand():
    # Image 0: 4 of 4 foreground pixels found. Image 1: 1 of 2 found, 1 false; 16 pixels each.
    matrices = np.array([[[12, 0], [0, 4]], [[13, 1], [1, 1]]])
    found = foreground_scores(matrices)
    assert found["acc"] == pytest.approx(30 / 32)
    assert found["iou"] == pytest.approx(5 / 7)
    assert found["iou_img"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["miou"] == pytest.approx((5 / 7 + 25 / 27) / 2)


def test_dataset_scores_are_those_of_the_segmenters(masks):
    matrices = confusion(*masks, 2)
    found, general = foreground_scores(matrices), scores(matrices.sum(axis=0))
    assert found["iou"] == pytest.approx(general["foreground_miou"])
    assert found["miou"] == pytest.approx(general["miou"])


def test_an_empty_image_is_right_only_if_nothing_is_predicted():
    empty, false = np.array([[[16, 0], [0, 0]]]), np.array([[[15, 1], [0, 0]]])
    assert foreground_scores(empty)["iou_img"] == 1
    assert foreground_scores(false)["iou_img"] == 0
    assert foreground_scores(empty)["iou"] == 0  # over the whole set, as everywhere


def test_intervals_hold_the_score_and_narrow_with_images(masks):
    matrices = confusion(*masks, 2)
    found, many = bootstrap(matrices), bootstrap(np.tile(matrices, (9, 1, 1)))
    for name, value in foreground_scores(matrices).items():
        low, high = found[name]
        assert low < value < high
        assert many[name][1] - many[name][0] == pytest.approx((high - low) / 3, rel=0.2)
    assert found == bootstrap(matrices) != bootstrap(matrices, seed=1)


def test_images_of_one_unit_are_drawn_together(masks):
    matrices = confusion(*masks, 2)
    thrice = np.tile(matrices, (3, 1, 1))
    units = [f"scene {k}" for k in range(len(matrices))] * 3
    grouped, alone = bootstrap(thrice, units), bootstrap(matrices)
    for name in alone:
        assert np.ptp(grouped[name]) == pytest.approx(np.ptp(alone[name]), rel=0.1)
    one = bootstrap(matrices, ["a"] * len(matrices))
    for name, value in foreground_scores(matrices).items():
        assert one[name] == pytest.approx([value, value])


def test_floors_are_what_masks_without_a_look_can_know():
    label = np.zeros((3, 32, 32), np.uint8)
    label[:, 8:24, 8:24] = 1  # a quarter, in the middle
    found = foreground_floors(label, area=mean_area(label))
    assert found["all_foreground"] == {"acc": 0.25, "iou": 0.25, "iou_img": 0.25, "miou": 0.125}
    assert found["all_background"] == {"acc": 0.75, "iou": 0, "iou_img": 0, "miou": 0.375}
    assert 0.8 < found["centred_disc"]["iou"] < 0.9  # a disc and a square of one area: 0.83 in the plane
    assert set(found) == {"all_foreground", "all_background", "centred_disc"}
    assert foreground_floors(label) == foreground_floors(label, PRIOR_AREA)


def test_the_disc_does_not_look_at_the_test_masks():
    label = np.zeros((1, 32, 32), np.uint8)
    label[0, 15:17, 15:17] = 1
    assert foreground_floors(label)["centred_disc"]["acc"] == pytest.approx(1 - PRIOR_AREA + 4 / 1024, abs=0.01)


@pytest.mark.parametrize("size", [(32, 32), (21, 40)])
@pytest.mark.parametrize("area", [0, 0.1, 0.25, 0.6, 0.95, 1])
def test_a_disc_has_its_area_and_lies_in_the_middle(size, area):
    disc = centred_disc(size, area)
    assert disc.mean() == pytest.approx(area, abs=8 / disc.size)
    assert (disc == disc[::-1]).all()
    assert (disc == disc[:, ::-1]).all()


def test_mean_area_counts_labelled_pixels():
    assert mean_area(np.array([[[0, 1], [255, 255]]], np.uint8)) == 0.5
    assert mean_area(np.full((1, 2, 2), 255, np.uint8)) == 0


def test_polarity_is_a_diagnostic_and_no_score(masks):
    pred, label = masks
    given, turned = (polarity_diagnostic(confusion(p, label, 2)) for p in (pred, 1 - pred))
    assert (given["inverted"], turned["inverted"]) == (False, True)
    assert given["best_polarity_iou"] == turned["best_polarity_iou"] == foreground_scores(confusion(*masks, 2))["iou"]
    assert not set(given) & set(foreground_scores(confusion(*masks, 2)))


@pytest.mark.parametrize("shape", [(0, 2, 2), (3, 3, 3), (2, 2)])
def test_other_matrices_are_refused(shape):
    for function in (foreground_scores, bootstrap, polarity_diagnostic):
        with pytest.raises(MedsegError, match=r"wanted \(N, 2, 2\)"):
            function(np.zeros(shape, int))
