"""How long a person took: one line in `times.jsonl` per save, and a summary of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from medseg_gan.machine.atomic import full_disk_told, open_no_link

TIMES = "times.jsonl"

NOTHING = "nothing"
"""What a mask began from where nothing was there to correct."""

DICE_STEPS = (0.7, 0.9)
"""Dice of a pre-label at which the seconds are told apart."""


@dataclass(frozen=True)
class Saving:
    """One saving of one image.

    Attributes:
        image: its name.
        seconds: since it was opened, or since the saving before.
        began: what the strokes began from: `nothing`, `the stored mask`, a pre-label by name, or `kept strokes`.
        answer: `painted` or `rejected`.
        dice: mean over the classes present of pre-label and saved mask; None without a pre-label.
        dice_per_class: the same by class name, classes in neither left out.
        saved: when, ISO 8601 with the zone.
    """

    image: str
    seconds: float
    began: str
    answer: str
    dice: float | None
    dice_per_class: dict[str, float]
    saved: str


@dataclass(frozen=True)
class Spent:
    """Seconds spent on the images that began alike."""

    began: str
    images: int
    median_seconds: float


def dice_by_class(pre_label: np.ndarray, label: np.ndarray, classes: Iterable[str]) -> dict[str, float]:
    """Dice `2 |A and B| / (|A| + |B|)` of two label maps for each class in either of them; no background."""
    found = {}
    for k, name in enumerate(classes):
        ours, theirs = pre_label == k, label == k
        if k and (total := int(ours.sum() + theirs.sum())):
            found[name] = 2 * int((ours & theirs).sum()) / total
    return found


def append_saving(folder: Path, saving: Saving) -> None:
    """Add one line; a line that a crash cut off before it is left alone.

    Raises:
        MedsegError: the disk is full.
    """
    path = folder / TIMES
    line = json.dumps(asdict(saving), ensure_ascii=False)
    with full_disk_told(path), open_no_link(path, "ab+") as file:
        if file.tell() and not _ends_a_line(file):
            line = "\n" + line
        file.write((line + "\n").encode())


def read_savings(folder: Path) -> list[Saving]:
    """All whole lines, in order."""
    path = folder / TIMES
    savings = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            savings.append(Saving(**json.loads(line)))
        except (ValueError, TypeError):
            continue  # cut off by a crash, or of a younger version: a figure less, no mask less
    return savings


def spent(savings: Iterable[Saving]) -> list[Spent]:
    """Median seconds of an image, by how much its first saving had to change: the figure to watch.

    The seconds of all savings of an image are added up. Images begun from a pre-label are told apart by its Dice with
    the mask that was saved.
    """
    images: dict[str, list[Saving]] = {}
    for saving in savings:
        images.setdefault(saving.image, []).append(saving)
    seconds: dict[str, list[float]] = {}
    for its in images.values():
        first = its[0]
        for kind in ("all", "rejected" if its[-1].answer == "rejected" else _kind(first)):
            seconds.setdefault(kind, []).append(sum(saving.seconds for saving in its))
    return [Spent(kind, len(values), median(values)) for kind, values in sorted(seconds.items())]


def _kind(saving: Saving) -> str:
    if saving.dice is None:
        return f"from {NOTHING}" if saving.began == NOTHING else "from earlier strokes"
    low, high = DICE_STEPS
    if saving.dice < low:
        return f"from a pre-label, Dice below {low}"
    return f"from a pre-label, Dice {low} to {high}" if saving.dice < high else f"from a pre-label, Dice {high} or more"


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")
