"""StyleGAN2 discriminator: residual blocks from the image down, minibatch standard deviation, logit."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2_ada_pytorch.generator import (
    ARCHITECTURES,
    channels_at,
    low_precision_from,
    resolutions_of,
)
from stylegan2_ada_pytorch.layers import Conv2dLayer, FullyConnectedLayer, autocast_dtype
from stylegan2_ada_pytorch.mapping import MappingNetwork
from stylegan2_ada_pytorch.resample import downsample2d, setup_filter


class DiscriminatorBlock(nn.Module):
    """All layers of one resolution, from which the features leave at half the size.

    Args:
        in_channels: channels that arrive; 0 for the first block, which sees only the image.
        tmp_channels: channels inside.
        out_channels: channels that leave.
        resolution: of the input.
        img_channels: channels of the image.
        first_layer_idx: number of layers above this block, for Freeze-D.
        architecture: "resnet", "skip" or "orig".
        conv_clamp: bound of the layers' outputs (not of the residual shortcut); None for no bound.
        freeze_layers: how many layers, counted from the image, are stored as buffers.
    """

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = "resnet",
        conv_clamp: float | None = None,
        freeze_layers: int = 0,
    ) -> None:
        super().__init__()
        self.resolution, self.architecture = resolution, architecture
        self.register_buffer("resample_filter", setup_filter())
        self.resample_filter: Tensor
        self.num_layers = 0

        def trainable() -> bool:
            self.num_layers += 1
            return first_layer_idx + self.num_layers > freeze_layers

        common: dict[str, Any] = {"activation": "lrelu", "conv_clamp": conv_clamp}
        self.has_fromrgb = in_channels == 0 or architecture == "skip"
        if self.has_fromrgb:
            self.fromrgb = Conv2dLayer(img_channels, tmp_channels, kernel_size=1, trainable=trainable(), **common)
        self.conv0 = Conv2dLayer(tmp_channels, tmp_channels, kernel_size=3, trainable=trainable(), **common)
        self.conv1 = Conv2dLayer(tmp_channels, out_channels, kernel_size=3, down=2, trainable=trainable(), **common)
        if architecture == "resnet":
            self.skip = Conv2dLayer(
                tmp_channels, out_channels, kernel_size=1, bias=False, down=2, trainable=trainable()
            )

    def forward(self, x: Tensor | None, image: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Features `(B, I, r, r)` or None and the image, to features `(B, O, r / 2, r / 2)` and the image for below."""
        if x is not None:
            x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if self.has_fromrgb:
            assert image is not None
            y = self.fromrgb(image.to(dtype=dtype, memory_format=torch.channels_last))
            x = y if x is None else x + y
            image = downsample2d(image, self.resample_filter) if self.architecture == "skip" else None
        assert x is not None
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x)), image
        shortcut = self.skip(x, gain=math.sqrt(0.5))
        return shortcut + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), image


class MinibatchStdLayer(nn.Module):
    """Append the standard deviation over a group of samples as constant channels (Karras et al., 2018, section 3).

    Sample n belongs to group n mod (B / G), where G is the group size.

    Args:
        group_size: G at most; None for the whole batch.
        num_channels: F, channels to append; each averages over its own share of the features.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C + F, H, W)`."""
        batch, channels, height, width = x.shape
        size = min(self.group_size or batch, batch)
        if batch % size:
            raise ValueError(f"batch of {batch} does not divide into minibatch-std groups of {size}")
        count = self.num_channels
        y = x.reshape(size, batch // size, count, channels // count, height, width)
        y = y - y.mean(dim=0)
        y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))  # (B / G, F)
        y = y.repeat(size, 1)[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat([x, y], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """4x4 features to the logit, or to the vector that is compared with the mapped label.

    Args:
        in_channels: C.
        cmap_dim: size of the mapped label, 0 for none.
        resolution: 4.
        img_channels: channels of the image.
        architecture: "resnet", "skip" or "orig".
        mbstd_group_size: samples of a minibatch-std group; None for the whole batch.
        mbstd_num_channels: minibatch-std channels, 0 for none.
        conv_clamp: bound of the convolution's output; None for no bound.
    """

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.cmap_dim, self.architecture = cmap_dim, architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, kernel_size=1, activation="lrelu")
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels else None
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels, in_channels, kernel_size=3, activation="lrelu", conv_clamp=conv_clamp
        )
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation="lrelu")
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)

    def forward(self, x: Tensor, image: Tensor | None, cmap: Tensor | None) -> Tensor:
        """Features `(B, C, 4, 4)`, image (skip architecture) and mapped label `(B, cmap_dim)`, to `(B, 1)`."""
        if self.architecture == "skip":
            assert image is not None
            x = x + self.fromrgb(image)
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is not None:
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """Image to logit.

        D = Discriminator(0, img_resolution=256, img_channels=1, channel_base=16384)
        logits = D(images)  # (B, 1)

    Args:
        c_dim: size of the label vector, 0 for none.
        img_resolution: power of two, at least 8.
        img_channels: channels of the image.
        architecture: "resnet", "skip" or "orig".
        channel_base: channels times resolution.
        channel_max: most channels of a layer.
        num_fp16_res: how many of the highest resolutions run in the precision of a surrounding `torch.autocast`.
        conv_clamp: bound of every layer's output; None for no bound.
        cmap_dim: size of the mapped label; the channels at 4x4 by default.
        block_kwargs: further settings of `DiscriminatorBlock` (`freeze_layers`).
        mapping_kwargs: further settings of the label's `MappingNetwork`.
        epilogue_kwargs: further settings of `DiscriminatorEpilogue` (`mbstd_group_size`, ...).
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        conv_clamp: float | None = None,
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"discriminator architecture {architecture!r}: wanted one of {', '.join(ARCHITECTURES)}")
        self.init_kwargs: dict[str, Any] = {
            "c_dim": c_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "architecture": architecture,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "num_fp16_res": num_fp16_res,
            "conv_clamp": conv_clamp,
            "cmap_dim": cmap_dim,
            "block_kwargs": dict(block_kwargs or {}),
            "mapping_kwargs": dict(mapping_kwargs or {}),
            "epilogue_kwargs": dict(epilogue_kwargs or {}),
        }
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.low_precision_from = low_precision_from(img_resolution, num_fp16_res)
        self.block_resolutions = resolutions_of(img_resolution)[:0:-1]  # R, ..., 8
        common: dict[str, Any] = {"architecture": architecture, "conv_clamp": conv_clamp}
        channels, layers = 0, 0
        for r in self.block_resolutions:
            inside, below = channels_at(r, channel_base, channel_max), channels_at(r // 2, channel_base, channel_max)
            block = DiscriminatorBlock(
                channels, inside, below, r, img_channels, layers, **common, **(block_kwargs or {})
            )
            setattr(self, f"b{r}", block)
            layers += block.num_layers
            channels = below
        cmap = 0 if c_dim == 0 else (cmap_dim or channels)
        if c_dim:
            settings = {"w_avg_beta": None, **(mapping_kwargs or {})}
            self.mapping = MappingNetwork(0, c_dim, cmap, num_ws=None, **settings)
        self.b4 = DiscriminatorEpilogue(channels, cmap, 4, img_channels, **common, **(epilogue_kwargs or {}))

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Judge images.

        Args:
            img: `(B, img_channels, R, R)`, nominally in [-1, 1].
            c: `(B, c_dim)` labels; unused when `c_dim` is 0.

        Returns:
            `(B, 1)` logits, high for images taken for real.
        """
        wanted = (self.img_channels, self.img_resolution, self.img_resolution)
        if img.shape[1:] != wanted:
            raise ValueError(f"image has shape {tuple(img.shape)}, wanted (B, {', '.join(map(str, wanted))})")
        full = self.b4.out.weight.dtype
        low = autocast_dtype(img.device) or full
        with torch.autocast(img.device.type, enabled=False):  # every precision is chosen here
            x: Tensor | None = None
            image: Tensor | None = img.to(full)
            for r in self.block_resolutions:
                dtype = low if r >= self.low_precision_from else full
                x, image = getattr(self, f"b{r}")(x, image, dtype)
            assert x is not None
            cmap = self.mapping(None, c) if self.c_dim else None
            return self.b4(x.to(dtype=full, memory_format=torch.contiguous_format), image, cmap)
