"""The generator's features: the maps behind a generated image, at native size (DatasetGAN, 2021; EditGAN, 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg_gan.errors import MedsegError, did_you_mean
from stylegan2_ada_pytorch import Generator
from stylegan2_ada_pytorch.generator import SynthesisLayer
from stylegan2_ada_pytorch.layers import modulated_conv2d, scale_channels

VARIANTS = ("editgan", "one_per_block", "drop_const", "datasetgan1", "dariant_sg2")


class FeatureExtractor:
    """Images of a StyleGAN2 generator together with the feature maps that label them.

    Example:
        extractor = FeatureExtractor(G)
        image, maps = extractor(ws)              # 256x256, channel_base 16384: 14 maps, 4x4 to 256x256
        hypercolumn = extractor.upsample(maps)   # (N, 4992, 256, 256), 1.3 GB an image: rarely what you want
        rows = extractor.gather(maps, pixels)    # the same vectors, at some pixels only
        hidden = extractor.project(maps, weight, bias)  # the same linear layer, without the hypercolumn

    Args:
        G: generator; it is put into evaluation mode.
        variant: `editgan` is the learned constant and every layer's output after its activation; `drop_const` leaves
            the constant out; `one_per_block` keeps the last output of each block. `datasetgan1` (as the StyleGAN1
            code) has each block's output and the raw output of its last convolution, before noise and activation;
            `dariant_sg2` has both layers of each block and, at 4x4, the raw convolution in place of the constant.
        noise_mode: `const` ties the features to the image: asking again gives the same ones.

    Raises:
        MedsegError: there is no such variant.
    """

    def __init__(self, G: Generator, variant: str = "editgan", noise_mode: str = "const") -> None:
        if variant not in VARIANTS:
            raise MedsegError(
                f"there is no feature variant {variant!r}; wanted one of {', '.join(VARIANTS)}"
                f"{did_you_mean(variant, VARIANTS)}"
            )
        self.G = G.eval()
        self.variant = variant
        self.noise_mode = noise_mode
        self.resolution = int(G.img_resolution)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Channels C_i and size r_i of the feature maps, in their order."""
        layers = [(layer.weight.shape[0], layer.resolution) for layer in self._layers()]
        last_of_block = layers[::2]
        return {
            "editgan": [layers[0], *layers],  # the constant is as deep as the first layer
            "drop_const": layers,
            "one_per_block": last_of_block,
            "datasetgan1": [shape for shape in last_of_block for _ in range(2)],
            "dariant_sg2": [layers[0], *layers],
        }[self.variant]

    @property
    def depth(self) -> int:
        """Length D of a pixel's feature vector."""
        return sum(channels for channels, _ in self.shapes)

    def __call__(self, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Render images and read their features.

        Args:
            ws: `(N, num_ws, w_dim)` latents.

        Returns:
            Images `(N, C, R, R)`, nominally in [-1, 1], and the feature maps `(N, C_i, r_i, r_i)` from 4x4 upwards,
            float32.
        """
        maps: list[Tensor] = []
        return self.read(ws, maps.append), maps

    @torch.no_grad()
    def read(self, ws: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
        """Render images and hand each feature map over as soon as it is there, so that no two need be held at once.

        Args:
            ws: `(N, num_ws, w_dim)` latents.
            keep: gets the maps `(N, C_i, r_i, r_i)`, float32, in their order.

        Returns:
            Images `(N, C, R, R)`.
        """
        layers, raw_layers = self._layers(), self._raw_layers()
        wanted = layers[::2] if self.variant in ("one_per_block", "datasetgan1") else layers
        raw: list[Tensor] = []

        def keep_const(_: nn.Module, args: tuple[Any, ...]) -> None:
            keep(args[0].float())

        def keep_output(_: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
            if self.variant == "dariant_sg2" and raw:
                keep(raw.pop().float())
            keep(scale_channels(*output).float())
            if raw:
                keep(raw.pop().float())

        hooks = [layer.register_forward_pre_hook(_keep_raw_output(raw)) for layer in raw_layers]
        hooks += [layer.register_forward_hook(keep_output) for layer in wanted]
        if self.variant == "editgan":
            hooks.append(layers[0].register_forward_pre_hook(keep_const))  # what enters the first layer
        try:
            return self.G.synthesis(ws, noise_mode=self.noise_mode).float()
        finally:
            for hook in hooks:
                hook.remove()

    def empty_maps(self, count: int, device: str | torch.device = "cpu", half_above: float = math.inf) -> list[Tensor]:
        """Unwritten maps `(count, C, r, r)` of all layers, neighbours of equal size merged along channels.

        Args:
            count: images.
            device: of the maps.
            half_above: maps of more than this size are float16, the others float32.
        """
        sizes = dict.fromkeys(size for _, size in self.shapes)
        return [
            torch.empty(
                (count, sum(channels for channels, other in self.shapes if other == size), size, size),
                device=device,
                dtype=torch.float16 if size > half_above else torch.float32,
                memory_format=torch.channels_last,
            )
            for size in sizes
        ]

    def upsample(self, maps: Sequence[Tensor]) -> Tensor:
        """The hypercolumn `(N, D, R, R)`: every map upsampled directly to the image's size, bilinear."""
        return upsample_maps(maps, self.resolution)

    def gather(self, maps: Sequence[Tensor], pixels: Tensor) -> Tensor:
        """Rows `(P, D)` of the hypercolumn at flat pixel positions; see `gather_pixels`."""
        return gather_pixels(maps, pixels, self.resolution)

    def project(self, maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A linear layer on the hypercolumn, `(N, H, R, R)`, without building it; see `project_maps`."""
        return project_maps(maps, weight, bias, self.resolution)

    def _layers(self) -> list[SynthesisLayer]:
        """Convolution layers in the order of the features: b4.conv1, b8.conv0, b8.conv1, ..."""
        return [layer for layer in self.G.synthesis.modules() if isinstance(layer, SynthesisLayer)]

    def _raw_layers(self) -> list[SynthesisLayer]:
        """Layers whose convolution is wanted before noise, bias and activation."""
        if self.variant == "datasetgan1":
            return self._layers()[::2]
        return self._layers()[:1] if self.variant == "dariant_sg2" else []


def upsample_maps(maps: Sequence[Tensor], resolution: int) -> Tensor:
    """Stack maps of any size at one resolution.

    Each map goes to the resolution in one step: a cascade of doublings gives other numbers.

    Args:
        maps: `(N, C_i, r_i, r_i)` each.
        resolution: R.

    Returns:
        `(N, sum of C_i, R, R)`.
    """
    return torch.cat([_resize(part, resolution) for part in maps], dim=1)


def project_maps(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, resolution: int) -> Tensor:
    """Apply a linear layer to the hypercolumn of `maps` without building it.

    The layer acts on channels and upsampling on space, so they commute: `W concat(U f_i) + b = sum U(W_i f_i) + b`.
    Maps of equal size are summed before upsampling.

    Args:
        maps: `(N, C_i, r_i, r_i)` each, equal sizes next to each other. Half precision is read as that of the weights.
        weight: `(H, sum of C_i)`.
        bias: `(H,)` or None; added once.
        resolution: R.

    Returns:
        `(N, H, R, R)`.
    """
    total: Tensor | None = None
    at_size: Tensor | None = None  # (N, H, r, r), sum of the projected maps of the present size
    for part, columns in zip(maps, weight.split([part.shape[1] for part in maps], dim=1), strict=True):
        projected = functional.conv2d(part.to(columns.dtype), columns[:, :, None, None])
        if at_size is not None and at_size.shape != projected.shape:
            total = _add(total, _resize(at_size, resolution))
            at_size = None
        at_size = _add(at_size, projected)
    assert at_size is not None, "no maps"
    total = _add(total, _resize(at_size, resolution))
    return total if bias is None else total.add_(bias[:, None, None])


def gather_pixels(maps: Sequence[Tensor], pixels: Tensor, resolution: int) -> Tensor:
    """Feature vectors at some pixels: exactly the rows that `upsample_maps` would hold there.

    Args:
        maps: `(N, C_i, r_i, r_i)` each; channels-last memory makes this fast. Half precision is read as float32.
        pixels: `(P,)` int64 positions `(n * R + y) * R + x`.
        resolution: R.

    Returns:
        `(P, sum of C_i)`.
    """
    n, y, x = pixels // resolution**2, pixels // resolution % resolution, pixels % resolution
    return torch.cat([_gather(part, n, y, x, resolution) for part in maps], dim=1)


def _keep_raw_output(raw: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook that appends a layer's demodulated convolution, before noise, bias and activation."""

    def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, SynthesisLayer)
        x, scale, w = args[:3]
        up_filter = layer.resample_filter if layer.up == 2 else None
        convolved, demodulation = modulated_conv2d(x, layer.weight, layer.affine(w), scale, up_filter)
        raw.append(scale_channels(convolved, demodulation))

    return hook


def _gather(part: Tensor, n: Tensor, y: Tensor, x: Tensor, resolution: int) -> Tensor:
    """`(P, C)` bilinear samples of one map, as `interpolate(align_corners=False)` has them."""
    size = part.shape[-1]
    rows = part.permute(0, 2, 3, 1).reshape(-1, part.shape[1])  # (N r r, C), a view in channels-last memory
    dtype = torch.promote_types(part.dtype, torch.float32)
    if size == resolution:
        return rows.index_select(0, (n * size + y) * size + x).to(dtype)
    (y0, y1, v), (x0, x1, u) = (neighbours(at, size, resolution, dtype) for at in (y, x))
    upper, lower = (n * size + y0) * size, (n * size + y1) * size
    corners = torch.stack([upper + x0, upper + x1, lower + x0, lower + x1], dim=1)
    shares = torch.cat([1 - v, 1 - v, v, v], dim=1) * torch.cat([1 - u, u, 1 - u, u], dim=1)
    if rows.dtype != dtype:
        rows = rows[corners.flatten()].to(dtype)
        corners = torch.arange(len(rows), device=rows.device).view(-1, 4)
    return functional.embedding_bag(corners, rows, per_sample_weights=shares, mode="sum")  # rows added up as read


def neighbours(at: Tensor, size: int, resolution: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The two source positions of each target position on one axis, and the weight `(P, 1)` of the second."""
    source = ((at.to(dtype) + 0.5) * (size / resolution) - 0.5).clamp(min=0)
    first = source.floor().long()
    return first, (first + 1).clamp(max=size - 1), (source - first)[:, None]


def _resize(part: Tensor, resolution: int) -> Tensor:
    if part.shape[-1] == resolution:
        return part
    return functional.interpolate(part, size=(resolution, resolution), mode="bilinear", align_corners=False)


def _add(total: Tensor | None, term: Tensor) -> Tensor:
    """Sum in place: both are new results that no backward pass needs, and a copy would cost more than the sum."""
    return term if total is None else total.add_(term)
