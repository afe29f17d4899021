"""A small untrained generator, and labels that are a function of its features: what an interpreter can learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor, upsample_maps
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Rendered, Sampling
from stylegan2_ada_pytorch import Generator


def small_source() -> ImageSource:
    """Images of 16 x 16 pixels, the same ones every time."""
    torch.manual_seed(0)
    G = Generator(
        8, 0, 8, 16, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs={"channel_base": 256, "channel_max": 16}
    )
    return ImageSource(FeatureExtractor(G), Sampling(seed=1, psi=1.0, block=4))


def truth_of(rendered: Rendered) -> Tensor:
    """Three classes: low, middle and high pixels of one of the 8x8 channels."""
    feature = upsample_maps(rendered.maps, 16)[:, 40]
    return (feature > 0.0).to(torch.uint8) + (feature > 0.7).to(torch.uint8)


def merge_maps(maps: Sequence[Tensor]) -> list[Tensor]:
    """Join neighbouring maps of equal size along channels; the hypercolumn stays the same, with fewer maps to read."""
    merged: list[Tensor] = []
    for part in maps:
        if merged and merged[-1].shape[-1] == part.shape[-1]:
            merged[-1] = torch.cat([merged[-1], part], dim=1)
        else:
            merged.append(part)
    return [part.contiguous(memory_format=torch.channels_last) for part in merged]
