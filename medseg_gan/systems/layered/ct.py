"""CT for the layered GAN: slices as grey images whose foreground is the lungs or the body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.lungs import body_of
from medseg_gan.data.phantom.patient import EDITION
from medseg_gan.data.phantom.thorax import write_thorax_phantom
from medseg_gan.data.pictures import PictureRecord, count_splits, write_picture_store
from medseg_gan.data.preparation import Preprocessing, prepare_store
from medseg_gan.data.records import find_cases
from medseg_gan.data.slices import SliceStore, to_grey
from medseg_gan.data.splits import Split
from medseg_gan.labels import lookup_table
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.layered.recipe import Prepare
from medseg_gan.training.log import Progress

CT = "chest CT"
"""Name of the data set in the picture store."""


def prepare_ct(config: Prepare, folder: Path, inputs: Inputs, workers: int) -> dict[str, Any]:
    """Write the picture store of a run on volumes.

    Slices, pseudonyms and pools of patients come from the preparation that `segthor_datasetgan` uses, lungs from its
    HU rule. The patients of its pools `gan` and `labelled` are the split `train`, those of `test` the split `test`.

    Returns:
        `splits`, `left_out` reasons as `notes`, `pools`, and the phantom's name.
    """
    root = inputs.data
    if root is None:
        root = folder / "phantom"
        with Progress(None, "prepare: phantom", "patient") as bar:
            write_thorax_phantom(
                root,
                seed=inputs.seed,
                annotator_patients=1,  # the stand-in annotator's cohort, which nobody reads here
                **config.thorax.model_dump(),
                workers=workers,
                progress=bar.reach,
            )
    cases = find_cases(root, "auto", config.patient_pattern)
    how = Preprocessing(lookup_table("lungs"), config.size, 1.0, None, 20.0)
    slices = folder / "slices"
    with Progress(len(cases), "prepare: slices", "volume") as bar:
        counts = prepare_store(
            slices,
            cases,
            how,
            seed=inputs.seed,
            window=config.window,
            min_test=config.min_test_patients,
            workers=workers,
            on_done=bar.update,
        )
    records = as_pictures(SliceStore.open(slices), folder, config)
    left_out = [f"{number} slices left out, {reason}" for reason, number in counts["left_out"].items() if number]
    return {
        "splits": count_splits(records),
        "without_mask": [],
        "without_foreground": 0,
        "pools": counts["pools"],
        "notes": [*left_out, f"foreground is {config.foreground} by an HU rule: the score is agreement with it"],
        "phantom": "" if inputs.data else f"thorax phantom, edition {EDITION}",
    }


def as_pictures(store: SliceStore, folder: Path, config: Prepare) -> list[PictureRecord]:
    """Write the slices of a store as 8-bit grey pictures with their foreground."""
    grey = to_grey(store.images, store.window)
    if config.foreground == "lungs":
        inside = np.isin(store.labels, (store.table.id_of("left_lung"), store.table.id_of("right_lung")))
    else:
        inside = body_of(store.images)
    records = []
    for number, record in enumerate(store.records):
        split: Split = "test" if record.pool == "test" else "train"
        known = split == "test" or (config.foreground == "body") or record.labelled
        records.append(PictureRecord(f"{record.patient}-{number:05d}", split, None, known))
    masks = np.where(np.array([one.labelled for one in records])[:, None, None], inside, 255).astype(np.uint8)
    write_picture_store(folder, grey[..., None], masks, records, dataset=CT)
    return records
