"""Labelled slices for training: where they are, their share of a batch, and the batches themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.pictures import PictureStore
from medseg_gan.data.sampler import EndlessSampler, PatientBalancedSampler
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED
from medseg_gan.machine.seeding import mix_seed


class LabelledSlices:
    """Images, labels and patients by position, held in memory."""

    def __init__(self, images: Tensor, labels: Tensor, patients: Sequence[str] | None = None) -> None:
        """Take slices from memory.

        Args:
            images: `(N, C, H, W)` in [-1, 1].
            labels: `(N, H, W)` class ids, 255 where unlabelled.
            patients: patient of each slice; without, every slice counts as its own.
        """
        self.images, self.labels = images, labels
        self.patients = list(patients) if patients is not None else [str(k) for k in range(len(images))]

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.patients)

    def image(self, positions: Sequence[int]) -> Tensor:
        """`(B, C, H, W)` float32 in [-1, 1]."""
        return self.images[torch.as_tensor(positions)].float()

    def label(self, positions: Sequence[int]) -> Tensor:
        """`(B, H, W)` int64 class ids, 255 where unlabelled."""
        return self.labels[torch.as_tensor(positions)].long()


class StoredSlices:
    """Some slices of a slice store, read when asked for.

    Pickles as a description, so that other processes open the files themselves.
    """

    def __init__(self, folder: Path, indices: Sequence[int] | np.ndarray) -> None:
        """Name the slices.

        Args:
            folder: of the store.
            indices: which of its slices.
        """
        self.folder, self.indices = Path(folder), np.asarray(indices, dtype=np.int64)
        self.store = SliceStore.open(self.folder)
        self.patients = [self.store.records[index].patient for index in self.indices]

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.indices)

    def image(self, positions: Sequence[int]) -> Tensor:
        """`(B, 1, H, W)` float32 in [-1, 1]."""
        return self.store.image_tensor(self.indices[list(positions)])

    def label(self, positions: Sequence[int]) -> Tensor:
        """`(B, H, W)` int64 class ids, 255 where unlabelled."""
        return self.store.label_tensor(self.indices[list(positions)])

    def __reduce__(self) -> tuple[type, tuple[Path, np.ndarray]]:
        """Pickle the description, not the files' content."""
        return type(self), (self.folder, self.indices)


SOFT_MASKS = "soft_masks.npy"
"""Beside a picture store: `(N, H, W)` uint8, 255 times the foreground's probability."""


class StoredPictures:
    """Some pictures of a picture store with their masks, read when asked for; pickles as a description."""

    def __init__(self, folder: Path, indices: Sequence[int] | np.ndarray, soft: bool = False) -> None:
        """Name the pictures.

        Args:
            folder: of the store.
            indices: which of its pictures.
            soft: labels are foreground probabilities instead of class ids.

        Raises:
            MedsegError: soft masks are wanted and the store has none.
        """
        self.folder, self.indices, self.soft = Path(folder), np.asarray(indices, dtype=np.int64), soft
        self.store = PictureStore.open(self.folder)
        self.patients = [str(index) for index in self.indices]
        if soft:
            if not (self.folder / SOFT_MASKS).is_file():
                raise MedsegError(f"{self.folder} holds no soft masks ({SOFT_MASKS}); make it anew")
            self.probs = np.load(self.folder / SOFT_MASKS, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.indices)

    def image(self, positions: Sequence[int]) -> Tensor:
        """`(B, C, H, W)` float32 in [-1, 1]."""
        return self.store.image_tensor(self.indices[list(positions)])

    def label(self, positions: Sequence[int]) -> Tensor:
        """`(B, H, W)` int64 class ids, or float32 foreground probabilities."""
        chosen = self.indices[list(positions)]
        if self.soft:
            return torch.from_numpy(self.probs[chosen].astype(np.float32) / 255)
        return self.store.label_tensor(chosen)

    def __reduce__(self) -> tuple[type, tuple[Path, np.ndarray, bool]]:
        """Pickle the description, not the files' content."""
        return type(self), (self.folder, self.indices, self.soft)


Slices: TypeAlias = LabelledSlices | StoredSlices | StoredPictures

FINE_TUNING_FROM = 2 / 3
"""Share of a training after which `last_share` holds."""


@dataclass(frozen=True)
class TrainingSource:
    """Labelled slices and their part in training.

    Attributes:
        slices: the slices.
        share: part of every batch that comes from here, relative to the other sources.
        balanced: whether patients rather than slices are equally frequent.
        last_share: `share` in the last third of the training, which so becomes fine-tuning; None: as before.
    """

    slices: Slices
    share: float = 1.0
    balanced: bool = False
    last_share: float | None = None

    @property
    def final_share(self) -> float:
        """Share at the end of the training."""
        return self.share if self.last_share is None else self.last_share

    @property
    def mean_share(self) -> float:
        """Share over the whole training."""
        if self.last_share is None:
            return self.share
        return FINE_TUNING_FROM * self.share + (1 - FINE_TUNING_FROM) * self.last_share


def split_batch(batch_size: int, shares: Sequence[float]) -> list[int]:
    """Slices of each source in a batch, by largest remainder; none where the share is 0.

    Raises:
        MedsegError: a source of another share would get none.
    """
    exact = np.asarray(shares, dtype=float) / sum(shares) * batch_size
    counts = np.floor(exact + 1e-9).astype(int)
    for k in np.argsort(counts - exact, kind="stable")[: batch_size - counts.sum()]:
        counts[k] += 1
    starved = [share for share, count in zip(shares, counts, strict=True) if share and count < 1]
    if starved:
        raise MedsegError(f"batch_size {batch_size} leaves a source of share {starved[0]:g} without a slice; raise it")
    return counts.tolist()


class TrainingBatches:
    """Batches `{"image", "label"}` from several sources; batch k depends on the seed and k alone."""

    def __init__(
        self, sources: Sequence[TrainingSource], batch_size: int, seed: int, start: int = 0, steps: int | None = None
    ) -> None:
        """Set up the streams.

        Args:
            sources: where slices come from.
            batch_size: slices in a batch.
            seed: of the order.
            start: number of batches already used by an earlier run.
            steps: batches of the whole training, of which the last third has the sources' last shares; None: never.
        """
        self.sources, self.seed, self.start = sources, seed, start
        self.turn = None if steps is None else round(FINE_TUNING_FROM * steps)
        self.counts = split_batch(batch_size, [source.share for source in sources])
        self.last_counts = split_batch(batch_size, [source.final_share for source in sources])

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches without end, images `(B, C, H, W)` and labels `(B, H, W)`."""
        streams = [self._stream(k) for k in range(len(self.sources))]
        for number in count(self.start):
            counts = self.counts if self.turn is None or number < self.turn else self.last_counts
            chosen = [
                (source.slices, list(islice(stream, share)))
                for source, stream, share in zip(self.sources, streams, counts, strict=True)
                if share
            ]
            yield {
                "image": torch.cat([slices.image(positions) for slices, positions in chosen]),
                "label": torch.cat([slices.label(positions) for slices, positions in chosen]),
            }

    def _stream(self, k: int) -> Iterator[int]:
        """Endless positions in source k, from the first one not used yet."""
        before = self.start if self.turn is None else min(self.start, self.turn)
        start = before * self.counts[k] + (self.start - before) * self.last_counts[k]
        source, seed = self.sources[k], mix_seed(self.seed, "source", k)
        if source.balanced:
            return iter(PatientBalancedSampler(source.slices.patients, seed, start))
        return iter(EndlessSampler(len(source.slices), seed, start))


def class_frequencies(sources: Sequence[TrainingSource], num_classes: int) -> Tensor:
    """Share of each class among the labelled pixels of a batch.

    Returns:
        `(K,)` frequencies that sum to 1.

    Raises:
        MedsegError: a slice without label, or a label outside the table.
    """
    total = torch.zeros(num_classes, dtype=torch.float64)
    for source in sources:
        counts = torch.zeros(256, dtype=torch.float64)
        for start in range(0, len(source.slices), 256):
            label = source.slices.label(range(start, min(start + 256, len(source.slices))))
            blank = (label == UNLABELLED).flatten(1).all(dim=1)
            if blank.any():
                raise MedsegError(
                    f"slice {start + int(blank.nonzero()[0])} of a training set has no label; leave it out"
                )
            counts += torch.bincount(label.flatten(), minlength=256)
        unknown = counts[num_classes:UNLABELLED].nonzero().flatten() + num_classes
        if len(unknown):
            raise MedsegError(f"a training label holds the value {int(unknown[0])}, wanted 0 to {num_classes - 1}")
        total += source.mean_share * counts[:num_classes] / counts[:num_classes].sum()
    return total / total.sum()
