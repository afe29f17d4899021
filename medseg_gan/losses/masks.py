"""Losses of soft masks: how binary they are, how large, and what a background must not show."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def binarisation_loss(mask: Tensor) -> Tensor:
    """Mean of min(pi, 1 - pi), which asks each pixel to decide (Bielski and Favaro, 2019; Yang et al., 2022).

    Args:
        mask: `(B, 1, H, W)` in [0, 1].

    Returns:
        Scalar in [0, 0.5].
    """
    return torch.minimum(mask, 1 - mask).mean()


def size_loss(mask: Tensor, least: float = 0.25) -> Tensor:
    """How far each mask's area falls below `least` (Bielski and Favaro, 2019): mean of max(0, least - mean pi).

    Args:
        mask: `(B, 1, H, W)` in [0, 1].
        least: area from which nothing is asked, as a share of the image.

    Returns:
        Scalar.
    """
    return functional.relu(least - mask.flatten(1).mean(dim=1)).mean()


def background_loss(logits: Tensor) -> Tensor:
    """Background pixels that a segmenter takes for foreground (Yang et al., 2022, eq. 8, its sign mended).

    From logits: where F is sure of a foreground, 1 - F(x_b) has no gradient left.

    Args:
        logits: `(B, 2, H, W)` of the segmenter on background layers, background first.

    Returns:
        Scalar, -mean log(1 - F(x_b)).
    """
    return -functional.log_softmax(logits.float(), dim=1)[:, 0].mean()
