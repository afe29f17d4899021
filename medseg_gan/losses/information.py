"""Mutual information between codes and images, by the variational bound of InfoGAN (Chen et al., 2016)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def categorical_code_loss(logits: Tensor, code: Tensor) -> Tensor:
    """-log q(c | image) of a one-hot code: cross-entropy of the encoder's logits.

    Args:
        logits: `(B, d)`.
        code: `(B, d)` one-hot.

    Returns:
        Scalar; log d for an encoder that knows nothing.
    """
    return functional.cross_entropy(logits, code.argmax(dim=1))


def gaussian_code_loss(mean: Tensor, code: Tensor) -> Tensor:
    """-log q(c | image) of a Gaussian code with unit variance, up to a constant: half the squared error, summed over d.

    Args:
        mean: `(B, d)` the encoder's means.
        code: `(B, d)` from N(0, 1).

    Returns:
        Scalar; d / 2 for an encoder that knows nothing.
    """
    return 0.5 * (mean - code).square().sum(dim=1).mean()
