"""Terms of projecting an image."""

from __future__ import annotations

import pytest
import torch

from medseg_gan.losses.projection import feature_distance, noise_correlation, pyramid_distance


def maps(seed: int, batch: int = 2) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, side, side, generator=draws) for channels, side in ((4, 8), (6, 4))]


def test_distances_are_zero_at_the_target_symmetric_and_per_image() -> None:
    one, other = maps(0), maps(1)
    assert torch.equal(feature_distance(one, one), torch.zeros(2))
    torch.testing.assert_close(feature_distance(one, other), feature_distance(other, one))
    alone = feature_distance([level[1:] for level in one], [level[1:] for level in other])
    torch.testing.assert_close(feature_distance(one, other)[1:], alone)


def test_feature_distance_looks_at_directions() -> None:
    one = maps(0)
    scaled = [3 * level for level in one]
    torch.testing.assert_close(feature_distance(one, scaled), torch.zeros(2), atol=1e-6, rtol=0)
    opposite = [-level for level in one]
    torch.testing.assert_close(feature_distance(one, opposite), torch.full((2,), 8.0))  # 4 on each of two levels


def test_pyramid_distance_of_a_constant_shift_is_its_square_at_every_scale() -> None:
    image = torch.randn(1, 1, 32, 32)
    assert pyramid_distance(image + 0.5, image).item() == pytest.approx(0.25, rel=1e-5)


def test_pyramid_distance_punishes_large_shapes_more_than_fine_noise() -> None:
    image = torch.zeros(1, 1, 32, 32)
    stripes = torch.ones(32).view(1, 1, 32, 1) * (torch.arange(32) % 2 * 2 - 1).view(1, 1, 1, 32)
    halves = torch.ones(32).view(1, 1, 32, 1) * ((torch.arange(32) >= 16) * 2 - 1).view(1, 1, 1, 32)
    assert pyramid_distance(stripes, image).item() == pytest.approx(1 / 3)
    assert pyramid_distance(halves.float(), image).item() == pytest.approx(1)


def test_white_noise_has_no_correlation_and_a_picture_has_much() -> None:
    white = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    axis = torch.linspace(-1, 1, 64)
    smooth = axis[:, None] + axis[None, :]
    smooth = (smooth - smooth.mean()) / smooth.std()
    assert noise_correlation(white).item() < 0.1
    assert noise_correlation(smooth).item() > 1
    assert noise_correlation(torch.ones(4, 4)).item() == pytest.approx(2)
    assert noise_correlation(torch.ones(16, 16)).item() == pytest.approx(2 + 2 * 4**2)  # averaged, then doubled


def test_correlation_that_only_shows_at_a_coarser_scale_is_found() -> None:
    white = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    blocks = (
        torch.randn(2, 2, generator=torch.Generator().manual_seed(1)).repeat_interleave(8, 0).repeat_interleave(8, 1)
    )
    mixed = white + 0.5 * blocks
    assert noise_correlation(mixed / mixed.std()) > 4 * noise_correlation(white)
