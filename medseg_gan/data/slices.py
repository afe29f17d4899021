"""The slice store: slices of all patients as memory-mapped arrays with a record for each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.arrays import TwoArraysWriter, open_arrays, read_index
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, LabelTable, lookup_table
from medseg_gan.machine.names import check_name

VERSION = 1  # of the store's layout


@dataclass(frozen=True)
class SliceRecord:
    """Where a slice comes from.

    Attributes:
        case: pseudonym of the study.
        patient: pseudonym of the patient.
        slice_index: position along z in the volume turned to LPS.
        spacing: mm of a row step, a column step, and the slice thickness.
        affine: 4 x 4 of the volume turned to LPS, before any change of size; None for generated slices.
        pool: `gan`, `labelled`, `test`, `annotator` or `generated`.
        labelled: whether the slice has labels.
    """

    case: str
    patient: str
    slice_index: int
    spacing: tuple[float, float, float]
    affine: list[list[float]] | None
    pool: str
    labelled: bool


def to_unit(hu: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """HU to [-1, 1], clipped at the window's ends."""
    low, high = window
    return np.clip((hu.astype(np.float32) - low) * (2 / (high - low)) - 1, -1, 1)


def to_grey(hu: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """HU to uint8: the window's ends are 0 and 255."""
    return np.round((to_unit(hu, window) + 1) * 127.5).astype(np.uint8)


def to_hu(unit: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """[-1, 1] to int16 HU inside the window."""
    low, high = window
    return np.round((np.clip(unit, -1, 1) + 1) * ((high - low) / 2) + low).astype(np.int16)


class SliceStore:
    """A folder of slices, opened for reading; nothing is loaded until asked for.

    Example:
        store = SliceStore.open(run / "01-prepare")
        images = store.image_tensor(store.indices("gan"))
    """

    def __init__(
        self,
        folder: Path,
        images: np.ndarray,
        labels: np.ndarray,
        records: list[SliceRecord],
        window: tuple[float, float],
        table: LabelTable,
    ) -> None:
        self.folder = folder
        self.images, self.labels = images, labels  # (N, H, W) int16 HU and uint8 class ids
        self.records, self.window, self.table = records, window, table
        self.size = images.shape[-1]

    @classmethod
    def open(cls, folder: Path) -> SliceStore:
        """Open a store.

        Raises:
            MedsegError: a file is missing or does not fit the others.
        """
        folder = Path(folder)
        cases = read_index(folder, "cases.json", "slices", VERSION)
        images, labels = open_arrays(folder, "images.npy", "labels.npy")
        try:
            records = [SliceRecord(**{**item, "spacing": tuple(item["spacing"])}) for item in cases["slices"]]
            window, table = tuple(cases["window"]), lookup_table(cases["label_table"])
        except (KeyError, TypeError) as error:
            raise MedsegError(f"{folder}: cases.json is incomplete ({error}); make the store again") from error
        for record in records:
            for name in (record.case, record.patient):
                check_name(name, folder / "cases.json")
        count = len(records)
        if images.shape != labels.shape or len(images) != count:
            raise MedsegError(
                f"{folder}: images {images.shape}, labels {labels.shape} and {count} records do not belong together; "
                "make the store again"
            )
        return cls(folder, images, labels, records, window, table)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.records)

    def indices(
        self, pool: str | None = None, labelled: bool | None = None, patients: Collection[str] | None = None
    ) -> np.ndarray:
        """Positions of the slices that fit, in the store's order, int64."""
        return np.array(
            [
                k
                for k, record in enumerate(self.records)
                if (pool is None or record.pool == pool)
                and (labelled is None or record.labelled == labelled)
                and (patients is None or record.patient in patients)
            ],
            np.int64,
        )

    def patients(self, pool: str | None = None) -> list[str]:
        """Pseudonyms of a pool's patients, sorted."""
        return sorted({record.patient for record in self.records if pool is None or record.pool == pool})

    def typical_spacing(self) -> tuple[float, float, float]:
        """Median mm of the GAN's slices, of all where it has none; generated slices have no spacing of their own."""
        seen = self.indices("gan")
        spacings = [self.records[k].spacing for k in (seen if len(seen) else range(len(self)))]
        row, column, thickness = np.median(np.array(spacings), axis=0).tolist()
        return row, column, thickness

    def image_tensor(self, indices: np.ndarray | Sequence[int]) -> Tensor:
        """`(N, 1, H, W)` float32 in [-1, 1]."""
        return torch.from_numpy(to_unit(self.images[np.asarray(indices, np.int64)], self.window)[:, None])

    def label_tensor(self, indices: np.ndarray | Sequence[int]) -> Tensor:
        """`(N, H, W)` int64 class ids, 255 where unlabelled."""
        return torch.from_numpy(self.labels[np.asarray(indices, np.int64)].astype(np.int64))


class StoreWriter(TwoArraysWriter):
    """Writes a store part by part, straight to disk; `cases.json`, which makes it a store, comes last.

    Example:
        with StoreWriter(folder, window=(-1000, 400), table=table) as writer:
            writer.append(images, labels, records)
    """

    def __init__(self, folder: Path, *, window: tuple[float, float], table: LabelTable) -> None:
        """Start a store in `folder`; window in HU."""
        types: dict[str, np.dtype[Any]] = {"images.npy": np.dtype("<i2"), "labels.npy": np.dtype("u1")}
        super().__init__(folder, "cases.json", types, "slice")
        self.window, self.table, self.size = window, table, 0

    def append(self, images: np.ndarray, labels: np.ndarray, records: Sequence[SliceRecord]) -> None:
        """Add `(N, H, W)` int16 HU and uint8 class ids with N records."""
        if not len(images) == len(labels) == len(records) or images.shape != labels.shape:
            raise ValueError(f"{images.shape} images, {labels.shape} labels and {len(records)} records do not match")
        for array, part in zip(self.arrays, (images, labels), strict=True):
            array.append(part)
        self.records.extend(records)
        self.size = images.shape[-1]

    def index(self) -> dict[str, Any]:
        """What `cases.json` holds."""
        return {
            "version": VERSION,
            "size": self.size,
            "window": list(self.window),
            "label_table": self.table.name,
            "classes": list(self.table.classes),
            "slices": [asdict(record) for record in self.records],
        }


def write_store(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray | None,
    records: Sequence[SliceRecord],
    window: tuple[float, float],
    table: LabelTable,
) -> None:
    """Write a store at once; without labels every slice is unlabelled."""
    with StoreWriter(folder, window=window, table=table) as writer:
        writer.append(images, np.full(images.shape, UNLABELLED, np.uint8) if labels is None else labels, records)
