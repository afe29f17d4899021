"""GrabCut finds what differs in colour from the rim, and nothing it was not shown."""

import cv2
import numpy as np
import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.grabcut import grabcut_floor, grabcut_masks


@pytest.fixture
def discs():
    """Six pictures of a bright disc on darker ground, with noise, and their masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    at = rng.integers(20, 28, (6, 2, 1, 1))
    mask = ((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2 < 100).astype(np.uint8)
    return (np.where(mask, 0.6, -0.6) + 0.05 * rng.standard_normal(mask.shape))[:, None], mask


def test_an_object_of_its_own_colour_is_found(discs):
    images, mask = discs
    found = grabcut_floor(images, mask)
    assert found["iou"] > 0.9
    assert set(found) == {"acc", "iou", "iou_img", "miou"}
    assert grabcut_floor(np.repeat(images, 3, axis=1), mask) == found


def test_the_rim_is_background_always():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 40, 60))
    masks = grabcut_masks(images)
    assert masks.shape == (2, 40, 60)
    assert set(np.unique(masks)) <= {0, 1}
    masks[:, 4:36, 6:54] = 0
    assert not masks.any()


def test_a_mask_does_not_depend_on_the_other_pictures(discs):
    images = discs[0] + 0.5 * np.random.default_rng(1).standard_normal(discs[0].shape)
    together = grabcut_masks(images)
    np.testing.assert_array_equal(grabcut_masks(images[::-1])[::-1], together)
    np.testing.assert_array_equal(grabcut_masks(images[3:4])[0], together[3])


def test_every_picture_sees_the_same_random_numbers(discs, monkeypatch):
    drawn = []
    monkeypatch.setattr(cv2, "grabCut", lambda *_: drawn.append(float(cv2.randu(np.zeros((1, 1)), 0, 1)[0, 0])))
    grabcut_masks(discs[0])
    cv2.setRNGSeed(5)
    grabcut_masks(discs[0])
    assert len(drawn) == 12
    assert len(set(drawn)) == 1


@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_an_even_picture_is_no_accident(value):
    assert grabcut_masks(np.full((1, 1, 16, 16), value)).shape == (1, 16, 16)


def test_no_pictures_give_no_masks():
    assert grabcut_masks(np.zeros((0, 1, 32, 32))).shape == (0, 32, 32)


def test_what_is_no_picture_is_refused():
    with pytest.raises(MedsegError, match="wanted"):
        grabcut_masks(np.zeros((1, 2, 32, 32)))
    with pytest.raises(MedsegError, match="wanted"):
        grabcut_masks(np.zeros((1, 1, 8, 32)))
    with pytest.raises(MedsegError, match="not finite"):
        grabcut_masks(np.full((1, 1, 32, 32), np.nan))
