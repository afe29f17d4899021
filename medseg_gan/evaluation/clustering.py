"""Agreement of groupings without names: NMI of classes, ARI and covering of segmentations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED


def normalized_mutual_information(pred: np.ndarray, label: np.ndarray) -> float:
    """Mutual information over the mean entropy, 2 I / (H + H) (Yang et al., 2022, table 4).

    Args:
        pred: `(N,)` cluster of each item, any integers.
        label: `(N,)` class of each item, any integers.

    Returns:
        In [0, 1]; 1 where both put everything into one group, 0 where only one of them does.

    Raises:
        MedsegError: shapes differ, or there are no items.
    """
    _same_shape(pred, label)
    if not label.size:
        raise MedsegError("found no items to compare; wanted at least one")
    joint = contingency(pred, label) / label.size
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    entropies = _entropy(rows) + _entropy(columns)
    if entropies == 0:
        return 1.0
    return float(np.clip(2 * (entropies - _entropy(joint)) / entropies, 0, 1))


def adjusted_rand_index(pred: np.ndarray, label: np.ndarray) -> float:
    """Adjusted Rand index over the pixels of each image (Hubert and Arabie, 1985), averaged over images.

    Background counts as a segment like any other.

    Args:
        pred: `(N, H, W)` segments of each image, any integers.
        label: `(N, H, W)` segments of each image, 255 where unlabelled.

    Returns:
        At most 1, about 0 for chance. An image scores 1 where both show one segment (or every pixel its own), and 0
        where only one of them does. Images without labelled pixels are left out.

    Raises:
        MedsegError: shapes differ, or no image has a labelled pixel.
    """
    return float(np.mean([_adjusted_rand(table) for table in _tables(pred, label)]))


def mean_segmentation_covering(pred: np.ndarray, label: np.ndarray) -> float:
    """How well each true segment is covered by its best predicted one (Engelcke et al., 2020), averaged over images.

    Per image: the unweighted mean over true segments, background included, of the largest IoU with a predicted one.

    Args:
        pred: `(N, H, W)` segments of each image, any integers.
        label: `(N, H, W)` segments of each image, 255 where unlabelled.

    Returns:
        In (0, 1]. An image with one true segment scores that segment's best IoU; images without labelled pixels are
        left out.

    Raises:
        MedsegError: shapes differ, or no image has a labelled pixel.
    """
    return float(np.mean([_covering(table) for table in _tables(pred, label)]))


def contingency(pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """How often each pair of groups occurs: `(labels, predictions)` int64, groups that do not occur left out."""
    _, row = np.unique(label.reshape(-1), return_inverse=True)
    _, column = np.unique(pred.reshape(-1), return_inverse=True)
    shape = (row.max(initial=-1) + 1, column.max(initial=-1) + 1)
    return np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)


def _tables(pred: np.ndarray, label: np.ndarray) -> Iterator[np.ndarray]:
    _same_shape(pred, label)
    known = label != UNLABELLED
    if not known.any():
        raise MedsegError(f"none of {len(label)} images has a labelled pixel; wanted at least one")
    for p, t, kept in zip(pred, label, known, strict=True):
        if kept.any():
            yield contingency(p[kept], t[kept])


def _adjusted_rand(table: np.ndarray) -> float:
    pairs, rows, columns = (_pairs(part) for part in (table, table.sum(axis=1), table.sum(axis=0)))
    total = _pairs(table.sum())
    expected = rows * columns / total if total else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (pairs - expected) / (most - expected)


def _covering(table: np.ndarray) -> float:
    union = table.sum(axis=1, keepdims=True) + table.sum(axis=0, keepdims=True) - table
    return float((table / union).max(axis=1).mean())


def _pairs(counts: np.ndarray) -> float:
    counts = counts.astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return max(float(-(shares * np.log(shares)).sum()), 0.0)


def _same_shape(pred: np.ndarray, label: np.ndarray) -> None:
    if pred.shape != label.shape:
        raise MedsegError(f"prediction has shape {pred.shape}, label {label.shape}")
