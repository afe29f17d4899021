"""Segmentation losses: known values, ignored pixels, class weights."""

import math

import pytest
import torch
from torch.nn import functional

from medseg_gan.losses.segmentation import class_weights, cross_entropy, soft_dice, weighted_ce_dice

K = 3


def logits_of(label, confidence=30.0):
    """Logits that are sure of `label`."""
    return confidence * functional.one_hot(label, K).permute(0, 3, 1, 2).float()


@pytest.fixture
def label():
    return torch.randint(0, K, (2, 8, 8), generator=torch.Generator().manual_seed(0))


def test_a_sure_and_right_prediction_costs_nothing(label):
    assert weighted_ce_dice(logits_of(label), label, torch.ones(K)) < 1e-4


def test_dice_of_halves_is_known_by_hand():
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    label[:, 1] = 1
    pred = torch.zeros_like(label)  # class 0: 2 * 2 / (4 + 2); class 1: 0; class 2: absent in both, 1
    assert soft_dice(logits_of(pred), label).item() == pytest.approx(1 - (2 / 3 + 0 + 1) / 3, abs=1e-4)


@pytest.mark.parametrize("loss", [cross_entropy, soft_dice, lambda x, y: weighted_ce_dice(x, y, torch.rand(K) + 0.1)])
def test_unlabelled_pixels_count_nowhere(label, loss):
    label[:, :4] = 255
    logits = torch.randn(2, K, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(logits, label), logits)
    assert (gradient[:, :, :4] == 0).all()
    assert (gradient[:, :, 4:] != 0).any()


def test_dice_counts_over_the_whole_batch(label):
    logits = torch.randn(2, K, 8, 8)
    side_by_side = torch.cat([logits[:1], logits[1:]], dim=3), torch.cat([label[:1], label[1:]], dim=2)
    torch.testing.assert_close(soft_dice(logits, label), soft_dice(*side_by_side))


def test_weights_go_with_the_root_of_rarity():
    weights = class_weights(torch.tensor([100.0, 4.0, 0.0, 1.0]))
    assert weights[1] / weights[0] == pytest.approx(math.sqrt(25))
    assert weights[2] == 0
    assert weights[weights > 0].mean() == pytest.approx(1)
    torch.testing.assert_close(class_weights(torch.tensor([1.0, 0.04, 0.0, 0.01])), weights)
