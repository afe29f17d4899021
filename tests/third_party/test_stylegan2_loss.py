"""Losses and regularisers against cases that can be worked out by hand."""

import math

import pytest
import torch

from stylegan2_ada_pytorch import (
    Generator,
    discriminator_loss,
    generator_loss,
    lazy_adam,
    mix_styles,
    path_length_penalty,
    r1_penalty,
)


def small_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(6, 0, 6, 16, 1, {"num_layers": 2}, {"channel_base": 64})


def test_losses_are_cross_entropies():
    real, fake = torch.randn(5, 1), torch.randn(5, 1)
    wanted_G = -torch.log(torch.sigmoid(fake))[:, 0]
    wanted_D = -(torch.log(torch.sigmoid(real)) + torch.log(1 - torch.sigmoid(fake)))[:, 0]
    torch.testing.assert_close(generator_loss(fake), wanted_G)
    torch.testing.assert_close(discriminator_loss(real, fake), wanted_D)


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(1 * 4 * 4, 1, requires_grad=True)
    real = torch.randn(3, 1, 4, 4, requires_grad=True)
    penalty = r1_penalty(real, real.flatten(1) @ weight)
    torch.testing.assert_close(penalty, weight.square().sum().expand(3))
    penalty.sum().backward()
    torch.testing.assert_close(weight.grad, 6 * weight.detach())


def test_path_length_of_a_linear_generator():
    matrix = torch.randn(5, 64, dtype=torch.float64, requires_grad=True)
    ws = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    image = (ws[:, 0] @ matrix).view(4, 1, 8, 8)  # only the first layer matters
    noise = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    penalty, mean = path_length_penalty(image, ws, torch.tensor(2.0).double(), noise)
    lengths = ((noise.flatten(1) / 8) @ matrix.T).norm(dim=1) / math.sqrt(3)
    wanted_mean = 2 + 0.01 * (lengths.mean() - 2)
    torch.testing.assert_close(mean, wanted_mean.detach())
    torch.testing.assert_close(penalty, (lengths - wanted_mean).square())
    assert not mean.requires_grad
    got = torch.autograd.grad(penalty.sum(), matrix, retain_graph=True)
    wanted = torch.autograd.grad((lengths - wanted_mean).square().sum(), matrix)  # the mean is inside the graph
    torch.testing.assert_close(got, wanted)


def test_path_length_reaches_every_layer_of_the_generator():
    G = small_generator()
    ws = G.mapping(torch.randn(4, 6))
    penalty, mean = path_length_penalty(G.synthesis(ws), ws, torch.zeros(()))
    penalty.mean().backward()
    assert mean > 0
    for name in ("mapping.fc0.weight", "synthesis.b4.conv1.weight", "synthesis.b16.conv0.affine.weight"):
        gradient = G.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_mixing_changes_the_layers_from_one_cutoff_on_and_leaves_the_mean_w():
    G = small_generator()
    ws = G.mapping(torch.randn(3, 6))
    mean, source = G.mapping.w_avg.clone(), torch.Generator().manual_seed(1)
    cutoffs = set()
    for _ in range(40):
        mixed = mix_styles(G.mapping, ws, probability=1.0, generator=source)
        same = (mixed == ws).all(dim=2)
        cutoff = int(same[0].sum())
        assert same[:, :cutoff].all() and not same[:, cutoff:].any()
        cutoffs.add(cutoff)
    assert cutoffs == set(range(1, G.num_ws))
    assert torch.equal(G.mapping.w_avg, mean)
    assert mix_styles(G.mapping, ws, probability=0.0) is ws


def test_mixing_is_reproducible():
    G = small_generator()
    ws = G.mapping(torch.randn(3, 6))
    first, second = (mix_styles(G.mapping, ws, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("interval", "lr", "beta"), [(4, 0.002, 0.991992), (16, 0.0023529, 0.990585), (None, 0.0025, 0.99)]
)
def test_lazy_adam_settings(interval, lr, beta):
    settings = lazy_adam(0.0025, interval=interval)
    assert settings["lr"] == pytest.approx(lr, rel=1e-4)
    assert settings["betas"] == pytest.approx((0.0, beta), rel=1e-5)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)], **settings)
