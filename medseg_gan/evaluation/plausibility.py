"""What label maps usually look like: areas, components and order of the organs, learned from annotated ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable

USUAL = 0.95
"""A class on at least this share of the annotated maps is missed where it lacks; a rule must hold on as many."""

AREA_MARGIN = 1.25
"""An area may be this much smaller or larger than on any annotated map: few maps do not show the extremes."""

SIDES = (("left_lung", "right_lung"),)
"""The first lies at the patient's left of the second; the patient's left is at the right of the picture."""

BETWEEN = (
    ("heart", "left_lung", "right_lung"),
    ("trachea", "left_lung", "right_lung"),
    ("esophagus", "left_lung", "right_lung"),
)
"""The first lies between the two others, seen from the front."""

_NEIGHBOURS = np.ones((3, 3), bool)  # diagonal pixels touch


@dataclass(frozen=True)
class Plausibility:
    """Ranges and rules that annotated label maps keep.

    Attributes:
        classes: names by id, of any label table.
        required: ids of classes that hardly ever lack.
        smallest: `(K,)` smallest share of the picture where the class occurs; infinite where it never does.
        largest: `(K,)` largest share.
        pieces: `(K,)` most connected components.
        sides: rules of `SIDES` whose classes exist and which the annotated maps keep.
        between: rules of `BETWEEN`, likewise.

    Example:
        plausible = Plausibility.learned(annotated_labels, table)
        plausible.objections(label)  # ["heart in 3 pieces", "left lung not at the patient's left of right lung"]
    """

    classes: tuple[str, ...]
    required: tuple[int, ...]
    smallest: np.ndarray
    largest: np.ndarray
    pieces: np.ndarray
    sides: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int, int], ...]

    @classmethod
    def learned(cls, labels: np.ndarray, table: LabelTable) -> Plausibility:
        """Learn from label maps.

        Args:
            labels: `(N, H, W)` class ids; 255 is nothing.
            table: their classes.

        Raises:
            MedsegError: there is no map.
        """
        if labels.ndim != 3 or not len(labels):
            raise MedsegError(f"label maps have shape {labels.shape}; wanted (N, H, W) with at least one to learn from")
        shares, pieces = areas(labels, table.num_classes), components(labels, table.num_classes)
        present = shares > 0
        usual = present.mean(axis=0) >= USUAL
        ids = {name: k for k, name in enumerate(table.classes)}
        columns = _columns(labels, table.num_classes)
        return cls(
            classes=table.classes,
            required=tuple(int(k) for k in np.flatnonzero(usual) if k > 0),
            smallest=np.where(present, shares, np.inf).min(axis=0),
            largest=shares.max(axis=0),
            pieces=pieces.max(axis=0),
            sides=tuple(
                (ids[a], ids[b])
                for a, b in SIDES
                if {a, b} <= set(ids) and _usually_kept(_wrong_side(columns, ids[a], ids[b]))
            ),
            between=tuple(
                (ids[a], ids[b], ids[c])
                for a, b, c in BETWEEN
                if {a, b, c} <= set(ids) and _usually_kept(_outside(columns, ids[a], ids[b], ids[c]))
            ),
        )

    def objections(self, label: np.ndarray) -> list[str]:
        """What is unusual about one label map `(H, W)`, in words; empty where nothing is."""
        (shares,) = areas(label[None], len(self.classes))
        (pieces,) = components(label[None], len(self.classes))
        columns = _columns(label[None], len(self.classes))
        names = [name.replace("_", " ") for name in self.classes]
        found = []
        for k in range(1, len(self.classes)):
            if not shares[k]:
                found += [f"no {names[k]}"] if k in self.required else []
                continue
            if not self.largest[k]:
                found.append(f"{names[k]}, which no annotated map has")
                continue
            if shares[k] * AREA_MARGIN < self.smallest[k]:
                found.append(f"{names[k]} too small")
            if shares[k] > self.largest[k] * AREA_MARGIN:
                found.append(f"{names[k]} too large")
            if pieces[k] > self.pieces[k]:
                found.append(f"{names[k]} in {pieces[k]} pieces")
        found += [
            f"{names[a]} not at the patient's left of {names[b]}"
            for a, b in self.sides
            if _wrong_side(columns, a, b)[0] == 1
        ]
        found += [
            f"{names[a]} not between {names[b]} and {names[c]}"
            for a, b, c in self.between
            if _outside(columns, a, b, c)[0] == 1
        ]
        return found


def areas(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each map `(N, H, W)` that each class covers, `(N, K)`."""
    flat = labels.reshape(len(labels), -1)
    return np.stack([(flat == k).mean(axis=1) for k in range(num_classes)], axis=1)


def components(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Connected components of each class on each map `(N, H, W)`, `(N, K)`; diagonal neighbours touch, background 0."""
    counts = np.zeros((len(labels), num_classes), np.int64)
    for row, label in zip(counts, labels, strict=True):
        for k in range(1, num_classes):
            row[k] = ndimage.label(label == k, _NEIGHBOURS)[1]
    return counts


def _columns(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean column of each class on each map, `(N, K)`; NaN where it lacks."""
    place = np.arange(labels.shape[2])
    per_column = np.stack([(labels == k).sum(axis=1) for k in range(num_classes)], axis=1)  # (N, K, W)
    total = per_column.sum(axis=2)
    return np.where(total > 0, (per_column * place).sum(axis=2) / np.maximum(total, 1), np.nan)


def _wrong_side(columns: np.ndarray, a: int, b: int) -> np.ndarray:
    """`(N,)` 1 where `a` is not at the patient's left of `b`, 0 where it is, NaN where one lacks."""
    return np.where(np.isnan(columns[:, a] + columns[:, b]), np.nan, columns[:, a] <= columns[:, b])


def _outside(columns: np.ndarray, a: int, b: int, c: int) -> np.ndarray:
    """`(N,)` 1 where `a` is not between `b` and `c`, 0 where it is, NaN where one of them lacks."""
    low, high = np.minimum(columns[:, b], columns[:, c]), np.maximum(columns[:, b], columns[:, c])
    place = columns[:, a]
    return np.where(np.isnan(place + low + high), np.nan, (place < low) | (place > high))


def _usually_kept(broken: np.ndarray) -> bool:
    """Whether annotated maps keep a rule; one that none of them can show is not applied."""
    shown = broken[~np.isnan(broken)]
    return bool(len(shown)) and 1 - shown.mean() >= USUAL
