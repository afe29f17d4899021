"""Label tables: which class has which id and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg_gan.errors import MedsegError, did_you_mean

UNLABELLED = 255
"""Label value of every pixel of a slice that nobody labelled; losses and metrics leave it out."""

SEGTHOR_GT = {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4, "left_lung": 5, "right_lung": 6}
"""Values in SegTHOR's `GT.nii.gz`; 5 and 6 are ours, for lungs a user painted (they win over derived ones)."""

_COLOURS = {
    "background": (0, 0, 0),
    "heart": (214, 69, 80),
    "aorta": (255, 159, 28),
    "trachea": (46, 196, 182),
    "left_lung": (67, 129, 193),
    "right_lung": (149, 117, 205),
    "esophagus": (139, 195, 74),
}


@dataclass(frozen=True)
class LabelTable:
    """Class names by id (`classes[0]` is the background) and a colour for each."""

    name: str
    classes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colour of each class, 0 to 255."""
        return tuple(_COLOURS[name] for name in self.classes)

    def id_of(self, name: str) -> int:
        """Id of a class by name.

        Raises:
            MedsegError: the table has no such class.
        """
        if name not in self.classes:
            raise MedsegError(f"label table {self.name} has no class {name}{did_you_mean(name, self.classes)}")
        return self.classes.index(name)

    def colour(self, label: np.ndarray) -> np.ndarray:
        """Colours of a label map.

        Args:
            label: `(..., H, W)` class ids; 255 (unlabelled) becomes grey.

        Returns:
            `(..., H, W, 3)` uint8.
        """
        palette = np.full((256, 3), 96, np.uint8)
        palette[: self.num_classes] = self.palette
        return palette[label.astype(np.uint8)]


LABEL_TABLES = {
    table.name: table
    for table in (
        LabelTable("paper", ("background", "heart", "aorta", "trachea", "left_lung", "right_lung")),
        LabelTable("all", ("background", "heart", "aorta", "trachea", "left_lung", "right_lung", "esophagus")),
        LabelTable("segthor", ("background", "esophagus", "heart", "trachea", "aorta")),
        LabelTable("lungs", ("background", "left_lung", "right_lung")),
    )
}


def lookup_table(name: str) -> LabelTable:
    """Label table by name.

    Raises:
        MedsegError: there is none of that name.
    """
    if name not in LABEL_TABLES:
        hint = did_you_mean(name, LABEL_TABLES)
        raise MedsegError(f"there is no label table {name!r}, wanted one of {', '.join(LABEL_TABLES)}{hint}")
    return LABEL_TABLES[name]
