"""Networks of the layered GAN: sizes, what each layer may depend on, spectral norm, the shared trunk."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from medseg_gan.systems.layered.networks import (
    LayeredDiscriminator,
    LayeredGenerator,
    MaskEncoder,
    down_widths,
    levels,
    up_widths,
)

CODES = {"z_dim": 5, "c_dim": 6, "c_sup_dim": 3}
SMALL = {**CODES, "base": 8, "widest": 2, "blocks": 1, "smallest": 4}


def latents(count=2):
    c = torch.eye(6)[torch.arange(count) % 6]
    return torch.randn(count, 5), c, torch.eye(3)[torch.arange(count) % 3]


def generator(size=16, channels=3):
    torch.manual_seed(0)
    return LayeredGenerator(size, channels, **SMALL).eval()


def convolutions(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_layers_have_the_images_size_and_range(size):
    background, foreground, mask = generator(size)(*latents())
    assert background.shape == foreground.shape == (2, 3, size, size)
    assert mask.shape == (2, 1, size, size)
    assert background.abs().max() <= 1 and foreground.abs().max() <= 1
    assert mask.min() >= 0 and mask.max() <= 1
    assert all(layer.dtype == torch.float32 for layer in (background, foreground, mask))


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_judges_take_any_size_to_one_number_each(size):
    D = LayeredDiscriminator(size, 3, c_dim=6, first=4)
    logits, code = D(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 1) and code.shape == (2, 6)
    assert MaskEncoder(size, 3, first=4)(torch.rand(2, 1, size, size)).shape == (2, 3)


def test_grey_pictures_have_grey_layers():
    assert [layer.shape[1] for layer in generator(channels=1)(*latents())] == [1, 1, 1]


def test_widths_at_128_are_the_papers():
    assert up_widths(128, 64, 16) == [64 * k for k in (16, 8, 4, 2, 1, 1)]
    assert up_widths(64, 64, 16) == [64 * k for k in (16, 8, 4, 2, 1)]
    assert down_widths(128, 64) == [64, 128, 256, 512, 1024]
    G = LayeredGenerator(128, 3, 100, 200, 20)
    up = [block[1].in_channels for block in G.start.up] + [G.start.up[-1][1].out_channels]
    assert up == [64 * k for k in (16, 8, 4, 2, 1, 1)]
    assert (G.mask.in_channels, G.colour[0].in_channels) == (32, 16)
    assert len(G.parent.body) == len(G.child.body) == 2
    assert G.start.linear[0].in_features == 120 and G.background[0].linear[0].in_features == 100


@pytest.mark.parametrize("size", [4, 24, 100])
def test_sizes_that_are_no_power_of_two_are_refused(size):
    with pytest.raises(ValueError, match="power of two"):
        levels(size)


def test_mask_depends_on_z_and_the_parent_alone():
    G = generator()
    z, c, c_sup = latents()
    _, foreground, mask = G(z, c, c_sup)
    _, other_foreground, same_mask = G(z, c.roll(1, dims=1), c_sup)
    assert torch.equal(mask, same_mask)
    assert not torch.equal(foreground, other_foreground)
    assert not torch.equal(mask, G(z, c, c_sup.roll(1, dims=1))[2])
    assert not torch.equal(mask, G(z + 1, c, c_sup)[2])


def test_background_depends_on_z_alone():
    G = generator()
    z, c, c_sup = latents()
    background = G(z, c, c_sup)[0]
    assert torch.equal(background, G(z, c.roll(1, dims=1), c_sup.roll(1, dims=1))[0])
    assert not torch.equal(background, G(z + 1, c, c_sup)[0])


def test_layers_share_no_weights():
    G = generator()
    background, _, _ = G(*latents())
    background.sum().backward()
    touched = {name.split(".")[0] for name, weight in G.named_parameters() if weight.grad is not None}
    assert touched == {"background"}


@pytest.mark.parametrize("norm", ["sn", "sn_bn"])
def test_every_layer_of_the_discriminator_is_spectrally_normalised(norm):
    D = LayeredDiscriminator(32, 3, c_dim=6, first=8, norm=norm)
    assert convolutions(D)
    for layer in convolutions(D):
        assert parametrize.is_parametrized(layer, "weight")
    for _ in range(50):
        D(torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1))
    D.eval()
    for layer in convolutions(D):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in D.modules()) == (norm == "sn_bn")


def test_the_code_encoder_shares_the_trunk_and_has_two_layers_of_its_own():
    D = LayeredDiscriminator(16, 3, c_dim=6, first=8)
    D(torch.randn(2, 3, 16, 16))[1].sum().backward()
    touched = {name.split(".")[0] for name, weight in D.named_parameters() if weight.grad is not None}
    assert touched == {"trunk", "E_x"}
    assert len(convolutions(D.E_x)) == len(convolutions(D.judge)) == 2


def test_weights_begin_orthogonal():
    for layer in convolutions(generator()):
        weight = layer.weight.flatten(1)
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-4, rtol=0)
