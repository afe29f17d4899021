"""Fréchet distance between the features of two sets of images; called FID only with the published network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.inception import load_inception
from medseg_gan.evaluation.random_conv import RandomConvExtractor
from medseg_gan.machine.seeding import numpy_rng


class Extractor(Protocol):
    """A fixed map from pictures `(B, C, H, W)` in [-1, 1] to features `(B, D)`; see `RandomConvExtractor`."""

    name: str
    weights_sha256: str
    num_features: int
    comparable_to_published_fid: bool

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch."""
        ...

    def to(self, device: Any) -> Any:
        """Move the network."""
        ...


@dataclass(frozen=True)
class FeatureStatistics:
    """What the distance needs to know of a set of pictures.

    Attributes:
        mean: `(D,)` float64.
        covariance: `(D, D)` float64, divided by the number of pictures as in StyleGAN2-ADA's code.
        count: pictures.
        size: (H, W) of the pictures.
        extractor: sha256 of the weights that made the features.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    size: tuple[int, int]
    extractor: str


def extractor_for(path: Path | None) -> Extractor:
    """The published Inception network where its weights are given, else `random-conv-v1`."""
    return RandomConvExtractor() if path is None else load_inception(path)


def metric_name(extractor: Extractor) -> str:
    """`FID` with the published network alone, else `frechet_distance[<extractor>]`."""
    return "FID" if extractor.comparable_to_published_fid else f"frechet_distance[{extractor.name}]"


def describe(extractor: Extractor, n_real: int, n_fake: int) -> dict[str, Any]:
    """What has to stand beside a distance for it to mean anything, as plain values."""
    return {
        "name": metric_name(extractor),
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "n_real": n_real,
        "n_fake": n_fake,
        "comparable_to_published_fid": extractor.comparable_to_published_fid,
    }


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau, 1982), |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½).

    The last trace is the sum of the singular values of S1^½ S2^½, the roots from eigenvalues: real and defined for
    singular covariances, where a general matrix root is neither.

    Args:
        mean1: `(D,)`.
        cov1: `(D, D)`, symmetric.
        mean2: `(D,)`.
        cov2: `(D, D)`, symmetric.

    Returns:
        The distance, at least 0.
    """
    roots = [_root(np.asarray(cov, np.float64)) for cov in (cov1, cov2)]
    cross = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    shift = np.square(np.asarray(mean1, np.float64) - np.asarray(mean2, np.float64)).sum()
    return max(float(shift + sum(np.square(root).sum() for root in roots) - 2 * cross), 0.0)


def feature_statistics(images: Tensor, extractor: Extractor, batch_size: int = 64) -> FeatureStatistics:
    """Statistics of a set of pictures.

    Args:
        images: `(N, C, H, W)` in [-1, 1], N at least 2.
        extractor: the features.
        batch_size: pictures at once.

    Raises:
        MedsegError: fewer than two pictures.
    """
    return _statistics(_features(images, extractor, batch_size), images, extractor)


def half_floor(images: Tensor, extractor: Extractor, seed: int = 0, batch_size: int = 64) -> float:
    """Distance between two random halves of the real pictures: what a perfect generator would score.

    Each half has half the pictures, and the distance of samples of one distribution falls about as one over their
    number: a perfect set as large as the real one scores about half of this.

    Args:
        images: `(N, C, H, W)` in [-1, 1], N at least 4.
        extractor: the features.
        seed: of the cut.
        batch_size: pictures at once.

    Raises:
        MedsegError: fewer than four pictures.
    """
    features = _features(images, extractor, batch_size)
    order = torch.from_numpy(numpy_rng(seed, "half floor").permutation(len(images)))
    halves = order.split((len(order) // 2, len(order) - len(order) // 2))
    first, second = (_statistics(features[half], images, extractor) for half in halves)
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)


class FrechetDistance(Metric):
    """Fréchet distance of generated pictures from a real set, as an Ignite metric; sums over processes.

    Example:
        metric = FrechetDistance(extractor, feature_statistics(real, extractor))
        metric.update(fake)
        metric.compute()
    """

    _state_dict_all_req_keys = ("_total", "_outer", "_count")

    def __init__(
        self,
        extractor: Extractor,
        real_statistics: FeatureStatistics,
        output_transform: Callable[..., Any] = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        """Prepare.

        Args:
            extractor: the features; moved to `device`.
            real_statistics: of the real set, with the same extractor.
            output_transform: from an engine's output to `(B, C, H, W)` images in [-1, 1].
            device: where features and sums live.

        Raises:
            MedsegError: the statistics come from another extractor.
        """
        if real_statistics.extractor != extractor.weights_sha256:
            raise MedsegError(
                f"real statistics come from weights {real_statistics.extractor[:8]}, the extractor {extractor.name} "
                f"has {extractor.weights_sha256[:8]}; compute the statistics again"
            )
        self.extractor, self.real = extractor.to(torch.device(device)), real_statistics
        super().__init__(output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pictures."""
        size = self.extractor.num_features
        # Sums are taken from the real mean, so that no digits are lost where features lie far from 0.
        self._offset = torch.from_numpy(self.real.mean).to(self._device)
        self._total = torch.zeros(size, dtype=torch.float64, device=self._device)
        self._outer = torch.zeros(size, size, dtype=torch.float64, device=self._device)
        self._count = 0

    @reinit__is_reduced
    def update(self, images: Tensor) -> None:
        """Take in generated pictures.

        Args:
            images: `(B, C, H, W)` in [-1, 1], of the real pictures' size.

        Raises:
            MedsegError: another size than the real pictures'.
        """
        size = tuple(images.shape[-2:])
        if size != self.real.size:
            raise MedsegError(f"generated pictures are {size}, the real ones {self.real.size}; wanted one size")
        shifted = self.extractor(images.detach()).double() - self._offset  # (B, D)
        self._total = self._total + shifted.sum(dim=0)
        self._outer = self._outer + shifted.T @ shifted
        self._count += len(shifted)

    @sync_all_reduce("_total", "_outer", "_count")
    def compute(self) -> float:
        """The distance.

        Raises:
            NotComputableError: fewer than two pictures.
        """
        if self._count < 2:
            raise NotComputableError(f"{metric_name(self.extractor)} needs at least two pictures, got {self._count}")
        shift = (self._total / self._count).cpu().numpy()
        covariance = (self._outer / self._count).cpu().numpy() - np.outer(shift, shift)
        return frechet_distance(self.real.mean, self.real.covariance, self.real.mean + shift, covariance)

    @sync_all_reduce("_count")
    def describe(self) -> dict[str, Any]:
        """Name, extractor and numbers of pictures, over all processes, as plain values."""
        return describe(self.extractor, self.real.count, int(self._count))


def _features(images: Tensor, extractor: Extractor, batch_size: int) -> Tensor:
    """`(N, D)` float64 on the CPU."""
    parts = [extractor(part).double().cpu() for part in images.split(batch_size)] if len(images) else []
    return torch.cat(parts) if parts else torch.zeros(0, extractor.num_features, dtype=torch.float64)


def _statistics(features: Tensor, images: Tensor, extractor: Extractor) -> FeatureStatistics:
    if len(features) < 2:
        raise MedsegError(f"found {len(features)} pictures for {metric_name(extractor)}, wanted at least 2")
    values = features.numpy()
    height, width = images.shape[-2:]
    return FeatureStatistics(
        mean=values.mean(axis=0),
        covariance=np.atleast_2d(np.cov(values.T, bias=True)),
        count=len(values),
        size=(height, width),
        extractor=extractor.weights_sha256,
    )


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R Rᵀ the covariance; eigenvalues that rounding made negative are 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0, None))
