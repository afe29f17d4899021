"""Audit a run's generated training pairs for copies of the slices its GAN was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import SliceStore, to_grey
from medseg_gan.evaluation.memorisation import audit_copies, searches
from medseg_gan.evaluation.nearest import SliceSet
from medseg_gan.machine.atomic import write_json, write_text
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.report.values import csv_text, plain
from medseg_gan.systems.datasetgan.report.copies import Copies, copies_of
from medseg_gan.training.log import Progress

UNSEEN = ("labelled", "test")
"""Pools whose patients the GAN never saw; the phantom's cohort of the stand-in is a distribution of its own."""


def audit_pairs(
    folder: Path,
    real: SliceStore,
    generated: SliceStore,
    *,
    seed: int,
    images: int = 1000,
    canaries: int = 20,
    device: str = "cpu",
) -> Copies:
    """Look for copies of the `gan` pool among generated slices; write `memorisation.json` and `memorisation.csv`.

    Example:
        run = Path("runs/segthor_datasetgan-demo")
        real, pairs = SliceStore.open(run / "01-prepare"), SliceStore.open(run / "05-synthesize" / "train")
        print(audit_pairs(Path("audit"), real, pairs, seed=0).sentences[0])

    Args:
        folder: for the two files. The table names slices by sample index, row of the store, and pseudonym.
        real: slices of the stage `prepare`.
        generated: pairs of the stage `synthesize`.
        seed: of the run.
        images: generated slices looked at, and real ones they are judged by.
        canaries: planted copies of each kind.
        device: where to compute.

    Raises:
        MedsegError: a pool is empty, slices differ in size, or the disk is full.
    """
    trained_on = real.indices("gan")
    unseen = np.concatenate([real.indices(pool) for pool in UNSEEN])
    sets = _slices(generated, generated.indices()), _slices(real, trained_on), _slices(real, unseen)
    total = searches(len(generated), len(trained_on), len(unseen), images, canaries)
    with Progress(total, "report: copies of training slices", "search") as bar:
        audit = audit_copies(
            *sets,
            seed=mix_seed(seed, "memorisation"),
            images=images,
            canaries=canaries,
            device=device,
            on_done=bar.update,
        )

    copies = copies_of(
        audit,
        lambda rows: to_grey(generated.images[rows], generated.window),
        lambda rows: to_grey(real.images[trained_on[rows]], real.window),
        lambda position: {"sample": generated.records[position].case, "row": position},
        lambda position: _place(real, int(trained_on[position])),
    )
    write_text(folder / "memorisation.csv", csv_text(copies.pairs))
    write_json(
        folder / "memorisation.json",
        plain({"verdict": copies.verdict, "sentences": copies.sentences, **copies.facts}),
    )
    return copies


def _place(store: SliceStore, row: int) -> dict[str, Any]:
    record = store.records[row]
    return {"row": row, "case": record.case, "patient": record.patient, "slice": record.slice_index}


def _slices(store: SliceStore, rows: np.ndarray) -> SliceSet:
    return SliceSet(store.image_tensor, rows, [store.records[k].patient for k in rows])
