"""Exponential moving average of a generator's weights, its half-life counted in images."""

from __future__ import annotations

import torch
from torch import nn


def ema_beta(batch_size: int, images_seen: int, ema_kimg: float, rampup: float | None) -> float:
    """Weight of the old average for one step (Karras et al., 2020, official training loop).

    Args:
        batch_size: images in this step.
        images_seen: real images seen before this step.
        ema_kimg: half-life, thousands of images.
        rampup: the half-life is at most this fraction of `images_seen`; None for no ramp.

    Returns:
        beta in [0, 1): after `ema_kimg` thousand images an old value has weight 1/2.
    """
    half_life = ema_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (batch_size / max(half_life, 1e-8))


@torch.no_grad()
def update_ema(
    G_ema: nn.Module, G: nn.Module, batch_size: int, images_seen: int, ema_kimg: float, rampup: float | None = None
) -> None:
    """Move the averaged weights towards the current ones; buffers (average w, fixed noise) are copied.

    Args:
        G_ema: the averaged network, changed in place.
        G: the network in training, of the same layout.
        batch_size: images in this step.
        images_seen: real images seen before this step.
        ema_kimg: half-life, thousands of images.
        rampup: see `ema_beta`.
    """
    beta = ema_beta(batch_size, images_seen, ema_kimg, rampup)
    average(G_ema, G, beta, buffers=False)


@torch.no_grad()
def average(G_ema: nn.Module, G: nn.Module, beta: float, buffers: bool = True) -> None:
    """Move averaged weights towards the current ones by `1 - beta`.

    torch's `AveragedModel` names its weights otherwise, counts its updates and has no decay that depends on the images
    seen; what it does to weights is the same.

    Args:
        G_ema: the averaged network, changed in place.
        G: the network in training, of the same layout.
        beta: weight of the old average.
        buffers: whether those with a fraction (running statistics of norms) are averaged too, or copied like counts.
    """
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - beta)
    for mean, current in zip(G_ema.buffers(), G.buffers(), strict=True):
        mean.lerp_(current, 1 - beta) if buffers and mean.is_floating_point() else mean.copy_(current)
