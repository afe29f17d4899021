"""StyleGAN2 generator: synthesis network, its layers, and mapping and synthesis together (Karras et al., 2020)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2_ada_pytorch.layers import (
    LRELU_GAIN,
    Conv2dLayer,
    FullyConnectedLayer,
    autocast_dtype,
    modulated_conv2d,
    noise_bias_lrelu,
    scale_channels,
)
from stylegan2_ada_pytorch.mapping import MappingNetwork
from stylegan2_ada_pytorch.resample import setup_filter, upsample2d

NOISE_MODES = ("const", "random", "none")
ARCHITECTURES = ("skip", "resnet", "orig")


def resolutions_of(img_resolution: int) -> list[int]:
    """4, 8, ... up to the image's size, which must be a power of two and at least 8."""
    if img_resolution < 8 or img_resolution & (img_resolution - 1):
        raise ValueError(f"image resolution {img_resolution}: wanted a power of two, 8 or more")
    return [2**i for i in range(2, img_resolution.bit_length())]


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Number of feature channels at one resolution."""
    return min(channel_base // resolution, channel_max)


def low_precision_from(img_resolution: int, num_fp16_res: int) -> int:
    """Lowest resolution that autocast reaches: the `num_fp16_res` highest ones, never 4."""
    return max(2 ** (int(math.log2(img_resolution)) + 1 - num_fp16_res), 8)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU.

    Features travel as a pair: what the next layer sees is `x scale`, one factor per sample and channel. The
    demodulation d and the gains are positive, so lrelu(d u + n) = d lrelu(u + n / d), and instead of a pass over the
    image here d joins the style of the next layer, which multiplies the image anyway.

    Args:
        in_channels: I.
        out_channels: O.
        w_dim: size of w.
        resolution: of the output.
        up: 1 or 2.
        conv_clamp: bound on the output's absolute value; None for no bound.
        use_noise: whether the layer has noise inputs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        up: int = 1,
        conv_clamp: float | None = None,
        use_noise: bool = True,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.conv_clamp, self.use_noise = resolution, up, conv_clamp, use_noise
        self.register_buffer("resample_filter", setup_filter())
        self.resample_filter: Tensor
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.noise_const: Tensor

    def forward(
        self, x: Tensor, scale: Tensor | None, w: Tensor, noise_mode: str = "random", gain: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """One layer.

        Args:
            x: `(B, I, H, W)`.
            scale: `(B, I)` factors still owed to `x`; None for one.
            w: `(B, w_dim)`.
            noise_mode: "const", "random" or "none".
            gain: factor on the output and on the clamp.

        Returns:
            `(B, O, resolution, resolution)` and the factors `(B, O)` still owed to it.
        """
        up_filter = self.resample_filter if self.up == 2 else None
        x, demodulation = modulated_conv2d(x, self.weight, self.affine(w), scale, up_filter)
        inverse = 1 / demodulation
        noise = self._noise(len(x), noise_mode)
        strength = None if noise is None else inverse * self.noise_strength
        x = noise_bias_lrelu(x, noise, strength, inverse * self.bias)
        scale = demodulation * (LRELU_GAIN * gain)
        if self.conv_clamp is not None:
            bound = (self.conv_clamp * gain / scale).to(x.dtype)[:, :, None, None]
            x = torch.clamp(x, min=-bound, max=bound)
        return x, scale

    def _noise(self, batch: int, noise_mode: str) -> Tensor | None:
        """`(B, 1, H, W)` or `(1, 1, H, W)` noise before its strength."""
        if not self.use_noise or noise_mode == "none":
            return None
        if noise_mode == "const":
            return self.noise_const[None, None]
        shape = (batch, 1, self.resolution, self.resolution)
        return torch.randn(shape, device=self.weight.device, dtype=self.weight.dtype)


class ToRGBLayer(nn.Module):
    """Features to image: 1x1 modulated convolution without demodulation, and bias.

    Args:
        in_channels: C.
        img_channels: channels of the image.
        w_dim: size of w.
        conv_clamp: bound on the output's absolute value; None for no bound.
    """

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, scale: Tensor | None, w: Tensor) -> Tensor:
        """`(B, C, H, W)`, factors `(B, C)` still owed to it and `(B, w_dim)`, to `(B, img_channels, H, W)`."""
        styles = self.affine(w) * self.weight_gain
        if scale is not None:
            styles = styles * scale
        # One small matrix per sample: few image channels make this cheaper than scaling all features first.
        weight = (self.weight[None, :, :, 0, 0] * styles[:, None]).to(x.dtype)  # (B, img_channels, C)
        features = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
        image = features @ weight.transpose(1, 2) + self.bias.to(x.dtype)
        image = image.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return image if self.conv_clamp is None else image.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """All layers of one resolution.

    Args:
        in_channels: channels of the block below; 0 for the first block, which begins with the learned constant.
        out_channels: C.
        w_dim: size of w.
        resolution: of the output.
        img_channels: channels of the image.
        is_last: whether this is the highest resolution.
        architecture: "skip", "resnet" or "orig".
        conv_clamp: bound of every layer's output; None for no bound.
        layer_kwargs: further settings of `SynthesisLayer`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        conv_clamp: float | None = None,
        layer_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.w_dim, self.resolution, self.architecture = in_channels, w_dim, resolution, architecture
        settings: dict[str, Any] = {"conv_clamp": conv_clamp, **(layer_kwargs or {})}
        self.register_buffer("resample_filter", setup_filter())
        self.resample_filter: Tensor
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **settings)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **settings)
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp)
        if in_channels and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, kernel_size=1, bias=False, up=2)

    def forward(
        self,
        x: Tensor | None,
        scale: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        dtype: torch.dtype,
        noise_mode: str,
        features: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run one resolution.

        Args:
            x: `(B, I, r / 2, r / 2)` features of the block below; None in the first block.
            scale: `(B, I)` factors still owed to `x`; None for one.
            image: `(B, img_channels, r / 2, r / 2)` image so far; None where there is none yet.
            ws: `(B, num_conv + num_torgb, w_dim)`.
            dtype: precision of the features; the image keeps that of `ws`.
            noise_mode: "const", "random" or "none".
            features: list to which the layers' outputs are appended; None to keep none.

        Returns:
            Features `(B, C, r, r)`, the factors owed to them, and the image `(B, img_channels, r, r)` or None.
        """
        w = iter(ws.unbind(dim=1))
        residual = x is not None and self.architecture == "resnet"
        gain = math.sqrt(0.5) if residual else 1.0
        shortcut: Tensor | None = None
        if x is None:
            const = self.const.to(dtype)[None].expand(len(ws), -1, -1, -1)
            x = const.contiguous(memory_format=torch.channels_last)
            collect(features, x, None)
        else:
            x = x.to(dtype=dtype, memory_format=torch.channels_last)
            if residual:
                x, scale = (x if scale is None else scale_channels(x, scale)), None
                shortcut = self.skip(x, gain=gain)
            x, scale = self.conv0(x, scale, next(w), noise_mode)
            collect(features, x, scale)
        x, scale = self.conv1(x, scale, next(w), noise_mode, gain)
        collect(features, x, scale)
        if shortcut is not None:
            x, scale = shortcut + scale_channels(x, scale), None
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.num_torgb:
            rgb = self.torgb(x, scale, next(w)).to(ws.dtype)
            image = rgb if image is None else image + rgb
        return x, scale, image


def collect(features: list[Tensor] | None, x: Tensor, scale: Tensor | None) -> None:
    """Append a layer's output, with the factors owed to it paid."""
    if features is not None:
        features.append(x if scale is None else scale_channels(x, scale))


class SynthesisNetwork(nn.Module):
    """ws to image, from a learned 4x4 constant upwards.

    Args:
        w_dim: size of w.
        img_resolution: power of two, at least 8.
        img_channels: channels of the image.
        channel_base: channels times resolution.
        channel_max: most channels of a layer.
        num_fp16_res: how many of the highest resolutions run in the precision of a surrounding `torch.autocast`.
        architecture: "skip", "resnet" or "orig".
        conv_clamp: bound of every layer's output; None for no bound.
        block_kwargs: further settings of `SynthesisLayer` (`use_noise`).
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        architecture: str = "skip",
        conv_clamp: float | None = None,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"generator architecture {architecture!r}: wanted one of {', '.join(ARCHITECTURES)}")
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = resolutions_of(img_resolution)
        self.b4: SynthesisBlock
        self.low_precision_from = low_precision_from(img_resolution, num_fp16_res)
        below = 0
        for resolution in self.block_resolutions:
            channels = channels_at(resolution, channel_base, channel_max)
            is_last = resolution == img_resolution
            block = SynthesisBlock(
                below, channels, w_dim, resolution, img_channels, is_last, architecture, conv_clamp, block_kwargs
            )
            setattr(self, f"b{resolution}", block)
            below = channels
        self.num_ws = 2 * len(self.block_resolutions)  # one per convolution, and the last toRGB's

    def forward(
        self, ws: Tensor, noise_mode: str = "random", return_features: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Render images.

        Args:
            ws: `(B, num_ws, w_dim)`.
            noise_mode: "const" (the stored noise), "random" (drawn now) or "none".
            return_features: also return the constant and the output of every convolution, after its activation:
                const, b4.conv1, b8.conv0, b8.conv1, ...

        Returns:
            `(B, img_channels, R, R)` images, nominally in [-1, 1] and not clipped; with features, a tuple.
        """
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise mode {noise_mode!r}: wanted one of {', '.join(NOISE_MODES)}")
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws has shape {tuple(ws.shape)}, wanted (B, {self.num_ws}, {self.w_dim})")
        full = self.b4.const.dtype
        low = autocast_dtype(ws.device) or full
        features: list[Tensor] | None = [] if return_features else None
        x, scale, image = None, None, None
        with torch.autocast(ws.device.type, enabled=False):  # every precision is chosen here
            ws = ws.to(full)
            first = 0
            for resolution in self.block_resolutions:
                block = getattr(self, f"b{resolution}")
                dtype = low if resolution >= self.low_precision_from else full
                block_ws = ws[:, first : first + block.num_conv + block.num_torgb]
                x, scale, image = block(x, scale, image, block_ws, dtype, noise_mode, features)
                first += block.num_conv
        assert image is not None
        return image if features is None else (image, features)


class Generator(nn.Module):
    """Mapping and synthesis together: `G(z) = G.synthesis(G.mapping(z))`.

        G = Generator(512, 0, 512, img_resolution=256, img_channels=1, mapping_kwargs={"num_layers": 2})
        images = G(torch.randn(4, 512), truncation_psi=0.7, noise_mode="const")

    Args:
        z_dim: size of z.
        c_dim: size of the label vector, 0 for none.
        w_dim: size of w.
        img_resolution: power of two, at least 8.
        img_channels: channels of the image.
        mapping_kwargs: further settings of `MappingNetwork`.
        synthesis_kwargs: further settings of `SynthesisNetwork`.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Mapping[str, Any] | None = None,
        synthesis_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "w_dim": w_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "mapping_kwargs": dict(mapping_kwargs or {}),
            "synthesis_kwargs": dict(synthesis_kwargs or {}),
        }
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **(synthesis_kwargs or {}))
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        **synthesis_kwargs: Any,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """`(B, z_dim)` latents to `(B, img_channels, R, R)` images; further arguments go to the synthesis."""
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), **synthesis_kwargs)
