"""Resampling keeps constants, has its adjoint, and equals insertion of zeros, padding and convolution."""

import pytest
import stylegan2_reference as reference
import torch

from stylegan2_ada_pytorch.resample import (
    conv_down2,
    conv_up2,
    downsample2d,
    resampling_matrix,
    setup_filter,
    upsample2d,
)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # they take different ways
def test_resampling_equals_its_definition(channels, dtype):
    x, fir = torch.randn(2, channels, 8, 12, dtype=dtype), setup_filter().to(dtype)
    torch.testing.assert_close(upsample2d(x, fir), reference.upfirdn(x, fir, up=2, padding=(2, 1), gain=4))
    torch.testing.assert_close(downsample2d(x, fir), reference.upfirdn(x, fir, down=2, padding=(1, 1)))


@pytest.mark.parametrize("flip", [False, True])
def test_resampling_matrix_honours_an_asymmetric_filter(flip):
    taps, x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]), torch.randn(1, 1, 9, 9)
    fir = torch.outer(taps, taps)
    matrix = resampling_matrix(taps, 9, up=3, down=2, padding=(4, -1), flip=flip)
    wanted = reference.upfirdn(x, fir.flip((0, 1)) if flip else fir, up=3, down=2, padding=(4, -1))
    torch.testing.assert_close(matrix @ x @ matrix.T, wanted)


def test_constants_stay_constant_away_from_the_border():
    x, fir = torch.full((1, 1, 8, 8), 3.0), setup_filter()
    torch.testing.assert_close(upsample2d(x, fir)[..., 2:-2, 2:-2], torch.full((1, 1, 12, 12), 3.0))
    torch.testing.assert_close(downsample2d(x, fir)[..., 1:-1, 1:-1], torch.full((1, 1, 2, 2), 3.0))


def test_upsampling_is_four_times_the_adjoint_of_downsampling():
    x, y, fir = torch.randn(1, 2, 6, 6).double(), torch.randn(1, 2, 12, 12).double(), setup_filter().double()
    left, right = (upsample2d(x, fir) * y).sum(), 4 * (x * downsample2d(y, fir)).sum()
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize(("fast", "plain"), [(conv_up2, "up_convolution"), (conv_down2, "down_convolution")])
def test_resampling_convolutions_equal_their_definition_in_value_and_both_derivatives(fast, plain):
    fir = setup_filter()
    results = []
    for function in (fast, getattr(reference, plain)):
        torch.manual_seed(0)
        x, w = torch.randn(2, 5, 8, 8, requires_grad=True), torch.randn(7, 5, 3, 3, requires_grad=True)
        y = function(x.to(memory_format=torch.channels_last), w, fir)
        slopes = torch.autograd.grad(y.pow(3).sum(), (x, w), create_graph=True)
        second = torch.autograd.grad(sum(s.square().sum() for s in slopes) * 1e-6, (x, w))
        results.append([y, *slopes, *second])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)
