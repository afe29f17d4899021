"""Pixel classifiers on whole images, tile by tile from maps at native size: exact, without the hypercolumn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.samples.features import neighbours

TILE = {"cpu": 64, "cuda": 256}
"""Edge of a tile in pixels: on a processor what a member needs of one should stay in its caches."""


@torch.no_grad()
def classify_maps(
    classifiers: Sequence[PixelClassifier], maps: Sequence[Tensor], resolution: int, tile: int | None = None
) -> Tensor:
    """Class probabilities of every pixel by every classifier, in evaluation mode and float32 throughout.

    A classifier's first layer and the upsampling commute, so the layer is applied at native size. Upsampling then is
    a product with a small matrix along each axis. The one along x adds up the maps of all sizes at once, which leaves
    no upsampled map to write and read; batch norms are folded into the layers beside them.

    Args:
        classifiers: M of them, of one depth and number of classes.
        maps: `(N, C_i, r_i, r_i)` each; channels-last memory makes this fast. Half precision is read as float32.
        resolution: R.
        tile: edge in pixels, another one gives other last bits; None for `TILE`.

    Returns:
        `(M, N, K, R, R)`.
    """
    edge = tile or TILE.get(maps[0].device.type, max(TILE.values()))
    members = [_Folded.of(classifier, [part.shape[1] for part in maps]) for classifier in classifiers]
    axis = [
        _Reach.all_of(maps, start, min(start + edge, resolution), resolution) for start in range(0, resolution, edge)
    ]
    shape = (len(members), len(maps[0]), classifiers[0].num_classes, resolution, resolution)
    probs = torch.empty(shape, device=maps[0].device)
    with torch.autocast(maps[0].device.type, enabled=False):
        for image in range(len(maps[0])):
            rows = [part[image].permute(1, 2, 0) for part in maps]  # (r_i, r_i, C_i)
            for down in axis:
                for across in axis:
                    part = _Tile(rows, down, across, resolution)
                    for member, out in zip(members, probs[:, image], strict=True):
                        out[:, down[0].target, across[0].target] = part.classify(member)
    return probs


@dataclass(frozen=True)
class _Reach:
    """The part of one axis of one map that a tile needs.

    Attributes:
        target: pixels of the tile, T of them.
        source: positions of the map, S of them.
        weights: `(T, S)` bilinear, each row summing to 1.
    """

    target: slice
    source: slice
    weights: Tensor

    @staticmethod
    def all_of(maps: Sequence[Tensor], start: int, stop: int, resolution: int) -> list[_Reach]:
        """Of every map, for the pixels `start` to `stop - 1`."""
        reaches = []
        at = torch.arange(start, stop, device=maps[0].device)
        for part in maps:
            first, second, share = neighbours(at, part.shape[-1], resolution, torch.float32)
            low, high = int(first[0]), int((second if part.shape[-1] != resolution else first)[-1])
            weights = share.new_zeros(len(at), high + 1 - low)
            weights.scatter_add_(1, first[:, None] - low, 1 - share)
            second = second.clamp(max=high)  # at the border both are one position
            weights.scatter_add_(1, second[:, None] - low, share)
            reaches.append(_Reach(slice(start, stop), slice(low, low + weights.shape[1]), weights))
        return reaches


@dataclass(frozen=True)
class _Folded:
    """A classifier in evaluation mode as linear layers with ReLU between.

    Attributes:
        first: `(C_i, H)` first layer's weights for each map.
        scale: `(H,)` factors owed to the first layer's output by its batch norm; None for one.
        bias: `(H,)` of the first layer, after these factors.
        rest: `(out, in)` weights and `(out,)` biases of the others.
    """

    first: list[Tensor]
    scale: Tensor | None
    bias: Tensor
    rest: list[tuple[Tensor, Tensor]]

    @staticmethod
    def of(classifier: PixelClassifier, channels: list[int]) -> _Folded:
        scale: Tensor | None = None
        bias: Tensor = classifier.first.bias
        rest: list[tuple[Tensor, Tensor]] = []
        owed: tuple[Tensor, Tensor] | None = None  # a batch norm after a ReLU belongs to the next layer
        before: nn.Module = classifier.first
        weight: Tensor
        shift: Tensor
        for module in classifier.rest:
            if isinstance(module, nn.Linear):
                weight, shift = module.weight, module.bias
                if owed is not None:
                    weight, shift, owed = weight * owed[0], shift + weight @ owed[1], None
                rest.append((weight, shift))
            elif isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                factor = module.weight / (module.running_var + module.eps).sqrt()
                offset = module.bias - module.running_mean * factor
                if isinstance(before, nn.ReLU):
                    owed = factor, offset
                elif rest:
                    weight, shift = rest[-1]
                    rest[-1] = weight * factor[:, None], shift * factor + offset
                else:
                    scale, bias = factor, bias * factor + offset
            before = module
        first = [columns.t() for columns in classifier.first.weight.split(channels, dim=1)]
        return _Folded(first, scale, bias, rest)


class _Tile:
    """What all classifiers need of one tile of an image.

    Args:
        rows: `(r_i, r_i, C_i)` maps of the image.
        down: reach of the tile along y in each map.
        across: along x.
        resolution: R; maps of this size are taken as they are.
    """

    def __init__(self, rows: list[Tensor], down: list[_Reach], across: list[_Reach], resolution: int) -> None:
        self.height, self.width = len(down[0].weights), len(across[0].weights)
        windows = [part[y.source, x.source].float() for part, y, x in zip(rows, down, across, strict=True)]
        self.full = [number for number, part in enumerate(rows) if part.shape[0] == resolution]
        self.pixels = [windows[number].reshape(self.height * self.width, -1) for number in self.full]
        self.resized = [number for number in range(len(rows)) if number not in self.full]
        self.down = [down[number].weights for number in self.resized]
        self.windows = [windows[number] for number in self.resized]
        one = down[0].weights.new_ones(self.width, 1)  # for the bias
        weights = torch.cat([*(across[number].weights for number in self.resized), one], dim=1)
        self.across = weights.expand(self.height, -1, -1)  # (y, x, columns of all maps, side by side, and 1)

    def classify(self, member: _Folded) -> Tensor:
        """Probabilities `(K, y, x)` of one classifier."""
        hidden = self.project(member).clamp_(min=0)
        for weight, bias in member.rest[:-1]:
            hidden = torch.addmm(bias, hidden, weight.t()).clamp_(min=0)
        weight, bias = member.rest[-1]
        logits = torch.addmm(bias[:, None], weight, hidden.t())  # (K, P): the vote goes class by class
        return logits.softmax(0).unflatten(1, (self.height, self.width))

    def project(self, member: _Folded) -> Tensor:
        """Output `(P, H)` of the first layer and its batch norm."""
        width = len(member.bias)
        columns = self.across.shape[-1]
        source = member.bias.new_empty(self.height, columns, width)  # all maps upsampled along y alone
        source[:, -1] = member.bias
        flat, first = source.view(self.height, columns * width), 0
        for number, window, down in zip(self.resized, self.windows, self.down, strict=True):
            native = window.flatten(0, 1) @ member.first[number]
            if member.scale is not None:
                native *= member.scale
            last = first + window.shape[1] * width
            torch.mm(down, native.view(len(window), -1), out=flat[:, first:last])
            first = last
        hidden = torch.bmm(self.across, source).view(-1, width)
        for number, pixels in zip(self.full, self.pixels, strict=True):
            weight = member.first[number]
            hidden.addmm_(pixels, weight if member.scale is None else weight * member.scale)
        return hidden
