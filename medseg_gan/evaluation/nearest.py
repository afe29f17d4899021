"""Nearest slices of other patients: two distances between slices, and their search in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.random_conv import RandomConvExtractor

GRID = 64
"""Side in pixels on which slices are compared; larger ones are averaged down to it."""
SMALLEST = 16


@dataclass(frozen=True)
class SliceSet:
    """Slices that are loaded when they are needed.

    Example:
        gan = store.indices("gan")
        training = SliceSet(store.image_tensor, gan, [store.records[k].patient for k in gan])

    Attributes:
        load: rows to `(N, 1, H, W)` images in [-1, 1].
        rows: `(N,)` int64, what `load` is asked for.
        patients: whose slice each row is.
    """

    load: Callable[[np.ndarray], Tensor]
    rows: np.ndarray
    patients: Sequence[str]

    def __post_init__(self) -> None:
        """Check that rows and patients belong together."""
        if len(self.rows) != len(self.patients):
            raise MedsegError(f"{len(self.rows)} slices with {len(self.patients)} patients; wanted one patient each")

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.rows)

    @classmethod
    def of(cls, images: Tensor, patients: Sequence[str]) -> SliceSet:
        """Images that are in memory, `(N, C, H, W)` in [-1, 1]."""
        return cls(lambda rows: images[torch.from_numpy(rows)], np.arange(len(images)), list(patients))

    def take(self, positions: np.ndarray) -> SliceSet:
        """Some of the slices."""
        return SliceSet(self.load, self.rows[positions], [self.patients[k] for k in positions])


class Measure(Protocol):
    """A distance between two slices: the Euclidean one of their vectors, the least over some versions of the first.

    Attributes:
        name: as the results call it.
    """

    name: str

    def keys(self, images: Tensor) -> Tensor:
        """`(B, D)` vectors of slices that are searched."""
        ...

    def queries(self, images: Tensor) -> Tensor:
        """`(B, V, D)` vectors of slices whose nearest is wanted, in V versions."""
        ...


class PixelMeasure:
    """Distance of pixels that neither a small shift nor a change of contrast or brightness alters.

    Slices are averaged down to 64 x 64, smoothed by a box of 4 x 4 and sampled at every fourth pixel, which leaves
    about 15 x 15 values; a vector is these values less their mean, of length 1. The first slice is tried at all shifts
    of up to 2 pixels of the 64, a thirty-second of the side. The distance is sqrt(2 - 2 r), with r the greatest
    correlation coefficient: 0 for copies, 1.41 for slices that have nothing to do with each other.
    """

    name = "pixels"

    def keys(self, images: Tensor) -> Tensor:
        """`(B, D)` vectors of the slices as they are."""
        smooth, stride, reach = _smooth(images)
        return _window(smooth, stride, reach, reach, reach)

    def queries(self, images: Tensor) -> Tensor:
        """`(B, V, D)` vectors of the slices at every shift."""
        smooth, stride, reach = _smooth(images)
        shifts = range(2 * reach + 1)
        return torch.stack([_window(smooth, stride, reach, row, column) for row in shifts for column in shifts], dim=1)


def _smooth(images: Tensor) -> tuple[Tensor, int, int]:
    """Slices `(B, H, W)` on the grid, smoothed; step between the pixels that count, and largest shift."""
    side = min(GRID, *images.shape[-2:])
    x = images.float().mean(dim=1, keepdim=True)
    if tuple(x.shape[-2:]) != (side, side):
        x = F.interpolate(x, (side, side), mode="area")
    stride = max(1, side // 16)
    return F.avg_pool2d(x, stride, 1)[:, 0], stride, max(1, side // 32)


def _window(smooth: Tensor, stride: int, reach: int, row: int, column: int) -> Tensor:
    height, width = (size - 2 * reach for size in smooth.shape[-2:])
    values = smooth[:, row : row + height : stride, column : column + width : stride].flatten(1)
    values = values - values.mean(dim=1, keepdim=True)
    return F.normalize(values, dim=1, eps=1e-6)  # a slice of one grey is nothing's neighbour


class FeatureMeasure:
    """Euclidean distance of the features of `random-conv-v1`: texture over the slice, layout by quarters."""

    name = "features"

    def __init__(self, device: str = "cpu") -> None:
        self.extractor = RandomConvExtractor().to(device)

    def keys(self, images: Tensor) -> Tensor:
        """`(B, 216)` features."""
        return self.extractor(images)

    def queries(self, images: Tensor) -> Tensor:
        """`(B, 1, 216)` features."""
        return self.extractor(images)[:, None]


@dataclass(frozen=True)
class Neighbours:
    """Nearest slices of some queries.

    Attributes:
        distance: `(Q,)` float64 to the nearest slice; infinite where there is none.
        position: `(Q,)` int64 of that slice in the set searched.
        by_patient: `(Q, P)` float32 distance to the nearest slice of each patient, infinite for a patient left out.
    """

    distance: np.ndarray
    position: np.ndarray
    by_patient: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """`(Q,)` distance to the nearest slice by that to the nearest one of any other patient; 0 if there is none.

        The nearest slices of one patient are neighbours of each other, so a second slice tells nothing: a second
        patient does. Carlini et al. (2023) divide by half the mean over the 50 nearest images instead.
        """
        if self.by_patient.shape[1] < 2:
            return np.zeros(len(self.distance))
        second = np.partition(self.by_patient.astype(np.float64), 1, axis=1)[:, 1]
        there = np.isfinite(second) & (second > 0)
        return np.where(there, self.distance / np.where(there, second, 1.0), 0.0)


class Searched:
    """A set of slices ready to be searched: its vectors are made once, in blocks, and kept.

    Args:
        slices: the set.
        measure: the distance.
        device: where to compute.
        block: slices in memory at once.

    Raises:
        MedsegError: there is no slice, or it is no picture.
    """

    def __init__(self, slices: SliceSet, measure: Measure, device: str = "cpu", block: int = 64) -> None:
        if not len(slices):
            raise MedsegError("there is no training slice to compare with; wanted at least one")
        self.measure, self.device, self.block = measure, device, block
        self.size = _size(slices)
        parts = [measure.keys(_images(slices, part, self.size, device)) for part in _blocks(len(slices), block)]
        keys = torch.cat(parts)
        self._centre = keys.mean(dim=0)  # shorter vectors lose fewer digits in |q|² + |k|² - 2 q·k
        self._keys = keys - self._centre
        self._squares = self._keys.square().sum(dim=1)
        names = {patient: number for number, patient in enumerate(dict.fromkeys(slices.patients))}
        self.patients = list(names)
        self._owner = torch.tensor([names[patient] for patient in slices.patients], device=device)

    @torch.no_grad()
    def nearest(self, queries: SliceSet, others_only: bool = False) -> Neighbours:
        """Nearest slice of each query.

        Args:
            queries: slices of the searched set's size.
            others_only: leave out slices of the query's own patient.

        Raises:
            MedsegError: slices of another size.
        """
        names = {patient: number for number, patient in enumerate(self.patients)}
        distance, position, by_patient = [], [], []
        for part in _blocks(len(queries), self.block):
            squared = self._squared(_images(queries, part, self.size, self.device))
            if others_only:
                own = torch.tensor([names.get(queries.patients[k], -1) for k in part], device=self.device)
                squared = squared.masked_fill(own[:, None] == self._owner[None], torch.inf)
            least, where = squared.min(dim=1)
            empty = squared.new_full((len(squared), len(self.patients)), torch.inf)
            each = empty.scatter_reduce(1, self._owner.expand(len(squared), -1), squared, "amin")
            distance.append(least.sqrt().double().cpu().numpy())
            position.append(where.cpu().numpy())
            by_patient.append(each.sqrt().cpu().numpy())
        if not distance:
            return Neighbours(np.zeros(0), np.zeros(0, np.int64), np.zeros((0, len(self.patients)), np.float32))
        return Neighbours(np.concatenate(distance), np.concatenate(position), np.concatenate(by_patient))

    def _squared(self, images: Tensor) -> Tensor:
        """`(B, N)` squared distances, the least over the queries' versions; one version is multiplied at a time."""
        versions = (self.measure.queries(images) - self._centre).unbind(dim=1)
        least = None
        for version in versions:
            squared = version.square().sum(dim=1, keepdim=True) - 2 * version @ self._keys.T
            least = squared if least is None else torch.minimum(least, squared)
        assert least is not None, "a measure has at least one version"
        return (least + self._squares).clamp_min(0)


def _blocks(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def _size(slices: SliceSet) -> tuple[int, ...]:
    shape = tuple(slices.load(slices.rows[:1]).shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or min(shape[2:]) < SMALLEST:
        raise MedsegError(f"slices have shape {shape}, wanted (N, C, H, W) with C 1 or 3 and H, W at least {SMALLEST}")
    return shape[1:]


def _images(slices: SliceSet, part: np.ndarray, size: tuple[int, ...], device: str) -> Tensor:
    images = slices.load(slices.rows[part])
    if tuple(images.shape[1:]) != size:
        raise MedsegError(f"slices of shape {tuple(images.shape[1:])} are compared with {size}; wanted one size")
    if not torch.isfinite(images).all():
        raise MedsegError("slices hold values that are not finite; wanted [-1, 1]")
    return images.to(device)
