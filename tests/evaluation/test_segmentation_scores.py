"""Scores: equal to Ignite's and MONAI's, known by hand on small matrices, complete in the files."""

import numpy as np
import pytest
import torch
from ignite.metrics import ConfusionMatrix, DiceCoefficient, IoU
from monai.metrics import MeanIoU
from torch.nn import functional

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.segmentation import confusion, iou_per_class, per_image_miou, scores

K = 4


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    label = rng.integers(0, K - 1, (5, 8, 8)).astype(np.uint8)  # class 3 is never labelled
    label[0][label[0] == 1] = 0
    pred = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, K - 1, label.shape)).astype(np.uint8)
    return pred, label


def one_hot(maps):
    return functional.one_hot(torch.as_tensor(maps).long(), K).permute(0, 3, 1, 2).float()


def test_confusion_sums_to_ignites(maps):
    pred, label = maps
    label[2, :3] = 255
    metric = ConfusionMatrix(K)
    metric.update((one_hot(pred), torch.as_tensor(label).long()))
    ours = confusion(pred, label, K)
    assert (ours.sum(axis=0) == metric.compute().numpy()).all()
    assert ours[2].sum() == 5 * 8
    for n in range(5):
        assert (confusion(pred[n : n + 1], label[n : n + 1], K)[0] == ours[n]).all()


def test_iou_and_dice_are_ignites(maps):
    metric = ConfusionMatrix(K)
    iou, dice = IoU(metric), DiceCoefficient(metric)
    metric.update((one_hot(maps[0]), torch.as_tensor(maps[1]).long()))
    found = scores(confusion(*maps, K).sum(axis=0))
    assert found["iou_per_class"] == pytest.approx(iou.compute().tolist())
    assert found["dice_per_class"] == pytest.approx(dice.compute().tolist())
    assert found["miou"] == pytest.approx(iou.compute().mean().item())


def test_per_image_miou_is_monais(maps):
    metric = MeanIoU(reduction="mean")
    metric(one_hot(maps[0]), one_hot(maps[1]))
    assert per_image_miou(confusion(*maps, K)) == pytest.approx(metric.aggregate().item())


def test_scores_of_a_small_matrix_are_known_by_hand():
    matrix = np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]])
    found = scores(matrix)
    assert found["iou_per_class"] == [0.75, 0.5, 0.0]
    assert found["miou"] == pytest.approx(1.25 / 3)  # the absent class counts as 0, as DatasetGAN's
    assert found["nanmean_miou"] == pytest.approx(0.625)
    assert found["foreground_miou"] == pytest.approx(0.25)
    assert found["dice_per_class"] == pytest.approx([12 / 14, 4 / 6, 0])


def test_dataset_level_is_not_the_mean_of_images():
    matrices = np.array([[[9, 0], [0, 1]], [[0, 0], [5, 5]]])
    assert iou_per_class(matrices.sum(axis=0)).tolist() == [9 / 14, 6 / 11]
    assert per_image_miou(matrices) == pytest.approx((1 + 0.5) / 2)


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(MedsegError, match=r"\(1, 2, 2\), label \(1, 3, 3\)"):
        confusion(np.zeros((1, 2, 2), int), np.zeros((1, 3, 3), int), 2)
