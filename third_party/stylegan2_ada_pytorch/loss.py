"""Losses of StyleGAN2, its regularisers, and the settings of lazy regularisation, as functions of tensors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan2_ada_pytorch.mapping import MappingNetwork


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the generator (Goodfellow et al., 2014): f(-D(G(z))), f the softplus.

    Args:
        fake_logits: `(B, 1)` discriminator output for generated images.

    Returns:
        `(B,)` losses.
    """
    return F.softplus(-fake_logits).sum(dim=1)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Loss of the discriminator (Goodfellow et al., 2014): f(D(G(z))) + f(-D(x)), f the softplus.

    Args:
        real_logits: `(B, 1)` discriminator output for real images.
        fake_logits: `(B, 1)` discriminator output for generated images.

    Returns:
        `(B,)` losses.
    """
    return (F.softplus(fake_logits) + F.softplus(-real_logits)).sum(dim=1)


def r1_penalty(real: Tensor, logits: Tensor) -> Tensor:
    """Squared gradient norm of the discriminator at real images (Mescheder et al., 2018).

    With augmentation, `real` is the image before it: the gradient goes through the pipe.

    Args:
        real: `(B, C, H, W)` images in [-1, 1], with `requires_grad` set.
        logits: `(B, 1)` discriminator output for them.

    Returns:
        `(B,)` penalties, before the weight gamma / 2.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_length_penalty(
    images: Tensor, ws: Tensor, mean_length: Tensor, noise: Tensor | None = None, decay: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Deviation of the path lengths from their running mean (Karras et al., 2020, equation 4).

    The updated mean stays inside the graph of the penalty, as in the published training.

    Args:
        images: `(B, C, H, W)` generated from `ws`.
        ws: `(B, num_ws, w_dim)`, with a graph.
        mean_length: `()` running mean a, 0 at the start.
        noise: `(B, C, H, W)` standard normal direction in image space; drawn by default.
        decay: weight of this batch in the mean.

    Returns:
        `(B,)` penalties before their weight, and the new running mean, detached.
    """
    noise = torch.randn_like(images) if noise is None else noise
    projection = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad(projection, ws, create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    new_mean = mean_length + decay * (lengths.mean() - mean_length)
    return (lengths - new_mean).square(), new_mean.detach()


def mix_styles(
    mapping: MappingNetwork,
    ws: Tensor,
    c: Tensor | None = None,
    probability: float = 0.9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Style mixing (Karras et al., 2019): with the given probability, the later layers follow a second latent.

    One cutoff for the whole batch; the second mapping leaves the mean w alone.

    Args:
        mapping: the generator's mapping network.
        ws: `(B, num_ws, w_dim)`.
        c: `(B, c_dim)` labels of a conditional network.
        probability: of mixing at all.
        generator: random source on the device of `ws`; the global one by default.

    Returns:
        `(B, num_ws, w_dim)`.
    """
    num_ws = ws.shape[1]
    if probability <= 0 or torch.rand((), device=ws.device, generator=generator).item() >= probability:
        return ws
    cutoff = int(torch.randint(1, num_ws, (), device=ws.device, generator=generator))
    z = torch.randn(len(ws), mapping.z_dim, device=ws.device, dtype=ws.dtype, generator=generator)
    other = mapping(z, c, skip_w_avg_update=True)
    return torch.cat([ws[:, :cutoff], other[:, cutoff:]], dim=1)


def lazy_adam(
    lr: float, betas: tuple[float, float] = (0.0, 0.99), interval: int | None = None
) -> dict[str, float | tuple[float, float]]:
    """Adam settings that make up for a regulariser run every `interval` steps (Karras et al., 2020, appendix B).

        optimizer = torch.optim.Adam(D.parameters(), **lazy_adam(lr=0.0025, interval=16), eps=1e-8)

    Args:
        lr: learning rate without lazy regularisation.
        betas: decay rates without it.
        interval: k; None or 0 for no regulariser.

    Returns:
        `lr` and `betas` with c = k / (k + 1): lr c, beta ** c.
    """
    c = interval / (interval + 1) if interval else 1.0
    return {"lr": lr * c, "betas": (float(betas[0] ** c), float(betas[1] ** c))}
