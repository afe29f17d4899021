"""Augmentation: exact where it can be, differentiable twice, reproducible; its controller does the arithmetic."""

import math

import pytest
import torch
import torch.nn.functional as F

from stylegan2_ada_pytorch import AUGMENT_PIPES, AdaController, AugmentPipe, update_p
from stylegan2_ada_pytorch.geometry import (
    grid_sample_differentiates_twice,
    padding_for,
    reflect_columns,
    sample_by_gather,
)
from stylegan2_ada_pytorch.intensity import apply_colour, band_gains, colour_transform, filter_matrix, wavelet_bank


def smooth_images(channels: int = 1, size: int = 32) -> torch.Tensor:
    torch.manual_seed(0)
    x = torch.rand(4, channels, size + 8, size + 8) * 2 - 1
    return F.avg_pool2d(F.avg_pool2d(x, 5, 1), 5, 1)


def pipe_at(name: str, p: float) -> AugmentPipe:
    pipe = AugmentPipe(**AUGMENT_PIPES[name])
    pipe.p.fill_(p)
    return pipe


@pytest.mark.parametrize("name", AUGMENT_PIPES)
def test_p_zero_returns_the_images_themselves(name):
    images = smooth_images()
    assert pipe_at(name, 0.0)(images) is images


@pytest.mark.parametrize("name", AUGMENT_PIPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pipe_is_reproducible_and_changes_images(name, channels):
    pipe, images = pipe_at(name, 0.8), smooth_images(channels)
    first, second = (pipe(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.shape == images.shape and first.isfinite().all()
    assert torch.equal(first, second)
    assert not torch.equal(first, images)
    torch.manual_seed(1)
    third = pipe(images)
    torch.manual_seed(1)
    assert torch.equal(third, pipe(images))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_equal_rot90_but_for_resampling(turns):
    images = smooth_images()
    turned = AugmentPipe().apply_parameters(images, {"rotate90": torch.full((4,), float(turns))})
    wanted = torch.rot90(images, turns, (2, 3))
    assert (turned - wanted).abs().max() < 0.2 * images.std()  # the filter is not quite symmetric
    others = [(turned - torch.rot90(images, k, (2, 3))).abs().mean() for k in range(4) if k != turns]
    assert min(others) > 20 * (turned - wanted).abs().mean()


def test_flip_and_whole_shifts_are_exact_but_for_resampling():
    images, pipe = smooth_images(), AugmentPipe()
    flipped = pipe.apply_parameters(images, {"xflip": torch.ones(4)})
    assert (flipped - images.flip(3)).abs().max() < 0.2 * images.std()
    shifted = pipe.apply_parameters(images, {"xint": torch.tensor([[0.125, -0.25]]).expand(4, 2)})
    torch.testing.assert_close(shifted[..., :-8, 4:], images[..., 8:, :-4], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"scale": torch.ones(4), "rotate_before": torch.zeros(4), "aniso": torch.ones(4), "xfrac": torch.zeros(4, 2)},
        {"brightness": torch.zeros(4), "contrast": torch.ones(4), "hue": torch.zeros(4), "saturation": torch.ones(4)},
        {"bands": torch.ones(4, 4)},
        {"noise": torch.zeros(4, 3, 32, 32), "cutout_centre": torch.full((4, 2), 0.5), "cutout_size": torch.zeros(4)},
    ],
)
def test_identity_parameters_change_nothing(parameters):
    images = smooth_images(3)
    torch.testing.assert_close(AugmentPipe().apply_parameters(images, parameters), images, atol=1e-5, rtol=0)


def test_opposite_rotations_undo_each_other():
    images = smooth_images(size=64)
    parameters = {"rotate_before": torch.full((4,), 0.7), "rotate_after": torch.full((4,), -0.7)}
    torch.testing.assert_close(AugmentPipe().apply_parameters(images, parameters), images, atol=1e-4, rtol=0)


def test_scale_two_enlarges_the_centre():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    images = (-(x**2 + y**2) * 8).exp()[None, None]
    larger = AugmentPipe().apply_parameters(images, {"scale": torch.tensor([2.0])})
    torch.testing.assert_close(larger, (-(x**2 + y**2) * 2).exp()[None, None], atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["bgc", "bgcfnc", "medical"])
def test_gradient_through_the_pipe_can_be_differentiated_again(name):
    pipe, images = pipe_at(name, 0.8), smooth_images(size=16).double().requires_grad_()
    parameters = pipe.draw(images, torch.Generator().manual_seed(2))
    weight = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        logits = (pipe.apply_parameters(images, parameters) * weight).square().sum()
        (slope,) = torch.autograd.grad(logits, images, create_graph=True)
        return slope.square().sum()

    (gradient,) = torch.autograd.grad(penalty(weight), weight)
    step = torch.randn_like(weight) * 1e-5
    change = (penalty(weight + step) - penalty(weight - step)) / 2
    assert change.item() == pytest.approx((gradient * step).sum().item(), rel=1e-4)


def test_gather_equals_grid_sample_in_value_and_gradient():
    assert grid_sample_differentiates_twice("cpu")
    grid = torch.rand(2, 7, 5, 2) * 2.6 - 1.3  # some points outside
    results = []
    for function in (sample_by_gather, lambda a, g: F.grid_sample(a, g, align_corners=False)):
        torch.manual_seed(0)
        images = torch.randn(2, 3, 6, 9, requires_grad=True)
        y = function(images, grid)
        results.append((y, torch.autograd.grad(y.square().sum(), images)[0]))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_folded_columns_equal_reflect_padding():
    x, matrix = torch.randn(1, 1, 6), torch.randn(4, 3 + 6 + 5)
    wanted = F.pad(x, (3, 5), mode="reflect")[0, 0] @ matrix.T
    torch.testing.assert_close(x[0, 0] @ reflect_columns(matrix, 6, 3).T, wanted)


def test_margins_cover_the_batch_and_stay_within_the_image():
    shift = torch.eye(3).repeat(2, 1, 1)
    assert padding_for(shift, 32, 32, 3) == (6, 6, 6, 6)
    shift[1, 0, 2] = 100.0
    assert padding_for(shift, 32, 32, 3) == (6, 6, 31, 6)


@pytest.mark.parametrize("name", ["brightness", "contrast", "lumaflip"])
def test_grey_images_change_like_grey_colour_images(name):
    images, value = smooth_images(), torch.tensor([0.0, 1.0, 1.0, 0.0])
    grey = apply_colour(images, colour_transform({name: value}, 1))
    colour = apply_colour(images.repeat(1, 3, 1, 1), colour_transform({name: value}, 3))
    torch.testing.assert_close(grey.repeat(1, 3, 1, 1), colour, atol=1e-5, rtol=0)


def test_colour_parameters_do_what_they_say():
    images = smooth_images(3)

    def changed(**parameters: float) -> torch.Tensor:
        values = {name: torch.full((4,), float(value)) for name, value in parameters.items()}
        return AugmentPipe().apply_parameters(images, values)

    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(changed(brightness=0.5), images + 0.5)
    torch.testing.assert_close(changed(brightness=0.5, contrast=2), (images + 0.5) * 2)
    torch.testing.assert_close(changed(saturation=0), grey.expand_as(images), atol=1e-6, rtol=0)
    torch.testing.assert_close(changed(lumaflip=1), images - 2 * grey, atol=1e-6, rtol=0)
    torch.testing.assert_close(changed(hue=2 * math.pi / 3), images.roll(1, 1), atol=1e-5, rtol=0)


def test_colour_needs_one_or_three_channels():
    with pytest.raises(ValueError, match="wanted 1 or 3"):
        pipe_at("bgc", 0.5)(torch.zeros(2, 2, 16, 16))


def test_wavelet_bands_sum_to_an_impulse():
    bank = wavelet_bank()
    assert bank.shape == (4, 43)
    torch.testing.assert_close(bank.sum(dim=1), torch.tensor([1.0, 0, 0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(bank.sum(dim=0), torch.eye(43)[21], atol=1e-6, rtol=0)


def test_band_gains_keep_the_expected_power():
    assert torch.equal(band_gains(torch.ones(2, 4)), torch.ones(2, 4))
    gains = band_gains(torch.tensor([[3.0, 1, 1, 1]]))
    power = torch.tensor([10.0, 1, 1, 1]) / 13
    assert (power * gains.square()).sum().item() == pytest.approx(1)
    assert (gains[0, 0] / gains[0, 1]).item() == pytest.approx(3)


def test_filter_matrix_filters_with_mirrored_borders():
    taps, x = torch.tensor([[1.0, 2, 4, 2, 1]]), torch.randn(9)
    wanted = F.conv1d(F.pad(x[None, None], (2, 2), mode="reflect"), taps[None])[0, 0]
    torch.testing.assert_close(filter_matrix(taps, 9)[0] @ x, wanted)


def test_cutout_clears_a_square():
    pipe, images = AugmentPipe(), torch.ones(1, 1, 16, 16)
    parameters = {"cutout_centre": torch.tensor([[0.25, 0.5]]), "cutout_size": torch.tensor([0.5])}
    cleared = pipe.apply_parameters(images, parameters)[0, 0] == 0
    assert cleared.sum() == 64 and cleared[4:12, 0:8].all()


def test_each_transformation_happens_with_probability_p():
    pipe, images = pipe_at("bgcfnc", 0.3), torch.zeros(4000, 1, 2, 2)
    drawn = pipe.draw(images, torch.Generator().manual_seed(0))
    identity = {"scale": 1.0, "aniso": 1.0, "contrast": 1.0, "saturation": 1.0, "bands": 1.0}
    share = {n: (v != identity.get(n, 0.0)).float().mean().item() for n, v in drawn.items()}
    for name in ("scale", "aniso", "brightness", "contrast", "hue", "saturation", "bands", "noise_std", "cutout_size"):
        assert share[name] == pytest.approx(0.3, abs=0.03), name
    assert share["xflip"] == pytest.approx(0.15, abs=0.03)  # half of the flips are none
    assert share["rotate90"] == pytest.approx(0.225, abs=0.03)
    either = (drawn["rotate_before"] != 0) | (drawn["rotate_after"] != 0)
    assert either.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert ((drawn["xfrac"] != 0).all(1) == (drawn["xfrac"] != 0).any(1)).all()  # one gate for both axes


def test_medical_pipe_neither_mirrors_nor_turns_by_quarters_nor_negates():
    assert not {"xflip", "rotate90", "lumaflip"} & set(AUGMENT_PIPES["medical"])
    assert {"scale", "rotate", "aniso", "xfrac", "xint", "brightness", "contrast"} == set(AUGMENT_PIPES["medical"])


def test_state_dict_has_the_published_names():
    shapes = {name: tuple(value.shape) for name, value in AugmentPipe().state_dict().items()}
    assert shapes == {"p": (), "Hz_geom": (12,), "Hz_fbank": (4, 43)}


def test_p_moves_by_images_over_ada_kimg_and_stays_in_bounds():
    settings = {"target": 0.6, "ada_kimg": 500, "p_max": 0.8}
    assert update_p(0.1, 0.9, 64, **settings) == pytest.approx(0.1 + 64 / 500_000)
    assert update_p(0.1, 0.2, 64, **settings) == pytest.approx(0.1 - 64 / 500_000)
    assert update_p(0.1, 0.6, 64, **settings) == 0.1
    assert update_p(0.0, -1.0, 64, **settings) == 0.0
    assert update_p(0.8, 1.0, 64, **settings) == 0.8


def test_controller_averages_signs_between_updates_and_survives_saving():
    pipe = AugmentPipe(xint=1)
    controller = AdaController(pipe, ada_kimg=1)
    controller.report(torch.tensor([[2.0], [0.5]]))
    controller.report(torch.tensor([[3.0], [-1.0]]))
    assert controller.mean_sign == pytest.approx(0.5)
    state = controller.state_dict()
    resumed = AdaController(AugmentPipe(xint=1), ada_kimg=1)
    resumed.load_state_dict(state)
    resumed.report(torch.ones(4, 1))
    assert resumed.mean_sign == pytest.approx(0.75)
    assert resumed.update(images=100) == pytest.approx(0.1)
    assert resumed.pipe.p.item() == pytest.approx(0.1)
    assert resumed.count == 0 and resumed.update(images=100) == pytest.approx(0.1)  # nothing reported, nothing moves
    for _ in range(20):
        controller.report(torch.ones(4, 1))
        controller.update(images=100)
    assert pipe.p.item() == pytest.approx(0.8)
