"""Groupings compared by hand, by law, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.clustering import (
    adjusted_rand_index,
    contingency,
    mean_segmentation_covering,
    normalized_mutual_information,
)

LABEL = np.array([[[0, 0, 1, 1], [0, 0, 1, 1]]])


@pytest.fixture
def random_maps():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (6, 12, 12))
    return np.where(rng.random(label.shape) < 0.6, (label + 2) % 4, rng.integers(0, 5, label.shape)), label


def image(*rows):
    return np.array([rows])


def test_nmi_of_known_tables():
    label = np.array([0, 0, 1, 1])
    assert normalized_mutual_information(np.array([7, 7, 3, 3]), label) == pytest.approx(1)
    assert normalized_mutual_information(np.array([0, 1, 0, 1]), label) == pytest.approx(0)
    # Clusters {a, b}, {c}, {d}: I = H(label) = ln 2, H(pred) = 1.5 ln 2.
    assert normalized_mutual_information(np.array([0, 0, 1, 2]), label) == pytest.approx(2 / 2.5)


def test_ari_of_known_tables():
    assert adjusted_rand_index(1 - LABEL, LABEL) == pytest.approx(1)
    # Table [[2, 2], [2, 2]]: 4 pairs together in both, 12 in each, of 28: (4 - 36 / 7) / (12 - 36 / 7).
    pred = image([0, 1, 0, 1], [0, 1, 0, 1])
    assert adjusted_rand_index(pred, LABEL) == pytest.approx((4 - 36 / 7) / (12 - 36 / 7))


def test_covering_of_known_segments():
    # Left half is split 3 + 1, right half is whole: best IoU 3/4 and 1.
    assert mean_segmentation_covering(image([0, 0, 5, 5], [0, 9, 5, 5]), LABEL) == pytest.approx((3 / 4 + 1) / 2)
    # One segment over all: each half covers 4 of 8.
    assert mean_segmentation_covering(np.zeros_like(LABEL), LABEL) == pytest.approx(0.5)
    # Small segments count as much as large ones: IoU 1/8 for one pixel, 7/8 for the rest.
    one = image([1, 0, 0, 0], [0, 0, 0, 0])
    assert mean_segmentation_covering(np.zeros_like(one), one) == pytest.approx((1 / 8 + 7 / 8) / 2)


def test_scores_agree_with_scikit_learn(random_maps):
    pred, label = random_maps
    nmi = normalized_mutual_info_score(label.ravel(), pred.ravel())
    assert normalized_mutual_information(pred.ravel(), label.ravel()) == pytest.approx(nmi)
    ari = np.mean([adjusted_rand_score(t.ravel(), p.ravel()) for p, t in zip(pred, label, strict=True)])
    assert adjusted_rand_index(pred, label) == pytest.approx(ari)


@pytest.mark.parametrize("pred", [np.zeros(6, int), np.arange(6)])
@pytest.mark.parametrize("label", [np.zeros(6, int), np.arange(6), np.array([0, 0, 0, 1, 1, 1])])
def test_degenerate_groupings_agree_with_scikit_learn(pred, label):
    nmi = normalized_mutual_info_score(label, pred)
    assert normalized_mutual_information(pred, label) == pytest.approx(nmi, abs=1e-12)
    ari = adjusted_rand_score(label, pred)
    assert adjusted_rand_index(pred.reshape(1, 2, 3), label.reshape(1, 2, 3)) == pytest.approx(ari, abs=1e-12)


def test_one_segment_alone():
    one = np.zeros((1, 4, 4), int)
    assert normalized_mutual_information(one.ravel(), one.ravel()) == 1
    assert adjusted_rand_index(one, one) == 1
    assert mean_segmentation_covering(one, one) == 1
    halves = np.arange(16).reshape(1, 4, 4) // 8
    assert adjusted_rand_index(halves, one) == 0
    assert mean_segmentation_covering(halves, one) == 0.5
    pixel = np.zeros((1, 1, 1), int)
    assert adjusted_rand_index(pixel, pixel) == 1


def test_names_of_groups_mean_nothing(random_maps):
    pred, label = random_maps
    renamed = np.array([40, -3, 7, 1, 0])[pred]
    assert normalized_mutual_information(renamed.ravel(), label.ravel()) == pytest.approx(
        normalized_mutual_information(pred.ravel(), label.ravel())
    )
    for score in (adjusted_rand_index, mean_segmentation_covering):
        assert score(renamed, label) == pytest.approx(score(pred, label))


def test_images_are_averaged_and_unlabelled_pixels_left_out(random_maps):
    pred, label = random_maps
    for score in (adjusted_rand_index, mean_segmentation_covering):
        each = [score(pred[k : k + 1], label[k : k + 1]) for k in range(len(pred))]
        assert score(pred, label) == pytest.approx(np.mean(each))
        cut = label.copy()
        cut[:, 6:] = 255
        assert score(pred, cut) == pytest.approx(score(pred[:, :6], label[:, :6]))
        cut[0] = 255
        assert score(pred, cut) == pytest.approx(score(pred[1:, :6], label[1:, :6]))


def test_contingency_counts_pairs():
    table = contingency(np.array([5, 5, 2]), np.array([0, 3, 3]))
    assert table.tolist() == [[0, 1], [1, 1]]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(MedsegError, match="shape"):
        normalized_mutual_information(np.zeros(3), np.zeros(4))
    with pytest.raises(MedsegError, match="shape"):
        adjusted_rand_index(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))
    with pytest.raises(MedsegError, match="labelled pixel"):
        mean_segmentation_covering(np.zeros((1, 2, 2)), np.full((1, 2, 2), 255))
    with pytest.raises(MedsegError, match="at least one"):
        normalized_mutual_information(np.zeros(0), np.zeros(0))
