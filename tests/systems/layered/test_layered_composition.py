"""Composition of layers: trivial masks, known moves in pixels, nothing enlarged, contrast inside its range."""

import pytest
import torch

from medseg_gan.systems.layered.composition import (
    Perturbation,
    change_contrast,
    compose,
    draw_affine,
    move,
    perturbed_composition,
)

STILL = Perturbation(shift=0, degrees=0, shrink=0)
SIZE = 16


def layers(count=4, size=SIZE):
    background, foreground = torch.rand(2, count, 3, size, size) * 2 - 1
    return background, foreground, torch.rand(count, 1, size, size)


def theta(dx=0.0, dy=0.0, count=1):
    """Moves by so many pixels to the right and down."""
    return torch.tensor([[1, 0, -2 * dx / SIZE], [0, 1, -2 * dy / SIZE]]).expand(count, 2, 3)


def square(row, column, side=4, size=SIZE):
    mask = torch.zeros(1, 1, size, size)
    mask[..., row : row + side, column : column + side] = 1
    return mask


def test_an_empty_mask_shows_the_background_and_a_full_one_the_foreground():
    background, foreground, mask = layers()
    assert torch.equal(compose(background, foreground, torch.zeros_like(mask)), background)
    torch.testing.assert_close(compose(background, foreground, torch.ones_like(mask)), foreground)
    half = compose(background, foreground, torch.full_like(mask, 0.25))
    torch.testing.assert_close(half, 0.75 * background + 0.25 * foreground)


def test_no_perturbation_changes_nothing():
    background, foreground, mask = layers()
    made, moved = perturbed_composition(background, foreground, mask, STILL)
    torch.testing.assert_close(moved, mask, atol=1e-5, rtol=0)
    torch.testing.assert_close(made, compose(background, foreground, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", [Perturbation(), Perturbation(0.3, 90, -1)])
def test_an_empty_mask_shows_the_background_wherever_it_is_moved(how):
    background, foreground, mask = layers()
    assert torch.equal(perturbed_composition(background, foreground, torch.zeros_like(mask), how)[0], background)


def test_a_known_shift_moves_image_and_mask_alike():
    mask = square(4, 6)
    foreground = torch.rand(1, 3, SIZE, SIZE) * mask
    moved, moved_mask = move(foreground, mask, theta(dx=3, dy=-2))
    torch.testing.assert_close(moved_mask, square(2, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved, foreground.roll((-2, 3), dims=(2, 3)), atol=1e-5, rtol=0)


def test_what_moves_out_leaves_background_behind():
    full = torch.ones(1, 1, SIZE, SIZE)
    _, mask = move(torch.ones(1, 3, SIZE, SIZE), full, theta(dx=5))
    assert (mask[..., :5] == 0).all()
    torch.testing.assert_close(mask[..., 5:], full[..., 5:], atol=1e-5, rtol=0)


def test_draws_move_by_at_most_the_shift_of_the_side():
    drawn = draw_affine(2000, Perturbation(shift=0.125, degrees=0, shrink=0), "cpu")
    pixels = drawn[:, :, 2] / 2 * SIZE
    assert pixels.abs().max() <= 0.125 * SIZE
    assert pixels.min() < -1.9 and pixels.max() > 1.9
    torch.testing.assert_close(drawn[:, :, :2], torch.eye(2).expand(2000, 2, 2))


def test_a_foreground_is_never_enlarged():
    drawn = draw_affine(2000, Perturbation(shift=0.1, degrees=30, shrink=-0.4), "cpu")
    area = 1 / torch.linalg.det(drawn[:, :, :2])  # of what is shown, over what was drawn
    assert area.max() <= 1 + 1e-5
    assert area.min().item() == pytest.approx(2 ** (-0.4 * 2), abs=0.01)
    assert (drawn[:, :, :2] @ drawn[:, :, :2].mT)[:, 0, 1].abs().max() < 1e-5  # isotropic, no shear


def test_a_shrunken_mask_keeps_its_place_and_loses_area():
    mask = square(4, 4, side=8)
    small = torch.tensor([[[2.0, 0, 0], [0, 2.0, 0]]])  # the inverse of scaling by a half
    _, moved = move(mask.expand(-1, 3, -1, -1), mask, small)
    torch.testing.assert_close(moved, square(6, 6, side=4), atol=1e-5, rtol=0)


def test_drawn_maps_are_inverses_of_translate_rotate_scale():
    """A point of the foreground is shown at t + R(a) 2^s p (the paper's equation 9)."""
    torch.manual_seed(3)
    drawn = draw_affine(50, Perturbation(0.2, 40, -0.5), "cpu").double()
    last = torch.tensor([[[0.0, 0, 1]]], dtype=torch.float64).expand(50, 1, 3)
    forward = torch.linalg.inv(torch.cat([drawn, last], dim=1))
    linear, shift = forward[:, :2, :2], forward[:, :2, 2]
    scale = torch.linalg.det(linear).sqrt()
    assert (scale >= 2**-0.5 - 1e-5).all() and (scale <= 1 + 1e-5).all()
    assert shift.abs().max() <= 0.4 + 1e-5 and shift.abs().max() > 0.35
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).rad2deg()
    assert angle.abs().max() <= 40 and angle.min() < -30 < 30 < angle.max()


def test_each_image_is_moved_by_a_draw_of_its_own():
    assert len({tuple(row.flatten().tolist()) for row in draw_affine(20, Perturbation(), "cpu")}) == 20


@pytest.mark.parametrize("limits", [(0.7, 0.7), (1.3, 1.3), (0.5, 2.0)])
def test_contrast_stays_in_each_images_own_range(limits):
    background, _, _ = layers()
    background = background * torch.tensor([0.1, 0.3, 0.5, 0.9]).reshape(4, 1, 1, 1)
    changed = change_contrast(background, limits)
    assert (changed.amax((2, 3)) <= background.amax((2, 3))).all()
    assert (changed.amin((2, 3)) >= background.amin((2, 3))).all()


def test_lower_contrast_keeps_the_mean_and_scales_the_spread():
    background, _, _ = layers()
    changed = change_contrast(background, (0.7, 0.7))
    torch.testing.assert_close(changed.mean((2, 3)), background.mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(changed.std((2, 3)), 0.7 * background.std((2, 3)))


def test_contrast_is_the_backgrounds_alone():
    background, foreground, mask = layers()
    how = Perturbation(0, 0, 0, (0.5, 0.5))
    torch.testing.assert_close(
        perturbed_composition(background, foreground, torch.ones_like(mask), how)[0], foreground, atol=1e-5, rtol=0
    )
    empty, _ = perturbed_composition(background, foreground, torch.zeros_like(mask), how)
    torch.testing.assert_close(empty, change_contrast(background, (0.5, 0.5)))
