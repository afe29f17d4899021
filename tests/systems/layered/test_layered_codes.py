"""Codes of the layered GAN: the law of c and its parent."""

import math

import pytest
import torch

from medseg_gan.systems.layered.codes import Prior


def test_the_parent_is_the_group_of_neighbouring_classes():
    prior = Prior("categorical", 12, 3)
    torch.manual_seed(0)
    c, c_sup = prior.draw(500, "cpu")
    assert c.shape == (500, 12) and c_sup.shape == (500, prior.parent_dim) == (500, 4)
    for code in (c, c_sup):
        assert ((code == 0) | (code == 1)).all() and (code.sum(dim=1) == 1).all()
    assert torch.equal(c.argmax(dim=1) // 3, c_sup.argmax(dim=1))


def test_classes_are_equally_likely():
    torch.manual_seed(0)
    c, _ = Prior("categorical", 12, 3).draw(12_000, "cpu")
    assert (c.sum(dim=0) - 1000).abs().max() < 150


def test_a_gaussian_code_is_its_own_parent():
    prior = Prior("gaussian", 4)
    torch.manual_seed(0)
    c, c_sup = prior.draw(4000, "cpu")
    assert torch.equal(c, c_sup) and prior.parent_dim == 4
    torch.testing.assert_close(c.mean(dim=0), torch.zeros(4), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(c.T), torch.eye(4), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("prior", "ignorance"), [(Prior("categorical", 12, 3), math.log(12)), (Prior("gaussian", 6), 3.0)]
)
def test_an_encoder_that_knows_nothing_pays_the_entropy(prior, ignorance):
    torch.manual_seed(0)
    c, _ = prior.draw(20_000, "cpu")
    blind = prior.loss(torch.zeros_like(c), c).item()
    assert blind == pytest.approx(ignorance, rel=0.02)
    assert prior.loss(50 * c if prior.kind == "categorical" else c, c).item() < 1e-3
