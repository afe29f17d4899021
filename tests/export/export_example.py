"""Small stores of generated and real slices, and a card, for the tests of the exporters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.export.card import Card
from medseg_gan.export.slices import Selection
from medseg_gan.labels import lookup_table

WINDOW, TABLE = (-1000.0, 400.0), lookup_table("paper")
SPACING = (1.5, 0.75, 4.0)  # row, column, thickness: all different, so that none can take another's place
SHAPE = (16, 16)


def pixels(count: int, seed: int, low: int = -1000, high: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels in which no two rows or columns are alike; every class is there."""
    rng = np.random.default_rng(seed)
    images = rng.integers(low, high + 1, (count, *SHAPE)).astype(np.int16)
    return images, rng.integers(0, TABLE.num_classes, images.shape).astype(np.uint8)


def generated(folder: Path, count: int = 5, seed: int = 0) -> Selection:
    """Generated pairs with scores."""
    records = [
        SliceRecord(f"generated-{3_000_000 + k:010d}", "generated", 0, SPACING, None, "generated", True)
        for k in range(count)
    ]
    write_store(folder, *pixels(count, seed), records, WINDOW, TABLE)
    store = SliceStore.open(folder)
    return Selection(store, store.indices(), np.linspace(0.1, 0.5, count))


def real(folder: Path, patients: int = 3, slices: int = 4, clip: bool = False) -> Selection:
    """Labelled slices of some patients, with gaps between them and HU outside the window."""
    records = [
        SliceRecord(
            f"patient-{p:03d}-01", f"patient-{p:03d}", 10 + 3 * k, SPACING, np.eye(4).tolist(), "labelled", True
        )
        for p in range(1, patients + 1)
        for k in range(slices)
    ]
    write_store(folder, *pixels(len(records), 1, -1024, 3000), records, WINDOW, TABLE)
    store = SliceStore.open(folder)
    return Selection(store, store.indices(), clip=clip)


def card(kind: str = "synthetic") -> Card:
    """A card with a value of every kind that is shown."""
    return Card(
        "CT slices and labels from a label factory",
        kind,
        {"slices": 5, "classes": {"heart": 1}},
        {"recipe": "segthor_datasetgan", "slices": {"pool gan": "16 of 4 patients"}},
        {"who": "a segmenter (unet)"},
        {"interpreter_miou": 0.25, "not_there": None},
        "Apache-2.0",
        ("a command",),
        synthetic=kind != "real",
    )
