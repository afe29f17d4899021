"""Dense, convolutional and modulated layers with equalised learning rate (Karras et al., 2018; 2020)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2_ada_pytorch.resample import conv_down2, conv_up2, downsample2d, setup_filter, upsample2d

LRELU_SLOPE = 0.2
Activation = Callable[[Tensor], Tensor]

# name: (function, gain that keeps the variance)
ACTIVATIONS: dict[str, tuple[Activation, float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (F.relu, math.sqrt(2)),
    "lrelu": (lambda x: F.leaky_relu(x, LRELU_SLOPE), math.sqrt(2)),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (F.silu, math.sqrt(2)),
}

# f(a x) = a f(x) for a > 0: the gain may be folded into the small weights instead of costing a pass over the image.
HOMOGENEOUS = ("linear", "relu", "lrelu")


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Low precision asked for by the surrounding `torch.autocast`, None outside of one."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale every row of `(B, C)` to mean square one."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def activate(x: Tensor, activation: str, gain: float, clamp: float | None) -> Tensor:
    """Activation, gain and clamp; a homogeneous activation expects its gain already inside `x`."""
    x = ACTIVATIONS[activation][0](x)
    if activation not in HOMOGENEOUS and gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


class FullyConnectedLayer(nn.Module):
    """Dense layer whose stored weights have unit variance at initialisation divided by `lr_multiplier`.

    Args:
        in_features: I.
        out_features: O.
        activation: a key of `ACTIVATIONS`.
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
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """`(B, I)` to `(B, O)`."""
        gain = ACTIVATIONS[self.activation][1]
        scale = gain if self.activation in HOMOGENEOUS else 1.0
        weight = self.weight * (self.weight_gain * scale)
        bias = self.bias * (self.bias_gain * scale)
        return activate(F.linear(x, weight.to(x.dtype), bias.to(x.dtype)), self.activation, gain, clamp=None)


class Conv2dLayer(nn.Module):
    """Convolution with optional resampling by two, bias, activation and clamp.

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: 1 or 3 (any odd size without resampling).
        bias: whether to learn a bias.
        activation: a key of `ACTIVATIONS`.
        up: 1 or 2.
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
        if (up, down) not in ((1, 1), (2, 1), (1, 2)) or ((up, down) != (1, 1) and kernel_size not in (1, 3)):
            raise ValueError(f"kernel size {kernel_size} with up {up}, down {down}: only 1x1 and 3x3 resample, by two")
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.padding = kernel_size // 2
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
        total = ACTIVATIONS[self.activation][1] * gain
        scale = total if self.activation in HOMOGENEOUS else 1.0
        weight = (self.weight * (self.weight_gain * scale)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * scale).to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return activate(self._convolve(x, weight, bias), self.activation, total, clamp)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pointwise = self.padding == 0
        if self.down == 2:
            if not pointwise:
                return conv_down2(x, weight, self.resample_filter, bias)
            return F.conv2d(downsample2d(x, self.resample_filter), weight, bias)
        if self.up == 2:
            if pointwise:
                x = upsample2d(F.conv2d(x, weight), self.resample_filter)
            else:
                x = conv_up2(x, weight, self.resample_filter)
            return x if bias is None else x + bias[:, None, None]
        return F.conv2d(x, weight, bias, padding=self.padding)


def scale_channels(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply every channel of every sample by its own factor.

    Args:
        x: `(B, C, H, W)`.
        factor: `(B, C)`.

    Returns:
        `(B, C, H, W)`.
    """
    return x * factor.to(x.dtype)[:, :, None, None]


def modulated_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, up_filter: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Modulated 3x3 convolution in the unfused form (Karras et al., 2020, equations 1 to 3), before demodulation.

    The result is to be multiplied by the returned demodulation, which the caller joins with noise and bias. Scaling
    the input instead of building one set of weights per sample keeps the batch in one convolution.

    Args:
        x: `(B, I, H, W)`.
        weight: `(O, I, 3, 3)`.
        styles: `(B, I)` factors of the input channels.
        up_filter: `(4, 4)` filter when the image is doubled.

    Returns:
        `(B, O, H, W)` (or twice the size) and the demodulation `(B, O)`.
    """
    if x.dtype == torch.float16:  # keeps sums inside the range of fp16; the demodulation cancels both factors
        weight = weight / (weight.flatten(1).norm(float("inf"), dim=1) * math.sqrt(weight[0].numel()))[:, None, None, None]
        styles = styles / styles.norm(float("inf"), dim=1, keepdim=True)
    power = weight.square().sum(dim=(2, 3))  # (O, I)
    demodulation = (styles.square() @ power.T + 1e-8).rsqrt()
    x = scale_channels(x, styles)
    weight = weight.to(x.dtype)
    if up_filter is None:
        return F.conv2d(x, weight, padding=1), demodulation
    return conv_up2(x, weight, up_filter), demodulation
