"""Collect what the report says about a run's quality control."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gan.data.slices import SliceStore, to_grey
from medseg_gan.machine.atomic import read_json
from medseg_gan.systems.datasetgan.quality.model import ERRORS
from medseg_gan.systems.datasetgan.quality.scores import read_quality
from medseg_gan.systems.datasetgan.quality.stage import true_errors
from medseg_gan.systems.datasetgan.report.trust import Trust, best_and_worst


def quality_report(folder: Path) -> Trust | None:
    """What the report tells of the quality control in the stage's folder; None where there was none."""
    if not (folder / "quality.json").is_file():
        return None
    test_g = SliceStore.open(folder / "test_g")
    columns, found = read_quality(test_g.folder / "quality.csv"), true_errors(test_g.folder)
    wrong: list[dict[str, float | None]] = [dict.fromkeys(ERRORS) for _ in range(len(test_g))]
    truth = None
    if found is not None:
        accepted, errors = found
        for place, row in enumerate(accepted.tolist()):
            wrong[row] = {name: float(errors[name][place]) for name in ERRORS}
        truth = np.load(test_g.folder / "annotator_labels.npy")
    rows = best_and_worst(columns["predicted_wrong"])
    return Trust(
        facts=read_json(folder / "quality.json"),
        pairs=[
            {**{name: column[k].item() for name, column in columns.items()}, **wrong[k]} for k in range(len(test_g))
        ],
        images=to_grey(test_g.images[rows], test_g.window),
        labels=np.asarray(test_g.labels[rows]),
        truth=None if truth is None else truth[rows],
        rows=rows,
    )
