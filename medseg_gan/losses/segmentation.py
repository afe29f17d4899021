"""Losses of semantic segmentation; pixels labelled 255 are ignored."""

from __future__ import annotations

import torch
from monai.losses import MaskedDiceLoss
from torch import Tensor
from torch.nn import functional

from medseg_gan.labels import UNLABELLED

_dice = MaskedDiceLoss(softmax=True, to_onehot_y=True, batch=True)


def cross_entropy(logits: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy over labelled pixels.

    Args:
        logits: `(B, K, H, W)`.
        label: `(B, H, W)` class ids, 255 where unlabelled.
        weights: `(K,)` weight of each class; the mean is taken over the weights of the pixels.

    Returns:
        Scalar.
    """
    return functional.cross_entropy(logits.float(), label, weights, ignore_index=UNLABELLED)


def soft_cross_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    """Cross-entropy against soft labels; for two classes the binary cross-entropy of a soft mask.

    Args:
        logits: `(B, K, H, W)`.
        probs: `(B, K, H, W)` in [0, 1], sums over K are 1.

    Returns:
        Scalar, the mean over pixels.
    """
    return functional.cross_entropy(logits.float(), probs)


def soft_dice(logits: Tensor, label: Tensor) -> Tensor:
    """One minus the mean soft Dice of the classes (Milletari et al., 2016), sums taken over the whole batch.

    Over the batch, because a small organ is absent from many slices and its Dice there says nothing.

    Args:
        logits: `(B, K, H, W)`.
        label: `(B, H, W)` class ids, 255 where unlabelled.

    Returns:
        Scalar in [0, 1].
    """
    labelled = (label != UNLABELLED).unsqueeze(1)  # (B, 1, H, W)
    label = label.unsqueeze(1).where(labelled, 0)
    return _dice(logits.float(), label, labelled.float())


def weighted_ce_dice(logits: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy plus soft Dice; `weights` as `class_weights` gives them."""
    return cross_entropy(logits, label, weights) + soft_dice(logits, label)


def class_weights(counts: Tensor) -> Tensor:
    """Weights 1 / sqrt(frequency) of the classes, scaled to mean 1 over the classes that occur.

    Args:
        counts: `(K,)` labelled pixels of each class, of any scale.

    Returns:
        `(K,)` weights; 0 for a class that never occurs, which then has no part in the cross-entropy.
    """
    present = counts > 0
    weights = torch.where(present, counts.double().clamp(min=1e-12).rsqrt(), 0.0)
    return (weights * present.sum() / weights.sum()).float()
