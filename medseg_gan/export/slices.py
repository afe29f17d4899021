"""Labelled slices of any stores, one by one and under anonymous names, for the exporters of data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nibabel
import numpy as np

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError

GENERATED = "generated"


@dataclass(frozen=True)
class LabelledSlice:
    """One slice with its label.

    Attributes:
        name: unique, fit for a file name: a pseudonym with the slice's position, or the index of a generated pair.
        case: slices of one case lie in one volume; a generated slice is a case of its own.
        group: what must not be divided between training and validation: the patient, or the generated pair.
        image: `(H, W)` int16 HU, anterior up, the patient's left at the right.
        label: `(H, W)` uint8 class ids.
        spacing: mm of a row step, a column step, and the slice thickness.
        position: mm along the body's axis, from an arbitrary zero.
        synthetic: drawn by a generator.
        uncertainty: score of a generated pair, nats; None where there is none.
    """

    name: str
    case: str
    group: str
    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, float, float]
    position: float
    synthetic: bool
    uncertainty: float | None = None


@dataclass(frozen=True)
class Selection:
    """Some slices of one store.

    Attributes:
        store: where they lie.
        indices: which, in order.
        scores: `(len(store),)` uncertainty of generated pairs, or None.
        clip: whether HU are clipped at the window's ends, where generated ones end anyway.
    """

    store: SliceStore
    indices: np.ndarray
    scores: np.ndarray | None = None
    clip: bool = False

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.indices)

    def __iter__(self) -> Iterator[LabelledSlice]:
        """Read the slices from the store, one at a time.

        Raises:
            MedsegError: a pixel has no class.
        """
        low, high = self.store.window
        for index in self.indices.tolist():
            record = self.store.records[index]
            image, label = np.array(self.store.images[index]), np.array(self.store.labels[index])
            synthetic = record.pool == GENERATED
            name = record.case if synthetic else f"{record.case}-{record.slice_index:04d}"
            if label.max() >= self.store.table.num_classes:
                raise MedsegError(f"{name} has pixels without a class; only wholly labelled slices can be exported")
            yield LabelledSlice(
                name=name,
                case=record.case,
                group=record.case if synthetic else record.patient,
                image=image.clip(round(low), round(high)) if self.clip else image,
                label=label,
                spacing=record.spacing,
                position=record.slice_index * record.spacing[2],
                synthetic=synthetic,
                uncertainty=None if self.scores is None else float(self.scores[index]),
            )


def count_kinds(parts: Sequence[Selection]) -> dict[str, int]:
    """Generated and real slices, and the patients of the real ones."""
    records = [part.store.records[k] for part in parts for k in part.indices.tolist()]
    real = [record for record in records if record.pool != GENERATED]
    return {
        "synthetic_slices": len(records) - len(real),
        "real_slices": len(real),
        "real_patients": len({record.patient for record in real}),
    }


def to_nifti(array: np.ndarray, spacing: tuple[float, float, float], words: str) -> nibabel.Nifti1Image:
    """A two-dimensional NIfTI image of a slice.

    Two-dimensional, because a volume of one slice invites readers to resample across it; nnU-Net then plans in its
    plane whatever the slice thickness is.

    Args:
        array: `(H, W)` int16 or uint8, anterior up, the patient's left at the right.
        spacing: mm of a row step, a column step, and the slice thickness.
        words: description in the header, at most 79 bytes.

    Returns:
        `(W, H)` with an affine to RAS mm: columns run to the left, rows to the back. Its zero is the first pixel.
    """
    row_mm, column_mm, thickness = spacing
    affine = np.diag([-column_mm, -row_mm, thickness, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = words.encode()[:79]
    return image
