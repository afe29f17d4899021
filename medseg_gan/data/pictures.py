"""The image store: natural images with foreground masks as memory-mapped arrays, with one record each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.arrays import TwoArraysWriter, open_arrays, read_index
from medseg_gan.data.splits import SPLITS, Split
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED

VERSION = 1  # of the store's layout

Landmark = tuple[float, float, bool]  # x, y in pixels, the centre of the first pixel being 0, 0; whether it is visible


@dataclass(frozen=True)
class Picture:
    """Where one picture of a dataset lies, and what is known of it.

    Attributes:
        name: file name relative to the dataset's folder, with `/`.
        image: the file.
        mask: its foreground mask, if there is one.
        split: `train`, `val` or `test`.
        class_id: from 0, if known.
        empty: known to be all background; needs no mask.
        box: left, top, width and height of the object, pixels of the file.
        threshold: part of the mask's range above which a pixel is foreground.
        parts: K where the mask holds the numbers 0 to K of parts; 0 where it shows foreground alone.
        landmarks: points in pixels of the upright file, the same points in the same order for every picture.
    """

    name: str
    image: Path
    mask: Path | None
    split: Split
    class_id: int | None
    empty: bool = False
    box: tuple[float, float, float, float] | None = None
    threshold: float = 0.5
    parts: int = 0
    landmarks: tuple[Landmark, ...] = ()


@dataclass(frozen=True)
class FoundPictures:
    """A dataset as found on disk; nothing is read yet.

    Attributes:
        pictures: sorted by the dataset's own order.
        dataset: its name.
        classes: names by class id; may be empty.
        notes: one line each on what a user should know: derived splits, missing masks, files left out.
    """

    pictures: list[Picture]
    dataset: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureRecord:
    """Where a picture of the store comes from.

    Attributes:
        name: file name relative to the dataset's folder.
        split: `train`, `val` or `test`.
        class_id: from 0, if known.
        labelled: whether it has a mask.
        landmarks: points in pixels of the stored image; a point that cropping cut off is not visible.
    """

    name: str
    split: Split
    class_id: int | None
    labelled: bool
    landmarks: tuple[Landmark, ...] = ()

    @classmethod
    def read(cls, item: dict[str, Any]) -> PictureRecord:
        """From the store's index, where a record without landmarks does not name them."""
        points = item.get("landmarks", ())
        return cls(**{**item, "landmarks": tuple((float(x), float(y), bool(visible)) for x, y, visible in points)})

    def as_json(self) -> dict[str, Any]:
        """As the store's index holds it."""
        item = asdict(self)
        return item if self.landmarks else {key: value for key, value in item.items() if key != "landmarks"}


def refuse_unmasked_test(pictures: Collection[Picture], masks: Path) -> None:
    """Refuse test pictures whose masks are missing: they would silently not count.

    Raises:
        MedsegError: there is one.
    """
    missing = [item.name for item in pictures if item.split == "test" and item.mask is None and not item.empty]
    if missing:
        raise MedsegError(
            f"{len(missing)} test pictures have no mask in {masks} ({missing[0]} is the first); copy the masks or take "
            "the pictures out of the test split"
        )


class PictureStore:
    """A folder of pictures, opened for reading; nothing is loaded until asked for.

    Example:
        store = PictureStore.open(run / "01-prepare")
        images = store.image_tensor(store.indices("train"))
    """

    def __init__(
        self,
        folder: Path,
        images: np.ndarray,
        masks: np.ndarray,
        records: list[PictureRecord],
        dataset: str,
        classes: tuple[str, ...],
    ) -> None:
        self.folder = folder
        self.images, self.masks = images, masks  # (N, H, W, C) uint8; (N, H, W) uint8: 0 to K, 255 where unlabelled
        self.records, self.dataset, self.classes = records, dataset, classes
        self.size, self.channels = images.shape[2], images.shape[3]

    @classmethod
    def open(cls, folder: Path) -> PictureStore:
        """Open a store.

        Raises:
            MedsegError: a file is missing or does not fit the others.
        """
        folder = Path(folder)
        about = read_index(folder, "pictures.json", "pictures", VERSION)
        images, masks = open_arrays(folder, "images.npy", "masks.npy")
        try:
            records = [PictureRecord.read(item) for item in about["pictures"]]
            dataset, classes = str(about["dataset"]), tuple(str(name) for name in about["classes"])
        except (KeyError, TypeError, ValueError) as error:
            raise MedsegError(f"{folder}: pictures.json is incomplete ({error}); make the store again") from error
        if not _fit(images, masks, len(records)):
            raise MedsegError(
                f"{folder}: images {images.dtype} {images.shape}, masks {masks.dtype} {masks.shape} and {len(records)} "
                "records do not belong together; make the store again"
            )
        strange = {str(record.split) for record in records} - set(SPLITS)
        if strange:
            raise MedsegError(f"{folder}: pictures.json names the split {min(strange)!r}; make the store again")
        return cls(folder, images, masks, records, dataset, classes)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.records)

    def indices(self, split: str | None = None, labelled: bool | None = None) -> np.ndarray:
        """Positions of the pictures that fit, in the store's order, int64."""
        return np.array(
            [
                k
                for k, record in enumerate(self.records)
                if (split is None or record.split == split) and (labelled is None or record.labelled == labelled)
            ],
            np.int64,
        )

    def image_tensor(self, indices: np.ndarray | Sequence[int]) -> Tensor:
        """`(N, C, H, W)` float32 in [-1, 1]."""
        images = torch.from_numpy(self.images[np.asarray(indices, np.int64)])  # (N, H, W, C)
        return images.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)

    def label_tensor(self, indices: np.ndarray | Sequence[int]) -> Tensor:
        """`(N, H, W)` int64: 0 background, 1 foreground or 1 to K parts, 255 where unlabelled."""
        return torch.from_numpy(self.masks[np.asarray(indices, np.int64)].astype(np.int64))

    def class_ids(self, indices: np.ndarray | Sequence[int]) -> Tensor:
        """`(N,)` int64, -1 where the class is unknown."""
        ids = [self.records[int(k)].class_id for k in indices]
        return torch.tensor([-1 if item is None else item for item in ids], dtype=torch.int64)

    def landmark_tensor(self, indices: np.ndarray | Sequence[int]) -> Tensor:
        """`(N, P, 3)` float32: x, y in pixels of the stored image, and 1 where the point is visible, else 0.

        Raises:
            MedsegError: the images have different numbers of landmarks.
        """
        points = [self.records[int(k)].landmarks for k in indices]
        if len(counts := {len(item) for item in points}) > 1:
            raise MedsegError(
                f"{self.folder}: its images have {min(counts)} to {max(counts)} landmarks, wanted the same number for "
                "each; choose images that have all of them"
            )
        return torch.tensor(points, dtype=torch.float32).reshape(len(points), max(counts, default=0), 3)


def _fit(images: np.ndarray, masks: np.ndarray, count: int) -> bool:
    return (
        images.ndim == 4
        and images.shape[3] in (1, 3)
        and images.shape[:3] == masks.shape
        and len(images) == count
        and images.dtype == masks.dtype == np.uint8
    )


class PictureWriter(TwoArraysWriter):
    """Writes a store part by part, straight to disk; `pictures.json`, which makes it a store, comes last.

    Example:
        with PictureWriter(folder, dataset="CUB-200-2011", classes=classes) as writer:
            writer.append(images, masks, records)
    """

    def __init__(self, folder: Path, *, dataset: str, classes: Sequence[str] = ()) -> None:
        """Start a store in `folder`."""
        types: dict[str, np.dtype[Any]] = {"images.npy": np.dtype("u1"), "masks.npy": np.dtype("u1")}
        super().__init__(folder, "pictures.json", types, "picture")
        self.dataset, self.classes, self.shape = dataset, tuple(classes), (0, 0, 0)

    def append(self, images: np.ndarray, masks: np.ndarray, records: Sequence[PictureRecord]) -> None:
        """Add `(N, H, W, C)` uint8 images and `(N, H, W)` uint8 masks (0 to K, 255) with N records."""
        if not _fit(images, masks, len(records)):
            raise ValueError(
                f"{images.dtype} {images.shape} images, {masks.dtype} {masks.shape} masks and {len(records)} records "
                "do not match"
            )
        for array, part in zip(self.arrays, (images, masks), strict=True):
            array.append(part)
        self.records.extend(records)
        self.shape = images.shape[1:]

    def index(self) -> dict[str, Any]:
        """What `pictures.json` holds."""
        return {
            "version": VERSION,
            "size": self.shape[1],
            "channels": self.shape[2],
            "dataset": self.dataset,
            "classes": list(self.classes),
            "pictures": [record.as_json() for record in self.records],
        }


def write_picture_store(
    folder: Path,
    images: np.ndarray,
    masks: np.ndarray | None,
    records: Sequence[PictureRecord],
    *,
    dataset: str,
    classes: Sequence[str] = (),
) -> None:
    """Write a store at once; without masks every picture is unlabelled."""
    with PictureWriter(folder, dataset=dataset, classes=classes) as writer:
        writer.append(images, np.full(images.shape[:3], UNLABELLED, np.uint8) if masks is None else masks, records)


def count_splits(records: Sequence[PictureRecord]) -> dict[str, dict[str, int]]:
    """Pictures and labelled pictures of each split."""
    everyone = Counter(record.split for record in records)
    labelled = Counter(record.split for record in records if record.labelled)
    return {split: {"pictures": everyone[split], "labelled": labelled[split]} for split in SPLITS}
