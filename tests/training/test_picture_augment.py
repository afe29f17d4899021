"""Random changes of pictures: flips and crops of the reals, colours of what segmenters see."""

import pytest
import torch

from medseg_gan.training.augment import _turn_hue, flip_and_crop, vary_colour


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pictures(count=64, channels=3, size=16):
    return torch.rand(count, channels, size, size) * 2 - 1


def ramps(count, size=16):
    """x to the right in the first channel, y downwards in the second, at pixel centres of [-1, 1]."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy")).expand(count, 2, size, size)


def test_without_cropping_a_picture_is_itself_or_its_mirror_image():
    image = pictures()
    changed = flip_and_crop(image, 1.0)
    same = (changed - image).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (changed - image.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_images_with_a_left_and_a_right_are_cropped_alone():
    """On ramps x still rises to the right in every crop."""
    x, _ = flip_and_crop(ramps(200), 0.6, mirror=False).unbind(dim=1)
    assert (x[:, 8, -3] > x[:, 8, 2]).all()
    image = pictures()
    torch.testing.assert_close(flip_and_crop(image, 1.0, mirror=False), image, atol=1e-4, rtol=0)


def test_crops_are_squares_inside_the_picture_at_many_places_and_sizes():
    """On ramps the corner pixels tell where a crop lies: their centres are inside, upright, of equal sides."""
    x, y = flip_and_crop(ramps(2000), 0.6).unbind(dim=1)
    width, height = (x[:, 8, -3] - x[:, 8, 2]).abs(), y[:, -3, 8] - y[:, 2, 8]
    torch.testing.assert_close(width, height, atol=1e-3, rtol=0)
    share = height / (2 * 11 / 16)
    assert 0.6 - 1e-3 <= share.min() < 0.62 and 0.98 < share.max() <= 1 + 1e-3
    centre_x, centre_y = (x[:, 8, 2] + x[:, 8, -3]) / 2, (y[:, 2, 8] + y[:, -3, 8]) / 2
    for centre in (centre_x, centre_y):
        assert (centre.abs() <= 1 - share + 1e-2).all()
        assert centre.min() < -0.3 and centre.max() > 0.3
    assert abs(torch.corrcoef(torch.stack([centre_x, centre_y]))[0, 1]) < 0.1
    assert x.abs().max() <= 1 and y.abs().max() <= 1


def test_cropping_keeps_shape_and_range():
    for channels in (1, 3):
        changed = flip_and_crop(pictures(8, channels), 0.5)
        assert changed.shape == (8, channels, 16, 16) and changed.abs().max() <= 1


@pytest.mark.parametrize("change", [lambda x: flip_and_crop(x, 0.8), vary_colour])
def test_changes_repeat_with_the_seed(change):
    image = pictures(8)
    changed = []
    for _ in range(2):
        torch.manual_seed(3)
        changed.append(change(image))
    assert torch.equal(*changed)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_stay_in_range_and_places_stay(channels):
    image = pictures(64, channels)
    changed = vary_colour(image)
    assert changed.shape == image.shape and changed.abs().max() <= 1
    flat = torch.full((64, channels, 16, 16), 0.3)
    assert (vary_colour(flat).std(dim=(2, 3)) < 1e-5).all()  # nothing depends on the place


def test_probability_0_changes_nothing_and_1_everything():
    image = pictures() * 0.5
    torch.testing.assert_close(vary_colour(image, probability=0), image)
    assert ((vary_colour(image, probability=1) - image).abs().amax((1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_each_change_touches_half_of_the_pictures(kind):
    image = pictures(1000, size=4) * 0.3
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    torch.manual_seed(1)
    grey = image.mean(dim=1, keepdim=True)  # a hue turn leaves the mean over channels alone
    changed = vary_colour(image, **{**off, kind: 0.3})
    mean = changed.mean(dim=1, keepdim=True)
    if kind == "saturation":
        spread = (changed - mean).norm(dim=1).mean((1, 2)) / (image - grey).norm(dim=1).mean((1, 2))
        touched = (spread - 1).abs() > 1e-3
        torch.testing.assert_close(mean, grey, atol=1e-2, rtol=0)
    else:
        touched = (mean - grey).abs().amax((1, 2, 3)) > 1e-5
    assert 400 < touched.sum() < 600


def test_brightness_and_contrast_have_the_strengths_of_ada():
    flat = torch.full((4000, 1, 1, 1), 0.1)
    moved = vary_colour(flat, contrast=0, probability=1).flatten() - 0.1
    assert moved.std().item() == pytest.approx(0.2, rel=0.1)
    scaled = (vary_colour(flat, brightness=0, probability=1).flatten() / 0.1).log2()
    assert scaled.std().item() == pytest.approx(0.5, rel=0.1)


def test_grey_has_no_hue_and_a_third_of_a_turn_changes_red_to_green():
    grey = torch.rand(2, 1, 4, 4).expand(-1, 3, -1, -1)
    turn = torch.full((2, 1, 1, 1), 2 * torch.pi / 3)
    torch.testing.assert_close(_turn_hue(grey, turn), grey)
    image = pictures(2)
    torch.testing.assert_close(_turn_hue(image, turn), image.roll(1, dims=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(_turn_hue(image, 0 * turn), image)
