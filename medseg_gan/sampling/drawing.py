"""From latents to images, one at a time, so that no image depends on the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from medseg_gan.machine.seeding import mix_seed
from medseg_gan.sampling.latents import NoiseMode
from medseg_gan.sampling.source import Source
from medseg_gan.training.projection import render


@torch.no_grad()
def draw(
    source: Source,
    ws: Tensor,
    noise: NoiseMode = "const",
    noise_seed: int | str = 0,
    noise_maps: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """One picture, in fp32; another batch size would give other last bits.

    Args:
        source: of the picture.
        ws: `(1, num_ws, w_dim)`.
        noise: `const`, `random` or `none`.
        noise_seed: of random noise; the caller's own random numbers are left alone.
        noise_maps: take the place of the stored noise, with `const`.

    Returns:
        `(1, C, R, R)` on the CPU, nominally in [-1, 1], not clipped.
    """
    if noise == "const":
        return render(source.G, ws, dict(noise_maps or {})).float().cpu()
    if noise == "none":
        return source.G.synthesis(ws, noise_mode="none").float().cpu()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if source.device == "cuda" else []):
        torch.manual_seed(mix_seed("noise", noise_seed))
        return source.G.synthesis(ws, noise_mode="random").float().cpu()
