"""Shapes tell a network's configuration."""

from __future__ import annotations

import pytest
from official_pickles import discriminator, generator

from medseg_gan.weights.architecture import channel_rule, discriminator_shape, generator_shape
from medseg_gan.weights.pickles import RefusedError


@pytest.mark.parametrize("base", [16, 128, 4096, 16_384, 32_768])
@pytest.mark.parametrize("most", [1, 16, 512])
@pytest.mark.parametrize("top", [8, 64, 1024])
def test_a_rule_is_found_that_gives_the_same_channels(base: int, most: int, top: int) -> None:
    channels = {r: min(base // r, most) for r in (4, 8, 16, 32, 64, 128, 256, 512, 1024) if r <= top}
    rule = channel_rule(channels, None, None)
    assert {r: min(rule["channel_base"] // r, rule["channel_max"]) for r in channels} == channels
    assert channel_rule(channels, base, most) == {"channel_base": base, "channel_max": most}


def test_channels_without_a_rule_are_refused() -> None:
    with pytest.raises(RefusedError, match="channels at"):
        channel_rule({4: 8, 8: 2, 16: 8}, None, None)
    with pytest.raises(RefusedError, match="16 channels at 4 x 4, but channel_base 128 and channel_max 8 mean 8"):
        channel_rule({4: 16, 8: 16, 16: 8}, 128, 8)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_shapes_of_both_networks(architecture: str) -> None:
    shape = generator_shape(generator(32, 3, 1, architecture).state_dict())
    wanted = {"z_dim": 8, "c_dim": 3, "w_dim": 12, "img_resolution": 32, "img_channels": 1, "num_layers": 2}
    assert wanted | {"architecture": architecture} == {name: shape[name] for name in (*wanted, "architecture")}
    assert shape["channels"] == {4: 16, 8: 16, 16: 8, 32: 4}
    shape = discriminator_shape(discriminator(32, 3, 1, architecture).state_dict())
    wanted = {"c_dim": 3, "img_resolution": 32, "img_channels": 1, "cmap_dim": 16, "num_layers": 8}
    assert wanted | {"architecture": architecture} == {name: shape[name] for name in (*wanted, "architecture")}
    assert (shape["channels"], shape["mbstd_num_channels"]) == ({4: 16, 8: 16, 16: 8, 32: 4}, 1)


def test_a_missing_resolution_is_refused() -> None:
    state = {name: t for name, t in generator(32).state_dict().items() if ".b16." not in name}
    with pytest.raises(RefusedError, match="4, 8, 32"):
        generator_shape(state)
