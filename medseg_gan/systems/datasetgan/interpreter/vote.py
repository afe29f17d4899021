"""Majority vote, Jensen-Shannon uncertainty and the filter on it (DatasetGAN, Zhang et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from medseg_gan.errors import MedsegError

QUIRK_OFFSET = 30
"""The published filter also drops this many of the *least* uncertain images."""


class Ballot:
    """Votes of an ensemble on the same images, counted as they come: memory does not grow with the members.

    Example:
        ballot = Ballot()
        for probs in members:               # (N, K, H, W) each
            ballot.add(probs)
        label, js = ballot.label("majority"), ballot.uncertainty()
    """

    def __init__(self, calibrate: Callable[[Tensor], Tensor] | None = None) -> None:
        """Begin to count; `calibrate` turns mean probabilities into ones that mean what they say."""
        self.calibrate = calibrate
        self.total = 0.0
        self._votes: Tensor | None = None  # (N, K, H, W) number of members for each class
        self._probs: Tensor | None = None  # (N, K, H, W) sum of probabilities
        self._entropy: Tensor | None = None  # (N, H, W) sum of the members' entropies

    def add(self, probs: Tensor, weight: float = 1.0) -> None:
        """Count one member.

        Args:
            probs: `(N, K, H, W)` class probabilities, summing to 1 over K.
            weight: of this member; unequal weights let a small ensemble weigh as much as a large one.
        """
        votes = torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), weight)
        entropy = weight * _entropy(probs)
        self.total += weight
        if self._votes is None or self._probs is None or self._entropy is None:
            self._votes, self._probs, self._entropy = votes, weight * probs, entropy
        else:
            self._votes += votes
            self._probs += weight * probs
            self._entropy += entropy

    def probs(self) -> Tensor:
        """`(N, K, H, W)` mean of the members' probabilities."""
        assert self._probs is not None, "no member voted"
        return self._probs / self.total

    def calibrated(self) -> Tensor:
        """`(N, K, H, W)` mean of the members' probabilities, calibrated where the ballot knows how."""
        return self.probs() if self.calibrate is None else self.calibrate(self.probs())

    def confidence(self, labels: Tensor) -> Tensor:
        """Mean probability of the class given over the pixels of each class, `(N, K)`; NaN where it was not given."""
        given = self.calibrated().gather(1, labels[:, None].long())[:, 0]
        classes = range(self.probs().shape[1])
        masks = torch.stack([labels == k for k in classes], dim=1)  # (N, K, H, W)
        return (given[:, None] * masks).flatten(2).sum(2) / masks.flatten(2).sum(2)

    def label(self, rule: str) -> Tensor:
        """Class of every pixel, uint8 `(N, H, W)`.

        Args:
            rule: `majority` is the mode of the members' choices, ties going to the smallest class id;
                `probability` is the largest mean probability.

        Raises:
            MedsegError: there is no such rule.
        """
        assert self._votes is not None, "no member voted"
        if rule not in ("majority", "probability"):
            raise MedsegError(f"there is no vote {rule!r}; wanted majority or probability")
        counts = self._votes if rule == "majority" else self.probs()
        return counts.argmax(1).to(torch.uint8)  # argmax gives the first of equals

    def uncertainty(self) -> Tensor:
        """Jensen-Shannon divergence `H(mean p) - mean H(p)` in nats, `(N, H, W)`, between 0 and log(members)."""
        assert self._entropy is not None, "no member voted"
        return (_entropy(self.probs()) - self._entropy / self.total).clamp(min=0)

    def doubt(self, labels: Tensor) -> Tensor:
        """Expected share of wrong pixels by the class they were given, `(N, K)`: a row's sum is that of the image.

        1 minus the mean probability of the class given, summed over the pixels of each class, over all pixels. As good
        as the probabilities are: an ensemble that is sure of its mistakes has no doubt.

        Args:
            labels: `(N, H, W)` class ids.
        """
        probs = self.calibrated()
        missing = 1 - probs.gather(1, labels[:, None].long())[:, 0]
        return torch.stack([(missing * (labels == k)).flatten(1).mean(1) for k in range(probs.shape[1])], dim=1)


def image_score(uncertainty: Tensor) -> Tensor:
    """Uncertainty of an image: the mean of its 10 % most uncertain pixels.

    Args:
        uncertainty: `(N, H, W)`.

    Returns:
        `(N,)`.
    """
    flat = uncertainty.flatten(1)
    return flat.topk(max(flat.shape[1] // 10, 1), dim=1).values.mean(1)


def keep_certain(scores: np.ndarray, portion: float, quirk: bool = False) -> np.ndarray:
    """Positions left when the most uncertain portion is dropped.

    Args:
        scores: `(N,)` image scores; NaN is not allowed.
        portion: share to drop, in [0, 1); exactly `int(N * portion)` images go.
        quirk: as published: the 30 least uncertain go in place of 30 of the most uncertain. Off unless the
            published number itself is wanted.

    Returns:
        Positions kept, int64, ascending.

    Raises:
        MedsegError: the portion is not in [0, 1).
    """
    if not 0 <= portion < 1:
        raise MedsegError(f"the portion of uncertain images to drop is {portion}; wanted a number from 0 to below 1")
    order = np.argsort(scores, kind="stable")
    offset = QUIRK_OFFSET if quirk else 0
    dropped = int(len(scores) * portion)
    return np.sort(order[offset : len(scores) - dropped + offset]).astype(np.int64)


def _entropy(probs: Tensor) -> Tensor:
    """Entropy over the class axis in nats; `0 log 0 = 0`."""
    return torch.special.entr(probs).sum(1)
