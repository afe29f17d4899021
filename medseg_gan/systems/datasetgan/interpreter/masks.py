"""What of painted masks the interpreter learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_gan.labels import UNLABELLED, LabelTable


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Labelled pixels of each class, `(K,)` int64."""
    return torch.bincount(labels[labels != UNLABELLED].long().flatten(), minlength=num_classes)


def drop_small_classes(labels: Tensor, min_pixels: int) -> Tensor:
    """Make a class background in every image where it has fewer than `min_pixels` pixels (DatasetGAN: 30)."""
    labels = labels.clone()
    for label in labels:
        for index in label.unique().tolist():
            inside = label == index
            if index != UNLABELLED and inside.sum() < min_pixels:
                label[inside] = 0
    return labels


def without_ignored(labels: Tensor, ignore: Sequence[str], table: LabelTable) -> Tensor:
    """Labels in which ignored classes are unlabelled."""
    for name in ignore:
        labels = labels.where(labels != table.id_of(name), UNLABELLED)
    return labels
