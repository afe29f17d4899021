"""A grey network sees and makes the grey of what the colour network does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_pickles import discriminator, generator

from medseg_gan.errors import MedsegError
from medseg_gan.weights.grey import REC601, to_grey


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_grey_images_are_the_grey_of_the_colour_images(architecture: str) -> None:
    G = generator(architecture=architecture)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    grey = to_grey(G)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    colour = G(z, noise_mode="const")
    luma = torch.tensor(REC601)[None, :, None, None]
    assert grey.img_channels == grey.init_kwargs["img_channels"] == 1
    torch.testing.assert_close(grey(z, noise_mode="const"), (colour * luma).sum(1, keepdim=True), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in G.state_dict().items())
    assert not grey.training


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_grey_image_is_judged_as_its_three_equal_channels(architecture: str) -> None:
    D = discriminator(architecture=architecture)
    image = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_grey(D)(image), D(image.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-5)


def test_the_weights_of_the_colours_keep_grey_as_it_is() -> None:
    assert sum(REC601) == pytest.approx(1)


def test_frozen_layers_stay_frozen() -> None:
    D = discriminator(block_kwargs={"freeze_layers": 2}).train().requires_grad_(True)
    grey = to_grey(D)
    assert [n for n, _ in grey.named_parameters()] == [n for n, _ in D.named_parameters()]
    assert grey.training and all(p.requires_grad for p in grey.parameters())


@pytest.mark.parametrize("build", [generator, discriminator])
def test_only_colour_networks_turn_grey(build: Any) -> None:
    with pytest.raises(MedsegError, match="1 channels, wanted 3"):
        to_grey(build(channels=1))
