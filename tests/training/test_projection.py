"""Projection: what a generator drew is found again, and the search keeps the paper's schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from medseg_gan.training.feature_maps import DiscriminatorMaps, RandomMaps
from medseg_gan.training.projection import ProjectionSettings, learning_rate, project, render, w_statistics
from stylegan2_ada_pytorch import Discriminator, Generator

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {"steps": 100, "w_samples": 500}


def build(channels: int = 1, c_dim: int = 0, noise: float = 0.0, size: int = 16) -> Generator:
    torch.manual_seed(3)
    G = Generator(
        8,
        c_dim,
        8,
        size,
        channels,
        mapping_kwargs={"num_layers": 2},
        synthesis_kwargs={"channel_base": 256, "channel_max": 16},
    )
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(noise)
    return G.eval().requires_grad_(False)


def pictures(G: Generator, count: int, seed: int = 9, c: Tensor | None = None) -> Tensor:
    z = torch.randn(count, G.z_dim, generator=torch.Generator().manual_seed(seed))
    return G(z, None if c is None else c.expand(count, -1), noise_mode="const")  # type: ignore[return-value]


def apart(one: Tensor, other: Tensor) -> float:
    return (one - other).square().mean().item()


@pytest.mark.parametrize(("channels", "c_dim", "space"), [(1, 0, "w"), (3, 0, "w+"), (1, 3, "w")])
def test_a_generated_picture_is_found_again(channels: int, c_dim: int, space: Any) -> None:
    G = build(channels, c_dim)
    c = torch.eye(c_dim)[1:2] if c_dim else None
    target, others = pictures(G, 1, c=c), pictures(G, 20, seed=1, c=c)
    found = project(G, target, RandomMaps(), ProjectionSettings(space=space, **QUICK), c)
    nearest = min(apart(other[None], target) for other in others)
    assert apart(found.image, target) < 0.25 * nearest
    assert apart(found.image, target) < 0.05 * apart(found.mean_image, target)
    assert found.history["distance"][-1] < 0.1 * found.history["distance"][0]
    assert len(found.history["lr"]) == QUICK["steps"]


def test_w_has_one_latent_and_w_plus_one_a_layer() -> None:
    G = build()
    target = pictures(G, 1)
    w = project(G, target, RandomMaps(), ProjectionSettings(steps=3, w_samples=50)).ws
    plus = project(G, target, RandomMaps(), ProjectionSettings(steps=3, w_samples=50, space="w+")).ws
    assert w.shape == plus.shape == (1, G.num_ws, G.w_dim)
    assert torch.equal(w[:, :1].expand_as(w), w)
    assert not torch.equal(plus[:, 0], plus[:, 1])


def test_the_same_seed_gives_the_same_projection_and_disturbs_nobody() -> None:
    G = build(noise=0.2)
    target, before = pictures(G, 1), {name: value.clone() for name, value in G.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = project(G, target, RandomMaps(), ProjectionSettings(steps=5, w_samples=50))
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers are left alone"
    again = project(G, target, RandomMaps(), ProjectionSettings(steps=5, w_samples=50))
    other = project(G, target, RandomMaps(), ProjectionSettings(steps=5, w_samples=50, seed=1))
    assert torch.equal(first.image, again.image) and torch.equal(first.ws, again.ws)
    assert not torch.equal(first.ws, other.ws)
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())
    assert not any(parameter.requires_grad for parameter in G.parameters())


def test_images_together_are_projected_as_each_alone() -> None:
    G = build(noise=0.2)
    targets = pictures(G, 3)
    settings = ProjectionSettings(steps=12, w_samples=50, space="w+", noise_maps=False)
    together = project(G, targets, RandomMaps(), settings)
    for k, target in enumerate(targets):
        alone = project(G, target[None], RandomMaps(), settings)
        torch.testing.assert_close(together.ws[k], alone.ws[0], atol=1e-3, rtol=1e-3)
        assert not torch.allclose(together.ws[k], together.ws[(k + 1) % 3], atol=1e-2)


def test_the_image_is_that_of_latent_and_noise_maps() -> None:
    G = build(noise=0.2, size=32)
    target = pictures(G, 1)
    found = project(G, target, RandomMaps(), ProjectionSettings(steps=20, w_samples=50))
    assert torch.equal(render(G, found.ws, found.noise), found.image)
    for noise in found.noise.values():
        assert abs(noise.mean().item()) < 1e-4 and noise.square().mean().item() == pytest.approx(1, rel=1e-3)
    kept = project(G, target, RandomMaps(), ProjectionSettings(steps=5, w_samples=50, noise_maps=False))
    assert torch.equal(kept.image, G.synthesis(kept.ws, noise_mode="const"))


def test_noise_maps_stay_noise_while_they_are_searched() -> None:
    G = build(noise=0.5)
    target = torch.zeros(1, 1, 16, 16)
    target[..., 8:] = 1  # no picture of this generator: an unguarded search would draw it with the noise
    guarded = project(G, target, RandomMaps(), ProjectionSettings(steps=40, w_samples=50))
    free = project(G, target, RandomMaps(), ProjectionSettings(steps=40, w_samples=50, noise_weight=0))
    assert guarded.history["noise"][-1] < 0.1 * free.history["noise"][-1]


def test_features_of_the_discriminator_serve_too() -> None:
    G = build(3)
    torch.manual_seed(0)
    D = Discriminator(0, 16, 3, channel_base=256, channel_max=16)
    target = pictures(G, 1)
    found = project(G, target, DiscriminatorMaps(D), ProjectionSettings(**QUICK))
    assert apart(found.image, target) < 0.05 * apart(found.mean_image, target)


def test_w_statistics_are_those_of_the_mapped_latents() -> None:
    G = build()
    mean, spread = w_statistics(G, ProjectionSettings(w_samples=3000), None)
    w = G.mapping(torch.randn(3000, 8, generator=torch.Generator().manual_seed(4)))[:, 0]
    assert mean.shape == (1, 1, 8)
    torch.testing.assert_close(mean[0, 0], w.mean(dim=0), atol=0.1, rtol=0)
    assert spread == pytest.approx((w - w.mean(dim=0)).norm(dim=1).square().mean().sqrt().item(), rel=0.05)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    s = ProjectionSettings(lr=0.1)
    assert [learning_rate(t, s) for t in (0, 0.025, 0.05, 0.5, 0.75)] == pytest.approx([0, 0.05, 0.1, 0.1, 0.1])
    assert learning_rate(0.875, s) == pytest.approx(0.05)
    assert learning_rate(1, s) == pytest.approx(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_have_levels_and_gradients(channels: int) -> None:
    image = torch.rand(2, channels, 16, 16, requires_grad=True)
    for maps, sides in (
        (RandomMaps(), [8, 4, 2, 1]),
        (DiscriminatorMaps(Discriminator(0, 16, channels, channel_base=256, channel_max=16)), [8, 4]),
    ):
        levels = maps(image)
        assert [level.shape[-1] for level in levels] == sides
        (gradient,) = torch.autograd.grad(sum(level.sum() for level in levels), image)  # type: ignore[arg-type]
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(maps(image[1:])[0], levels[0][1:], atol=1e-5, rtol=1e-5)


def test_large_images_are_averaged_down_before_comparing() -> None:
    image = torch.rand(1, 1, 512, 512)
    halved = torch.nn.functional.avg_pool2d(image, 2)
    assert torch.equal(RandomMaps()(image)[0], RandomMaps()(halved)[0])
