"""Projection: the latent and noise maps whose image is nearest to a given one (Karras et al., 2020, appendix D)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from medseg_gan.losses.projection import feature_distance, noise_correlation, pyramid_distance
from medseg_gan.machine.seeding import torch_generator
from medseg_gan.training.feature_maps import FeatureMaps
from stylegan2_ada_pytorch import Generator

Space = Literal["w", "w+"]


@dataclass(frozen=True)
class ProjectionSettings:
    """How an image is projected; the defaults are the paper's but for the number of steps.

    Attributes:
        space: `w`: one vector for all layers; `w+`: one for each layer (Abdal et al., 2019), nearer to the image and
            farther from what the generator was trained to draw.
        steps: of Adam; the paper takes 1000.
        seed: of the samples that measure w, of the first noise maps and of the noise added to w.
        noise_maps: whether noise maps are optimised too; else the stored ones stay.
        lr: learning rate between ramps.
        rampup: share of the steps in which it rises.
        rampdown: share of the steps in which it falls.
        w_samples: latents that measure the mean and spread of w.
        w_noise: noise added to w at first, in spreads of w.
        w_noise_until: share of the steps in which it fades.
        noise_weight: of `noise_correlation`.
        pixel_weight: of `pyramid_distance` beside `feature_distance`.
    """

    space: Space = "w"
    steps: int = 500
    seed: int = 0
    noise_maps: bool = True
    lr: float = 0.1
    rampup: float = 0.05
    rampdown: float = 0.25
    w_samples: int = 10_000
    w_noise: float = 0.05
    w_noise_until: float = 0.75
    noise_weight: float = 1e5
    pixel_weight: float = 10.0


@dataclass(frozen=True)
class Projection:
    """What was found.

    Attributes:
        ws: `(B, num_ws, w_dim)`.
        noise: `(r, r)` noise maps by their names in `G.synthesis`.
        image: `(B, C, R, R)`, rendered from both.
        mean_image: `(1, C, R, R)` of the mean w, where the search began.
        history: `distance` (the mean of several images) and `noise` of each step, and the learning rate `lr`.
    """

    ws: Tensor
    noise: dict[str, Tensor]
    image: Tensor
    mean_image: Tensor
    history: dict[str, list[float]]


def project(
    G: Generator,
    target: Tensor,
    features: FeatureMaps,
    settings: ProjectionSettings,
    c: Tensor | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Projection:
    """Find the latent of an image, or those of several at once, each as if it were alone but for rounding.

    The distance is not the paper's LPIPS, whose VGG weights are not part of this package: it is `feature_distance` in
    `features` plus `pyramid_distance` of the pixels.

    Args:
        G: in evaluation mode, without gradients.
        target: `(B, C, R, R)` in [-1, 1]; noise maps are searched for one image only.
        features: feature maps for the comparison.
        settings: of the search.
        c: `(1, c_dim)` label of a conditional generator.
        on_step: called with the distance after each step.

    Returns:
        Latent, noise maps and image; the same on every call with the same arguments on one machine.
    """
    s, device = settings, target.device
    assert len(target) == 1 or not s.noise_maps, "images of one batch share the noise maps"
    draws = torch_generator(s.seed, "projection")
    w_mean, w_std = w_statistics(G, s, c)
    noise = first_noise(G, draws if s.noise_maps else None)
    w = w_mean.repeat(len(target), G.num_ws if s.space == "w+" else 1, 1).requires_grad_(True)
    trained = list(noise.values()) if s.noise_maps else []
    optimizer = torch.optim.Adam([w, *(value.requires_grad_(True) for value in trained)], betas=(0.9, 0.999))
    history: dict[str, list[float]] = {"distance": [], "noise": [], "lr": []}

    with repeatable():
        with torch.no_grad():
            mean_image = render(G, w[:1], noise)
            wanted = features(target)
        for step in range(s.steps):
            t = step / s.steps
            lr = optimizer.param_groups[0]["lr"] = learning_rate(t, s)
            spread = s.w_noise * w_std * max(0.0, 1 - t / s.w_noise_until) ** 2
            jitter = torch.randn(w[:1].shape, generator=draws).to(device)  # the same for all, as each alone would have
            image = render(G, w + spread * jitter, noise)
            distance = feature_distance(features(image), wanted) + s.pixel_weight * pyramid_distance(image, target)
            correlation = sum((noise_correlation(value) for value in trained), distance.new_zeros(()))
            optimizer.zero_grad(set_to_none=True)
            (distance.sum() + s.noise_weight * correlation).backward()
            optimizer.step()
            with torch.no_grad():
                for value in trained:
                    value.sub_(value.mean()).mul_(value.square().mean().clamp_min(1e-12).rsqrt())
            for name, number in (("distance", distance.mean().item()), ("noise", correlation.item()), ("lr", lr)):
                history[name].append(number)
            if on_step:
                on_step(history["distance"][-1])
        with torch.no_grad():
            image = render(G, w, noise)
    ws = w.detach().expand(-1, G.num_ws, -1).clone()
    return Projection(ws, {name: value.detach() for name, value in noise.items()}, image, mean_image, history)


def first_noise(G: Generator, draws: torch.Generator | None) -> dict[str, Tensor]:
    """Noise maps by name that a search begins with: drawn, or without `draws` copies of the stored ones."""
    stored = {name: value for name, value in G.synthesis.named_buffers() if name.endswith("noise_const")}
    if draws is None:
        return {name: value.detach().clone() for name, value in stored.items()}
    return {name: torch.randn(value.shape, generator=draws).to(value.device) for name, value in stored.items()}


def render(G: Generator, w: Tensor, noise: dict[str, Tensor]) -> Tensor:
    """Images `(B, C, R, R)` of `(B, 1 or num_ws, w_dim)` with noise maps of their own in place of the stored ones."""
    ws = w.expand(-1, G.num_ws, -1)
    return functional_call(G.synthesis, noise, (ws,), {"noise_mode": "const"})


@torch.no_grad()
def w_statistics(G: Generator, settings: ProjectionSettings, c: Tensor | None) -> tuple[Tensor, float]:
    """Mean `(1, 1, w_dim)` of w and its spread, the root mean squared distance from it."""
    draws = torch_generator(settings.seed, "w statistics")
    z = torch.randn(settings.w_samples, G.z_dim, generator=draws).to(next(G.parameters()).device)
    parts = z.split(1000)
    w = torch.cat([G.mapping(part, None if c is None else c.expand(len(part), -1))[:, 0] for part in parts])
    mean = w.mean(dim=0, keepdim=True)
    return mean[:, None], (w - mean).square().sum(dim=1).mean().sqrt().item()


def learning_rate(t: float, settings: ProjectionSettings) -> float:
    """Learning rate when the share `t` of the steps is done: a linear rise, a plateau, a cosine fall."""
    fall = min(1.0, (1 - t) / settings.rampdown)
    return settings.lr * (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, t / settings.rampup)


@contextmanager
def repeatable() -> Iterator[None]:
    """Let a GPU's convolutions add up in the same order each time."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
