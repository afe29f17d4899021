"""FIR resampling by two of images, features and convolutions, differentiable to any order."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTHING_TAPS = (1.0, 3.0, 3.0, 1.0)


def setup_filter(taps: Sequence[float] = SMOOTHING_TAPS) -> Tensor:
    """Two-dimensional low-pass filter: outer product of the taps, scaled to sum one.

    Args:
        taps: T filter taps of one axis.

    Returns:
        `(T, T)` filter.
    """
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line) / line.sum().square()


def resampling_matrix(
    taps: Tensor, size: int, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), flip: bool = False
) -> Tensor:
    """One axis of "insert zeros, pad, filter, keep every n-th" as a matrix.

    A dense matrix per axis is fast at the sizes of images, needs no special kernel on any device or precision, and is
    differentiable to any order because it is a product.

    Args:
        taps: `(T,)` filter, already scaled by its gain.
        size: samples of the input, N.
        up: factor of zero insertion, zeros after each sample.
        down: every n-th result is kept, from the first.
        padding: zeros before and after; negative values crop.
        flip: correlate instead of convolve.

    Returns:
        `(M, N)` with M = ceil((N up + padding - T + 1) / down).
    """
    length = len(taps)
    count = size * up + sum(padding) - length + 1
    rows = torch.arange(0, count, down, device=taps.device)[:, None]
    columns = torch.arange(size, device=taps.device)[None] * up + padding[0]
    index = columns - rows  # which tap meets which sample, in correlation order
    inside = (index >= 0) & (index < length)
    index = index.clamp(0, length - 1)
    return torch.where(inside, taps[index if flip else length - 1 - index], 0.0)


def apply_separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply both axes of an image by matrices.

    Args:
        x: `(B, C, H, W)`.
        rows: `(H', H)`.
        columns: `(W', W)`.

    Returns:
        `(B, C, H', W')`; channels_last where there are several channels.
    """
    batch, channels, height, width = x.shape
    if channels <= 4:  # an image: too few channels to lie innermost
        return rows @ (x @ columns.T)
    x = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    x = (rows @ x).reshape(batch * len(rows), width, channels)
    return (columns @ x).reshape(batch, len(rows), len(columns), channels).permute(0, 3, 1, 2)


def _resample2d(x: Tensor, fir: Tensor, up: int, down: int, padding: tuple[int, int]) -> Tensor:
    taps = fir.sum(dim=1) * up  # the filter is an outer product of sum one: its row sums are the taps
    height, width = x.shape[2:]
    rows = resampling_matrix(taps, height, up, down, padding).to(x.dtype)
    columns = rows if width == height else resampling_matrix(taps, width, up, down, padding).to(x.dtype)
    return apply_separable(x, rows, columns)


def upsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Double an image: a zero after every sample, then the `(4, 4)` filter. `(B, C, H, W)` to `(B, C, 2H, 2W)`."""
    return _resample2d(x, fir, up=2, down=1, padding=(2, 1))


def downsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Halve an image: the `(4, 4)` filter, then every second sample. `(B, C, H, W)` to `(B, C, H / 2, W / 2)`."""
    if x.dtype == torch.float32 and x.shape[1] > 4:  # in bf16 CPUs take ten times as long for the gradient
        return depthwise_fir(x, fir, padding=1, stride=2)
    return _resample2d(x, fir, up=1, down=2, padding=(1, 1))


def depthwise_fir(x: Tensor, fir: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Convolve every channel with the same filter.

    Args:
        x: `(B, C, H, W)`.
        fir: `(T, T)` filter in convolution orientation.
        padding: zeros on each side.
        stride: every n-th sample is kept, from the first.

    Returns:
        `(B, C, H', W')` with H' = ceil((H + 2 padding - T + 1) / stride).
    """
    channels = x.shape[1]
    kernel = fir.flip((0, 1)).to(x.dtype).expand(channels, 1, *fir.shape)
    if torch.is_grad_enabled() and x.requires_grad and not fir.requires_grad:
        return _DepthwiseFIR.apply(x, kernel, padding, stride)
    return F.conv2d(x, kernel, padding=padding, stride=stride, groups=channels)


class _DepthwiseFIR(torch.autograd.Function):
    """Depthwise convolution with a constant filter.

    The second derivative of `conv2d` also works out that of the filter, channel by channel, wanted or not: a fifth of a
    path length step. This one is linear in the image, keeps nothing of it, and goes on to any order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, padding: int, stride: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.geometry = padding, stride, x.shape
        return F.conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _DepthwiseFIRAdjoint.apply(gradient, *ctx.saved_tensors, *ctx.geometry), None, None, None


class _DepthwiseFIRAdjoint(torch.autograd.Function):
    """The adjoint of `_DepthwiseFIR`, whose own adjoint is that again."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, kernel: Tensor, padding: int, stride: int, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.geometry = padding, stride
        place = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)  # only its shape
        only_image = [True, False, False]
        pads, strides, ones = [padding] * 2, [stride] * 2, [1, 1]
        return torch.ops.aten.convolution_backward(
            y, place, kernel, None, strides, pads, ones, False, [0, 0], shape[1], only_image
        )[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _DepthwiseFIR.apply(gradient, *ctx.saved_tensors, *ctx.geometry), None, None, None, None


def conv_up2(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    """3x3 convolution that doubles the image: transposed convolution, then the filter with gain 4.

    Args:
        x: `(B, I, H, W)`.
        weight: `(O, I, 3, 3)` in convolution orientation, that is not flipped for the transposed convolution.
        fir: `(4, 4)` filter.

    Returns:
        `(B, O, 2H, 2W)`.
    """
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B, O, 2H + 1, 2W + 1)
    return depthwise_fir(x, fir * 4.0, padding=1)


def conv_down2(x: Tensor, weight: Tensor, fir: Tensor, bias: Tensor | None = None) -> Tensor:
    """3x3 convolution that halves the image: the filter, then a strided correlation.

    Args:
        x: `(B, I, H, W)`.
        weight: `(O, I, 3, 3)`.
        fir: `(4, 4)` filter.
        bias: `(O,)`, optional.

    Returns:
        `(B, O, H / 2, W / 2)`.
    """
    x = depthwise_fir(x, fir, padding=2)  # (B, I, H + 1, W + 1)
    return F.conv2d(x, weight, bias, stride=2)
