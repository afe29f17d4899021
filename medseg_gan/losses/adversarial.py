"""Adversarial losses of logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim and Ye, 2017): E max(0, 1 - D(real)) + E max(0, 1 + D(fake)).

    Args:
        real: `(B, 1)` logits of real images.
        fake: `(B, 1)` logits of generated images.

    Returns:
        Scalar.
    """
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """The generator's side of the hinge loss: -E D(fake), for `(B, 1)` logits."""
    return -fake.mean()
