"""Dense, convolutional and modulated layers with equalised learning rate (Karras et al., 2018; 2020)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2_ada_pytorch.resample import conv_down2, conv_up2, downsample2d, setup_filter, upsample2d

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)  # keeps the variance; folded into weights, since lrelu(a x) = a lrelu(x) for a > 0


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Low precision asked for by the surrounding `torch.autocast`, None outside of one."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale every row of `(B, C)` to mean square one."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def activation_gain(activation: str) -> float:
    """Gain that goes with an activation, "linear" or "lrelu"."""
    gains = {"linear": 1.0, "lrelu": LRELU_GAIN}
    if activation not in gains:
        raise ValueError(f"activation {activation!r}: wanted one of {', '.join(gains)}")
    return gains[activation]


class FullyConnectedLayer(nn.Module):
    """Dense layer whose stored weights have unit variance at initialisation, divided by `lr_multiplier`.

    Args:
        in_features: I.
        out_features: O.
        activation: "linear" or "lrelu".
        lr_multiplier: factor on weights and biases in use, and so on their learning rate.
        bias_init: starting value of the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        gain = activation_gain(activation)
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = gain * lr_multiplier / math.sqrt(in_features)
        self.bias_gain = gain * lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """`(B, I)` to `(B, O)`."""
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(x, LRELU_SLOPE) if self.activation == "lrelu" else x


class Conv2dLayer(nn.Module):
    """Convolution with optional resampling by two, bias, activation and clamp.

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: 1 or 3.
        bias: whether to learn a bias.
        activation: "linear" or "lrelu".
        up: 1 or 2; 2 for a 1x1 convolution only (the generator's 3x3 ones are modulated).
        down: 1 or 2.
        conv_clamp: bound on the output's absolute value, scaled by `gain` at call time; None for no bound.
        trainable: False stores weight and bias as buffers of the same names (Freeze-D).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        conv_clamp: float | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.kernel_size, self.gain = kernel_size, activation_gain(activation)
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer("resample_filter", setup_filter())
        self.resample_filter: Tensor
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.weight: Tensor
        self.bias: Tensor | None
        if trainable:
            self.weight = nn.Parameter(weight)
            self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", torch.zeros(out_channels) if bias else None)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """`(B, I, H, W)` to `(B, O, H up / down, W up / down)`."""
        scale = self.gain * gain
        weight = (self.weight * (self.weight_gain * scale)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * scale).to(x.dtype)
        x = self._pointwise(x, weight, bias) if self.kernel_size == 1 else self._convolve(x, weight, bias)
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp * gain, self.conv_clamp * gain)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.down == 2:
            x = conv_down2(x, weight, self.resample_filter, bias)
        else:
            x = F.conv2d(x, weight, bias, padding=1)
        return F.leaky_relu(x, LRELU_SLOPE, inplace=True) if self.activation == "lrelu" else x

    def _pointwise(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """1x1 convolution as one matrix product over all pixels: convolution kernels are slow at small batches."""
        if self.down == 2:
            x = downsample2d(x, self.resample_filter)
        batch, channels, height, width = x.shape
        y = F.linear(x.permute(0, 2, 3, 1).reshape(-1, channels), weight[:, :, 0, 0], bias)
        if self.activation == "lrelu":
            y = F.leaky_relu(y, LRELU_SLOPE, inplace=True)
        x = y.view(batch, height, width, -1).permute(0, 3, 1, 2)
        return upsample2d(x, self.resample_filter) if self.up == 2 else x


def scale_channels(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply every channel of every sample by its own factor: `(B, C, H, W)` and `(B, C)` to `(B, C, H, W)`."""
    return x * factor.to(x.dtype)[:, :, None, None]


def modulated_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, scale: Tensor | None = None, up_filter: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Modulated 3x3 convolution in the unfused form (Karras et al., 2020, equations 1 to 3), before demodulation.

    Scaling the input instead of building one set of weights per sample keeps the batch in one convolution.

    Args:
        x: `(B, I, H, W)`.
        weight: `(O, I, 3, 3)`.
        styles: `(B, I)` factors of the input channels.
        scale: `(B, I)` factors still owed to `x`; they modulate, but do not enter the demodulation.
        up_filter: `(4, 4)` filter when the image is to be doubled.

    Returns:
        The convolution `(B, O, H, W)`, or twice the size, and the demodulation `(B, O)` still owed to it.
    """
    if x.dtype == torch.float16:  # keeps sums inside the range of fp16; the demodulation cancels both factors
        largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        weight = weight / (largest * math.sqrt(weight[0].numel()))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    power = weight.square().sum(dim=(2, 3))  # (O, I)
    demodulation = (styles.square() @ power.T + 1e-8).rsqrt()
    x = scale_channels(x, styles if scale is None else styles * scale)
    weight = weight.to(x.dtype)
    x = F.conv2d(x, weight, padding=1) if up_filter is None else conv_up2(x, weight, up_filter)
    return x, demodulation


class _NoiseBiasLReLU(torch.autograd.Function):
    """lrelu(x + noise a + b) with one new tensor instead of three, and sums over pixels as matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor | None, strength: Tensor | None, bias: Tensor) -> Tensor:
        offset = bias[:, :, None, None]
        if noise is None or strength is None:
            out = x + offset
        else:
            out = torch.addcmul(x, noise, strength[:, :, None, None]).add_(offset)
        out = F.leaky_relu_(out, LRELU_SLOPE)
        ctx.save_for_backward(out, noise)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None, Tensor]:
        out, noise = ctx.saved_tensors
        inner = torch.ops.aten.leaky_relu_backward(gradient, out, LRELU_SLOPE, True)
        pixels = inner.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
        strength = None
        if noise is not None:
            line = noise.expand(len(inner), -1, -1, -1).flatten(2)  # (B, 1, H W)
            strength = torch.bmm(line, pixels)[:, 0]
        return inner, None, strength, pixels.sum(dim=1)


def noise_bias_lrelu(x: Tensor, noise: Tensor | None, strength: Tensor | None, bias: Tensor) -> Tensor:
    """Noise, bias and leaky ReLU, without its gain.

    Args:
        x: `(B, C, H, W)`.
        noise: `(B, 1, H, W)` or `(1, 1, H, W)`, a constant for autograd; None for none.
        strength: `(B, C)` factors of the noise.
        bias: `(B, C)`.

    Returns:
        `(B, C, H, W)`: lrelu(x + noise strength + bias).
    """
    if noise is not None and strength is not None:
        noise, strength = noise.to(x.dtype), strength.to(x.dtype)
    return _NoiseBiasLReLU.apply(x, noise, strength, bias.to(x.dtype))
