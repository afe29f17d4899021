"""How far images are from the nearest real ones, relative to how far real ones are from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.frechet import Extractor

AT_MOST = 2000
"""Real pictures looked at, evenly chosen: the nearest of more is hardly nearer, and this bounds the cost."""


def looked_at(count: int) -> np.ndarray:
    """Positions of those of `count` real pictures that are looked at; giving only them changes nothing."""
    return np.unique(np.linspace(0, count - 1, min(count, AT_MOST)).round().astype(int))


class Realism:
    """Distance of pictures to the nearest real one, in the features of an extractor.

    Each feature is divided by its standard deviation over the real pictures. Distances are given in units of the median
    distance between a real picture and the nearest one of another group: 1 is as far as a new patient.

    Args:
        real: `(M, C, H, W)` in [-1, 1], M at least 1.
        groups: M names; pictures of one group (a patient) do not count as each other's neighbours. A single group
            counts as one group per picture.
        extractor: the features; `random-conv-v1` needs no trained weights.
        batch_size: pictures at once.

    Raises:
        MedsegError: no picture, or not as many names as pictures.
    """

    def __init__(self, real: Tensor, groups: Sequence[str], extractor: Extractor, batch_size: int = 64) -> None:
        if not len(real) or len(groups) != len(real):
            raise MedsegError(f"{len(real)} real pictures and {len(groups)} groups; wanted at least one, each named")
        chosen = looked_at(len(real))
        self.extractor, self.batch_size = extractor, batch_size
        features = self._features(real[torch.from_numpy(chosen)])
        self._scale = features.std(0, unbiased=False).clamp(min=1e-6)
        self._real = features / self._scale
        names, number = np.unique(np.asarray(groups)[chosen], return_inverse=True)
        number = number if len(names) > 1 else np.arange(len(chosen))
        apart = torch.cdist(self._real, self._real)
        nearest = apart.masked_fill(torch.from_numpy(number[:, None] == number[None]), torch.inf).amin(1)
        self._unit = float(nearest.median()) if len(chosen) > 1 else 1.0
        self._unit = self._unit or 1.0  # all alike

    def distances(self, pictures: Tensor) -> np.ndarray:
        """Distance of each picture `(N, C, H, W)` in [-1, 1] to the nearest real one, `(N,)` float64, at least 0."""
        apart = torch.cdist(self._features(pictures) / self._scale, self._real)
        return (apart.amin(1) / self._unit).numpy()

    def _features(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.extractor(part).double().cpu() for part in pictures.split(self.batch_size)])
