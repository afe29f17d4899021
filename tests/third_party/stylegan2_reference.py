"""StyleGAN2 written plainly from its definition, as functions of a state dict: the oracle of the fast networks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]


def tensors_of(module: torch.nn.Module) -> Tensors:
    """Parameters (still attached to autograd) and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def upfirdn(
    x: Tensor, fir: Tensor, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """Zeros after every sample, padding or cropping, convolution with the flipped filter, every n-th sample."""
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, h, up, w, up)
    spread[:, :, :, 0, :, 0] = x
    x = F.pad(spread.reshape(b, c, h * up, w * up), (*padding, *padding))
    kernel = (fir.flip((0, 1)) * gain).to(x.dtype)[None, None]
    x = F.conv2d(x.reshape(b * c, 1, *x.shape[2:]), kernel)
    return x.reshape(b, c, *x.shape[2:])[:, :, ::down, ::down]


def up_convolution(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, 2 * h - 1, 2 * w - 1)
    spread[:, :, ::2, ::2] = x
    x = F.conv2d(spread, weight.flip((2, 3)), padding=2)  # a transposed convolution of stride two
    return upfirdn(x, fir, padding=(1, 1), gain=4)


def down_convolution(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    return F.conv2d(upfirdn(x, fir, padding=(2, 2)), weight, stride=2)


def lrelu(x: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    x = F.leaky_relu(x, 0.2) * math.sqrt(2) * gain
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def dense(t: Tensors, name: str, x: Tensor, multiplier: float = 1.0) -> Tensor:
    weight = t[f"{name}.weight"]
    return x @ (weight * multiplier / math.sqrt(weight.shape[1])).T + t[f"{name}.bias"] * multiplier


def mapping(t: Tensors, z: Tensor | None, c: Tensor | None = None, prefix: str = "mapping") -> Tensor:
    parts = []
    if z is not None:
        parts.append(z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt())
    if c is not None:
        y = dense(t, f"{prefix}.embed", c)
        parts.append(y / (y.square().mean(1, keepdim=True) + 1e-8).sqrt())
    x = torch.cat(parts, 1)
    layer = 0
    while f"{prefix}.fc{layer}.weight" in t:
        x = lrelu(dense(t, f"{prefix}.fc{layer}", x, 0.01))
        layer += 1
    return x


def synthesis_layer(
    t: Tensors,
    name: str,
    x: Tensor,
    w: Tensor,
    up: bool,
    noise_mode: str,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    weight, styles = t[f"{name}.weight"], dense(t, f"{name}.affine", w)
    modulated = weight[None] * styles[:, None, :, None, None]
    d = (modulated.square().sum((2, 3, 4)) + 1e-8).rsqrt()
    x = x * styles[:, :, None, None]
    x = up_convolution(x, weight, t[f"{name}.resample_filter"]) if up else F.conv2d(x, weight, padding=1)
    x = x * d[:, :, None, None]
    if noise_mode == "const":
        x = x + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"]
    elif noise_mode == "random":
        x = x + torch.randn(len(x), 1, *x.shape[2:]) * t[f"{name}.noise_strength"]
    return lrelu(x + t[f"{name}.bias"][:, None, None], gain, clamp)


def synthesis(
    t: Tensors,
    ws: Tensor,
    resolution: int,
    architecture: str = "skip",
    noise_mode: str = "const",
    clamp: float | None = None,
) -> tuple[Tensor, list[Tensor]]:
    x = t["synthesis.b4.const"].repeat(len(ws), 1, 1, 1)
    features, image, index, r = [x], None, 0, 4
    while r <= resolution:
        name, residual = f"synthesis.b{r}", architecture == "resnet" and r > 4
        fir = t[f"{name}.resample_filter"]
        if residual:
            skip = t[f"{name}.skip.weight"]
            shortcut = F.conv2d(x, skip * math.sqrt(0.5 / skip.shape[1]))
            shortcut = upfirdn(shortcut, fir, up=2, padding=(2, 1), gain=4)
        if r > 4:
            x = synthesis_layer(t, f"{name}.conv0", x, ws[:, index], True, noise_mode, clamp=clamp)
            features.append(x)
            index += 1
        gain = math.sqrt(0.5) if residual else 1
        x = synthesis_layer(t, f"{name}.conv1", x, ws[:, index], False, noise_mode, gain, clamp)
        features.append(x)
        index += 1
        if residual:
            x = shortcut + x
        if image is not None:
            image = upfirdn(image, fir, up=2, padding=(2, 1), gain=4)
        if f"{name}.torgb.weight" in t:
            styles = dense(t, f"{name}.torgb.affine", ws[:, index]) / math.sqrt(x.shape[1])
            rgb = F.conv2d(x * styles[:, :, None, None], t[f"{name}.torgb.weight"], t[f"{name}.torgb.bias"])
            rgb = rgb if clamp is None else rgb.clamp(-clamp, clamp)
            image = rgb if image is None else image + rgb
        r *= 2
    assert image is not None
    return image, features


def convolution(
    t: Tensors,
    name: str,
    x: Tensor,
    down: bool = False,
    linear: bool = False,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    weight, fir = t[f"{name}.weight"], t[f"{name}.resample_filter"]
    weight = weight / math.sqrt(weight[0].numel())
    if down and weight.shape[2] == 3:
        x = down_convolution(x, weight, fir)
    else:
        if down:
            x = upfirdn(x, fir, down=2, padding=(1, 1))
        x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
    if f"{name}.bias" in t:
        x = x + t[f"{name}.bias"][:, None, None]
    return x * gain if linear else lrelu(x, gain, clamp)


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """One group after the other, by hand."""
    n = len(x)
    groups = n // min(group_size, n)
    values = x.new_zeros(n, 1, *x.shape[2:])
    for j in range(groups):
        members = list(range(j, n, groups))
        std = (x[members].var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        values = torch.where((torch.arange(n) % groups == j)[:, None, None, None], std, values)
    return torch.cat([x, values], 1)


def discriminator(
    t: Tensors,
    image: Tensor,
    c: Tensor | None = None,
    architecture: str = "resnet",
    clamp: float | None = None,
    group: int = 4,
) -> Tensor:
    x, r = None, image.shape[2]
    while r >= 8:
        name, fir = f"b{r}", t[f"b{r}.resample_filter"]
        if f"{name}.fromrgb.weight" in t:
            y = convolution(t, f"{name}.fromrgb", image, clamp=clamp)
            x = y if x is None else x + y
        if architecture == "skip":
            image = upfirdn(image, fir, down=2, padding=(1, 1))
        if architecture == "resnet":
            shortcut = convolution(t, f"{name}.skip", x, down=True, linear=True, gain=math.sqrt(0.5))
        x = convolution(t, f"{name}.conv0", x, clamp=clamp)
        x = convolution(
            t, f"{name}.conv1", x, down=True, gain=math.sqrt(0.5) if architecture == "resnet" else 1, clamp=clamp
        )
        x = shortcut + x if architecture == "resnet" else x
        r //= 2
    if architecture == "skip":
        x = x + convolution(t, "b4.fromrgb", image)
    x = convolution(t, "b4.conv", minibatch_std(x, group), clamp=clamp)
    x = dense(t, "b4.out", lrelu(dense(t, "b4.fc", x.flatten(1))))
    if c is None:
        return x
    cmap = mapping(t, None, c)
    return (x * cmap).sum(1, keepdim=True) / math.sqrt(cmap.shape[1])
