"""Calibrated probabilities: scaling fitted on images that were not trained on (Guo et al., 2017)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED

METHODS = ("temperature", "per_class")
BINS = 15
PRIOR = 1e-3
"""Pull of each class's own scale and bias towards none: classes with few pixels must not run away."""
SMALLEST = 1e-6
"""Probabilities below this are as good as none."""


@dataclass(frozen=True)
class Calibration:
    """Calibrated probabilities are the softmax of `scale * log p + bias`.

    Attributes:
        method: `temperature`, one scale for all classes, or `per_class`, a scale and a bias for each.
        scale: `(K,)`; below 1 where the labeller is too sure.
        bias: `(K,)`.
    """

    method: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def __call__(self, probs: Tensor) -> Tensor:
        """Calibrate probabilities `(N, K, ...)`; sums over K stay 1."""
        shape = (1, -1, *[1] * (probs.ndim - 2))
        scale, bias = (torch.tensor(one, device=probs.device).reshape(shape) for one in (self.scale, self.bias))
        return (scale * probs.float().clamp(min=SMALLEST).log() + bias).softmax(1)

    def plain(self) -> dict[str, Any]:
        """As `interpreter.json` holds it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, found: dict[str, Any]) -> Calibration:
        """Read what `plain` gave."""
        return cls(found["method"], tuple(found["scale"]), tuple(found["bias"]))


def fit_calibration(probs: Tensor, truth: Tensor, method: str = "temperature") -> Calibration:
    """Find the scaling under which the truth is most probable.

    Args:
        probs: `(P, K)` of pixels the labeller did not learn from.
        truth: `(P,)` their class ids; 255 is left out.
        method: `temperature` or `per_class`.

    Raises:
        MedsegError: an unknown method, or no labelled pixel.
    """
    if method not in METHODS:
        raise MedsegError(f"there is no calibration {method!r}; wanted one of {', '.join(METHODS)}")
    known = truth != UNLABELLED
    if not known.any():
        raise MedsegError("no labelled pixel to calibrate with; look at the masks")
    logs, target = probs[known].double().clamp(min=SMALLEST).log(), truth[known].long()
    classes = logs.shape[1]
    common = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    own = torch.zeros(2, classes, dtype=torch.float64, requires_grad=method == "per_class")
    learnt = [common, own] if method == "per_class" else [common]
    optimizer = torch.optim.LBFGS(learnt, max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = (common + own[0]).exp() * logs + own[1]
        value = torch.nn.functional.cross_entropy(logits, target) + PRIOR * own.square().sum()
        if value.requires_grad:
            value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    scale = (common + own[0]).exp().detach()
    return Calibration(method, tuple(scale.tolist()), tuple(own[1].detach().tolist()))


class CalibrationError:
    """Expected calibration error of pixels: the mean of `|confidence - accuracy|` over bins of confidence."""

    def __init__(self, num_classes: int) -> None:
        """Begin with no pixel; rows of the counts are the classes and, last, the class given."""
        self.pixels, self.confidence, self.right = np.zeros((3, num_classes + 1, BINS))

    def add(self, probs: Tensor, truth: np.ndarray) -> None:
        """Count images.

        Args:
            probs: `(N, K, H, W)`.
            truth: `(N, H, W)` class ids, 255 where unlabelled.
        """
        rows = probs.detach().float().cpu().movedim(1, -1).reshape(-1, probs.shape[1]).numpy()
        known = truth.reshape(-1) != UNLABELLED
        rows, target = rows[known], truth.reshape(-1)[known]
        for k in range(rows.shape[1]):
            self._count(k, rows[:, k], target == k)
        given = rows.argmax(1)
        self._count(-1, rows.max(1), given == target)

    def _count(self, row: int, confidence: np.ndarray, right: np.ndarray) -> None:
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        self.pixels[row] += np.bincount(bins, minlength=BINS)
        self.confidence[row] += np.bincount(bins, confidence, minlength=BINS)
        self.right[row] += np.bincount(bins, right, minlength=BINS)

    def result(self) -> dict[str, Any]:
        """`given`: of the probability of the class given; `per_class`: of each class's probability, and their mean."""
        gaps = np.abs(self.confidence - self.right).sum(1) / np.maximum(self.pixels.sum(1), 1)
        return {"given": float(gaps[-1]), "per_class": gaps[:-1].tolist(), "mean_of_classes": float(gaps[:-1].mean())}
