"""Losses of the layered GAN against values known by hand: hinge, information, masks, soft cross-entropy."""

import math

import pytest
import torch
from torch.nn import functional

from medseg_gan.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss
from medseg_gan.losses.information import categorical_code_loss, gaussian_code_loss
from medseg_gan.losses.masks import background_loss, binarisation_loss, size_loss
from medseg_gan.losses.segmentation import cross_entropy, soft_cross_entropy


def column(*values):
    return torch.tensor(values).reshape(-1, 1)


def test_hinge_counts_what_is_inside_the_margin():
    assert hinge_discriminator_loss(column(2.0, 0.5), column(-3.0, 1.0)).item() == pytest.approx(0.25 + 1.0)
    assert hinge_discriminator_loss(column(1.0), column(-1.0)).item() == 0
    assert hinge_generator_loss(column(2.0, -1.0)).item() == pytest.approx(-0.5)


def test_generator_and_discriminator_pull_a_fakes_logit_apart():
    fake = column(0.3).requires_grad_()
    (of_G,) = torch.autograd.grad(hinge_generator_loss(fake), fake)
    (of_D,) = torch.autograd.grad(hinge_discriminator_loss(column(0.0), fake), fake)
    assert of_G < 0 < of_D  # both are minimised


@pytest.mark.parametrize("d", [2, 12, 200])
def test_ignorance_of_a_categorical_code_costs_log_d(d):
    code = functional.one_hot(torch.arange(d), d).float()
    assert categorical_code_loss(torch.zeros(d, d), code).item() == pytest.approx(math.log(d), rel=1e-5)
    assert categorical_code_loss(1000 * code, code).item() == pytest.approx(0)


def test_a_gaussian_code_is_summed_over_its_components():
    code = torch.tensor([[1.0, -2.0], [0.0, 1.0]])
    assert gaussian_code_loss(torch.zeros(2, 2), code).item() == pytest.approx((5 + 1) / 2 / 2)
    assert gaussian_code_loss(code, code).item() == 0


def test_binarisation_is_the_distance_to_the_nearer_end():
    mask = torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0]).reshape(1, 1, 1, 5)
    assert binarisation_loss(mask).item() == pytest.approx((0.1 + 0.5 + 0.2) / 5)


def test_size_loss_asks_each_mask_for_its_own_area():
    mask = torch.cat([torch.full((1, 1, 4, 4), 0.05), torch.full((1, 1, 4, 4), 0.9)])
    assert size_loss(mask).item() == pytest.approx((0.25 - 0.05) / 2)
    assert size_loss(mask[1:]).item() == 0


def test_background_loss_against_hand_values():
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)  # F(x_b) is 0 and 1/2
    assert background_loss(logits).item() == pytest.approx(math.log(2) / 2, abs=1e-5)


def test_background_loss_falls_as_foreground_leaves():
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(background_loss(logits), logits)
    assert (gradient[:, 1] > 0).all() and (gradient[:, 0] < 0).all()


def test_background_loss_has_a_gradient_where_the_segmenter_is_sure():
    logits = torch.tensor([-40.0, 40.0]).reshape(1, 2, 1, 1).requires_grad_()
    assert background_loss(logits).item() == pytest.approx(80)
    (gradient,) = torch.autograd.grad(background_loss(logits), logits)
    assert gradient.abs().min() > 0.9


def test_soft_cross_entropy_is_the_binary_one_of_a_soft_mask():
    logits, mask = torch.randn(2, 2, 4, 4), torch.rand(2, 4, 4)
    F = logits.softmax(dim=1)[:, 1]
    wanted = -(mask * F.log() + (1 - mask) * (1 - F).log()).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, torch.stack([1 - mask, mask], dim=1)), wanted)


def test_soft_cross_entropy_of_hard_labels_is_cross_entropy():
    logits, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    probs = functional.one_hot(label, 3).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(soft_cross_entropy(logits, probs), cross_entropy(logits, label))
