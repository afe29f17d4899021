"""Endless batches of training images; each is a pure function of the seed and its number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class ImageBatches:
    """Batches `{"image": (B, C, H, W) in [-1, 1]}` on the device, in the order of an endless stream of indices.

    With labels they have a `label` `(B, c_dim)` too. A tensor is moved to the device once and indexed there; a dataset
    (items are tensors or dictionaries with an `image`) is read item by item through a `DataLoader`, which for
    memory-mapped slices needs no workers.
    """

    def __init__(
        self,
        images: torch.Tensor | Dataset[Any],
        indices: Iterable[int],
        batch_size: int,
        device: str = "cpu",
        workers: int = 0,
        labels: torch.Tensor | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Choose where the images come from.

        Args:
            images: `(N, C, H, W)` in [-1, 1], or a dataset of `(C, H, W)` items.
            indices: endless stream of positions in `images`, already at its start position.
            batch_size: images per batch.
            device: where batches are wanted.
            workers: reading processes, for datasets that read slowly.
            labels: `(N, c_dim)` of the images.
            part: `(k, n)`: every n-th image of each batch from its k-th on, the share of one of n processes.
        """
        self.images = images.to(device, torch.float32) if isinstance(images, torch.Tensor) else images
        self.labels = None if labels is None else labels.to(device, torch.float32)
        self.indices, self.batch_size, self.device, self.workers = indices, batch_size, device, workers
        self.part = part

    def index_batches(self) -> Iterator[list[int]]:
        """Cut the index stream into lists of `batch_size`, of which this process has its part."""
        stream = iter(self.indices)
        first, step = self.part
        while batch := list(islice(stream, self.batch_size)):
            yield [int(index) for index in batch[first::step]]

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield batches without end."""
        if self.labels is None:
            yield from self._image_batches()
            return
        for batch, chosen in zip(self._image_batches(), self.index_batches(), strict=True):
            yield batch | {"label": self.labels[torch.as_tensor(chosen, device=self.labels.device)]}

    def _image_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        if isinstance(self.images, torch.Tensor):
            for batch in self.index_batches():
                yield {"image": self.images[torch.as_tensor(batch, device=self.images.device)]}
        else:
            loader = DataLoader(
                self.images,
                batch_sampler=_Batches(self.index_batches()),
                num_workers=self.workers,
                collate_fn=_stack_images,
                pin_memory=self.device == "cuda",
            )
            for image in loader:
                yield {"image": image.to(self.device, torch.float32, non_blocking=True)}


class _Batches(torch.utils.data.Sampler[list[int]]):
    """A batch sampler around an iterator."""

    def __init__(self, batches: Iterator[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches


def _stack_images(items: list[Any]) -> torch.Tensor:
    return torch.stack([torch.as_tensor(item["image"] if isinstance(item, dict) else item) for item in items])
