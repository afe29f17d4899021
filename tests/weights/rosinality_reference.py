"""A generator and a discriminator in the layout of stylegan2-pytorch, plainly, from a state dict: the test's oracle.

Scales are where that layout has them: on the weights, before the demodulation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]
EPSILON = 1e-8
TAPS = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def make_generator(resolution: int, channels: dict[int, int], w_dim: int = 12, layers: int = 3) -> Tensors:
    """A random state of the generator; the style network maps w_dim to w_dim."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=draw) * std

    t: Tensors = {}
    for k in range(1, layers + 1):
        t |= {f"style.{k}.weight": normal(w_dim, w_dim, std=100), f"style.{k}.bias": normal(w_dim, std=10)}
    t["input.input"] = normal(1, channels[4], 4, 4)

    def styled(name: str, inputs: int, outputs: int, size: int, rgb: bool = False) -> None:
        t[f"{name}.conv.weight"] = normal(1, outputs, inputs, size, size)
        t[f"{name}.conv.modulation.weight"] = normal(inputs, w_dim)
        t[f"{name}.conv.modulation.bias"] = 1 + normal(inputs, std=0.1)
        if rgb:
            t[f"{name}.bias"] = normal(1, outputs, 1, 1)
        else:
            t[f"{name}.noise.weight"] = normal(1)
            t[f"{name}.activate.bias"] = normal(outputs, std=0.3)

    styled("conv1", channels[4], channels[4], 3)
    styled("to_rgb1", channels[4], 3, 1, rgb=True)
    t["noises.noise_0"] = normal(1, 1, 4, 4)
    for j in range(resolution.bit_length() - 3):
        r = 8 << j
        styled(f"convs.{2 * j}", channels[r // 2], channels[r], 3)
        styled(f"convs.{2 * j + 1}", channels[r], channels[r], 3)
        styled(f"to_rgbs.{j}", channels[r], 3, 1, rgb=True)
        t[f"convs.{2 * j}.conv.blur.kernel"] = TAPS * 4
        t[f"to_rgbs.{j}.upsample.kernel"] = TAPS * 4
        for number in (2 * j + 1, 2 * j + 2):
            t[f"noises.noise_{number}"] = normal(1, 1, r, r)
    return t


def generate(t: Tensors, z: Tensor) -> Tensor:
    """Images with the stored noise."""
    w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)
    k = 1
    while f"style.{k}.weight" in t:
        w = dense(w, t[f"style.{k}.weight"], t[f"style.{k}.bias"], rate=0.01, activate=True)
        k += 1
    x = t["input.input"].repeat(len(z), 1, 1, 1)
    x = styled_convolution(t, "conv1", x, w, t["noises.noise_0"], up=False)
    image = to_rgb(t, "to_rgb1", x, w)
    j = 0
    while f"to_rgbs.{j}.bias" in t:
        x = styled_convolution(t, f"convs.{2 * j}", x, w, t[f"noises.noise_{2 * j + 1}"], up=True)
        x = styled_convolution(t, f"convs.{2 * j + 1}", x, w, t[f"noises.noise_{2 * j + 2}"], up=False)
        image = filtered(spread(image), TAPS * 4, (2, 1)) + to_rgb(t, f"to_rgbs.{j}", x, w)
        j += 1
    return image


def dense(x: Tensor, weight: Tensor, bias: Tensor, rate: float = 1.0, activate: bool = False) -> Tensor:
    y = x @ (weight * rate / math.sqrt(weight.shape[1])).T + bias * rate
    return F.leaky_relu(y, 0.2) * math.sqrt(2) if activate else y


def spread(x: Tensor) -> Tensor:
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def filtered(x: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    channels = x.shape[1]
    x = F.pad(x, (*padding, *padding))
    return F.conv2d(x, kernel.flip((0, 1)).repeat(channels, 1, 1, 1), groups=channels)


def modulated(t: Tensors, name: str, x: Tensor, w: Tensor, demodulate: bool, up: bool) -> Tensor:
    weight = t[f"{name}.conv.weight"]
    scale = 1 / math.sqrt(weight[0, 0].numel())
    style = dense(w, t[f"{name}.conv.modulation.weight"], t[f"{name}.conv.modulation.bias"])
    results = []
    for image, s in zip(x, style, strict=True):  # one sample, one kernel
        kernel = scale * weight[0] * s[None, :, None, None]
        if demodulate:
            kernel = kernel * torch.rsqrt(kernel.square().sum((1, 2, 3), keepdim=True) + EPSILON)
        if up:
            y = F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
            y = filtered(y, TAPS * 4, (1, 1))
        else:
            y = F.conv2d(image[None], kernel, padding=kernel.shape[-1] // 2)
        results.append(y)
    return torch.cat(results)


def styled_convolution(t: Tensors, name: str, x: Tensor, w: Tensor, noise: Tensor, up: bool) -> Tensor:
    x = modulated(t, name, x, w, True, up) + t[f"{name}.noise.weight"] * noise
    return F.leaky_relu(x + t[f"{name}.activate.bias"].view(1, -1, 1, 1), 0.2) * math.sqrt(2)


def to_rgb(t: Tensors, name: str, x: Tensor, w: Tensor) -> Tensor:
    return modulated(t, name, x, w, False, False) + t[f"{name}.bias"]


def make_discriminator(resolution: int, channels: dict[int, int]) -> Tensors:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    top = channels[resolution]
    t: Tensors = {"convs.0.0.weight": normal(top, 3, 1, 1), "convs.0.1.bias": normal(top)}
    r, k = resolution, 1
    while r > 4:
        inside, out = channels[r], channels[r // 2]
        t[f"convs.{k}.conv1.0.weight"], t[f"convs.{k}.conv1.1.bias"] = normal(inside, inside, 3, 3), normal(inside)
        t[f"convs.{k}.conv2.0.kernel"] = TAPS.clone()
        t[f"convs.{k}.conv2.1.weight"], t[f"convs.{k}.conv2.2.bias"] = normal(out, inside, 3, 3), normal(out)
        t[f"convs.{k}.skip.0.kernel"], t[f"convs.{k}.skip.1.weight"] = TAPS.clone(), normal(out, inside, 1, 1)
        r, k = r // 2, k + 1
    last = channels[4]
    t |= {"final_conv.0.weight": normal(last, last + 1, 3, 3), "final_conv.1.bias": normal(last)}
    t |= {"final_linear.0.weight": normal(last, last * 16), "final_linear.0.bias": normal(last)}
    return t | {"final_linear.1.weight": normal(1, last), "final_linear.1.bias": normal(1)}


def judge(t: Tensors, image: Tensor) -> Tensor:
    """Logits; groups of four for the minibatch standard deviation."""

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, down: bool = False) -> Tensor:
        size = weight.shape[-1]
        if down:
            x = filtered(x, TAPS, (2, 2) if size == 3 else (1, 1))
        kernel = weight / math.sqrt(weight[0].numel())
        x = F.conv2d(x, kernel, stride=2 if down else 1, padding=0 if down else size // 2)
        return x if bias is None else F.leaky_relu(x + bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)

    x = convolve(image, t["convs.0.0.weight"], t["convs.0.1.bias"])
    k = 1
    while f"convs.{k}.skip.1.weight" in t:
        y = convolve(x, t[f"convs.{k}.conv1.0.weight"], t[f"convs.{k}.conv1.1.bias"])
        y = convolve(y, t[f"convs.{k}.conv2.1.weight"], t[f"convs.{k}.conv2.2.bias"], down=True)
        x = (y + convolve(x, t[f"convs.{k}.skip.1.weight"], None, down=True)) / math.sqrt(2)
        k += 1
    group = min(4, len(x))
    y = x.view(group, -1, 1, *x.shape[1:])
    spread_of = (y.var(0, unbiased=False) + EPSILON).sqrt().mean([2, 3, 4], keepdim=True).squeeze(2)
    x = torch.cat([x, spread_of.repeat(group, 1, *x.shape[2:])], 1)
    x = convolve(x, t["final_conv.0.weight"], t["final_conv.1.bias"]).flatten(1)
    x = dense(x, t["final_linear.0.weight"], t["final_linear.0.bias"], activate=True)
    return dense(x, t["final_linear.1.weight"], t["final_linear.1.bias"])
