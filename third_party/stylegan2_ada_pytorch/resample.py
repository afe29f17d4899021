"""FIR resampling of images and of convolutions (upsampling and downsampling by two), differentiable to any order."""

from collections.abc import Sequence

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


def depthwise_fir(x: Tensor, fir: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Convolve every channel with the same filter, at stride one.

    Stride one even where every second sample is dropped afterwards: the strided depthwise kernels of CPUs cost more
    than the samples they save, forwards and (much more) backwards.

    Args:
        x: `(B, C, H, W)`.
        fir: `(T, T)` filter, convolution orientation (it is flipped before correlating).
        padding: zeros on each side.
        gain: factor on the result.

    Returns:
        `(B, C, H + 2 padding - T + 1, W + 2 padding - T + 1)`.
    """
    channels = x.shape[1]
    kernel = (fir.flip((0, 1)) * gain).to(x.dtype).expand(channels, 1, *fir.shape)
    return F.conv2d(x, kernel, padding=padding, groups=channels)


def downsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Halve an image: four-tap filter, then every second sample. `(B, C, H, W)` to `(B, C, H / 2, W / 2)`."""
    return depthwise_fir(x, fir, padding=1)[:, :, ::2, ::2]


def upsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Double an image: a zero after every sample, then the four-tap filter. `(B, C, H, W)` to `(B, C, 2H, 2W)`.

    A transposed convolution inserts the zeros; the crop of one sample per side is the helper padding (2, 1).
    """
    channels = x.shape[1]
    kernel = (fir * 4.0).to(x.dtype).expand(channels, 1, *fir.shape)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


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
    return depthwise_fir(x, fir, padding=1, gain=4.0)


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
