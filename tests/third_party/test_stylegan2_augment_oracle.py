"""The augmentation pipe equals its plain definition: each transformation alone, all together, and its derivatives."""

import math
from collections.abc import Iterator

import pytest
import stylegan2_augment_reference as reference
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2_ada_pytorch import AUGMENT_PIPES, AugmentPipe


@pytest.fixture(autouse=True)
def single_precision_again() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


TOLERANCE = 1e-4  # of the deviation: white noise is steep, and in fp32 a sample's place is known to about 1e-5 pixels


def images(channels: int, height: int = 32, width: int = 32, batch: int = 4) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(3))


ODD: dict[str, Tensor] = {
    "xflip": torch.tensor([0.0, 1.0, 1.0, 0.0]),
    "rotate90": torch.tensor([0.0, 1.0, 2.0, 3.0]),
    "xint": torch.tensor([[0.0, 0.0], [0.125, -0.11], [-0.3, 0.049], [0.9, -0.9]]),
    "scale": torch.tensor([1.0, 0.37, 2.6, 0.92]),
    "rotate_before": torch.tensor([0.0, 0.7, -2.9, math.pi]),
    "aniso": torch.tensor([1.0, 0.5, 1.9, 1.03]),
    "rotate_after": torch.tensor([0.0, -0.2, 1.6, 3.0]),
    "xfrac": torch.tensor([[0.0, 0.0], [0.013, -0.21], [-0.4, 0.33], [1.7, 0.0]]),
    "brightness": torch.tensor([0.0, 0.6, -0.4, 0.03]),
    "contrast": torch.tensor([1.0, 0.3, 2.2, 1.1]),
    "lumaflip": torch.tensor([0.0, 1.0, 0.0, 1.0]),
    "hue": torch.tensor([0.0, 1.1, -3.0, math.pi]),
    "saturation": torch.tensor([1.0, 0.0, 2.5, 0.8]),
    "bands": torch.tensor([[1.0, 1, 1, 1], [0.3, 1, 1, 4], [1, 3, 0.2, 1], [2, 0.5, 1.5, 0.7]]),
    "cutout_centre": torch.tensor([[0.5, 0.5], [0.02, 0.9], [0.31, 0.47], [1.0, 0.0]]),
    "cutout_size": torch.tensor([0.0, 0.5, 0.31, 0.5]),
}
ALONE = [name for name in ODD if not name.startswith("cutout")]


def some(names: list[str], noise_like: Tensor | None = None) -> dict[str, Tensor]:
    parameters = {name: ODD[name] for name in names}
    if noise_like is not None:
        parameters["noise"] = 0.1 * torch.randn(noise_like.shape, generator=torch.Generator().manual_seed(4))
    return parameters


def assert_equal_to_oracle(x: Tensor, parameters: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    got, wanted = AugmentPipe().apply_parameters(x, parameters), reference.augment(x, parameters)
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    assert_close(got, wanted, tolerance)


def assert_close(got: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    deviation = ((got - wanted).abs().max() / wanted.std().clamp(min=1e-3)).item()
    assert deviation <= tolerance


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALONE)
def test_each_transformation_equals_its_definition(name: str, channels: int) -> None:
    assert_equal_to_oracle(images(channels), some([name]))


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_and_cutout_equal_their_definition(channels: int) -> None:
    x = images(channels)
    assert_equal_to_oracle(x, some([], noise_like=x))
    assert_equal_to_oracle(x, some(["cutout_centre", "cutout_size"]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (24, 40)])
def test_all_transformations_together_equal_their_definition(channels: int, height: int, width: int) -> None:
    x = images(channels, height, width)
    assert_equal_to_oracle(x, some(list(ODD), noise_like=x))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["medical", "bgc", "bgcfnc"])
def test_drawn_parameters_give_what_the_definition_gives(name: str, channels: int) -> None:
    pipe, x = AugmentPipe(**AUGMENT_PIPES[name]), images(channels, batch=8)
    pipe.p.fill_(0.7)
    for seed in range(4):
        parameters = pipe.draw(x, torch.Generator().manual_seed(seed))
        assert_close(pipe.apply_parameters(x, parameters), reference.augment(x, parameters))


def derivatives(augmented: Tensor, x: Tensor, weight: Tensor) -> list[Tensor]:
    """As R1 takes them: values, slope of a score at the images, and how its square follows images and weights."""
    score = torch.tanh(augmented * weight).sum()
    (slope,) = torch.autograd.grad(score, x, create_graph=True)
    return [augmented, slope, *torch.autograd.grad(slope.square().sum(), [x, weight])]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", [*([name] for name in ALONE), list(ODD)], ids=lambda names: "+".join(names)[:20])
def test_values_and_both_derivatives_equal_those_of_the_definition(names: list[str], channels: int) -> None:
    """In double precision, where nothing but rounding is left; and in fp32, on images as smooth as pictures are."""
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 3e-4)):
        torch.set_default_dtype(dtype)
        x, weight = (smooth(noise).to(dtype).requires_grad_() for noise in images(channels, 32, 32, 5).split([4, 1]))
        parameters = {name: ODD[name].to(dtype) for name in names}
        got = derivatives(AugmentPipe().to(dtype).apply_parameters(x, parameters), x, weight)
        wanted = derivatives(reference.augment(x, parameters), x, weight)
        for a, b in zip(got, wanted, strict=True):
            assert_close(a, b, tolerance)


def smooth(noise: Tensor) -> Tensor:
    """`(B, C, 32, 32)` noise to `(B, C, 24, 24)` images of about the same deviation."""
    return F.avg_pool2d(F.avg_pool2d(noise, 5, 1), 5, 1) * 6
