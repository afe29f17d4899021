"""Who labels in a run without a person: the HU rule, or a stand-in segmenter trained on a cohort of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.annotators import (
    Annotator,
    Plausible,
    lungs_annotator,
    segmenter_annotator,
)
from medseg_gan.systems.datasetgan.recipe import Annotate, Prepare
from medseg_gan.systems.datasetgan.segmenter_jobs import training_job
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.segmenter import load_segmenter, train_segmenter


def annotator_kind(config: Annotate, inputs: Inputs) -> str:
    """Who paints: what was asked for, or by default the HU rule, the stand-in, or a person.

    Raises:
        MedsegError: the annotator asked for cannot label this: no cohort to train the stand-in, or more than lungs.
    """
    preparation = inputs.section(Prepare)
    if config.annotator == "auto":
        return judge_kind(inputs) or "person"
    if config.annotator == "segmenter" and inputs.data is not None:
        raise MedsegError(
            "annotate.annotator=segmenter needs a cohort of its own, which only the phantom has; use person or lungs"
        )
    if config.annotator == "lungs" and preparation.labels != "lungs":
        raise MedsegError(
            f"annotate.annotator=lungs labels lungs only, prepare.labels is {preparation.labels}; "
            "use prepare.labels=lungs or another annotator"
        )
    return config.annotator


def judge_kind(inputs: Inputs) -> str | None:
    """The automatic annotator that judges an interpreter taught by inverted slices; None: there is none to ask."""
    preparation = inputs.section(Prepare)
    return "lungs" if preparation.labels == "lungs" else "segmenter" if inputs.data is None else None


def build_annotator(
    kind: str,
    config: Annotate,
    folder: Path,
    store: SliceStore,
    spacing: tuple[float, float, float],
    inputs: Inputs,
) -> tuple[Annotator, dict[str, Any]]:
    """An automatic annotator and what is said of it: who it is and the real labelled slices it cost."""
    preparation = inputs.section(Prepare)
    if kind == "lungs":
        rule = lungs_annotator(
            window=store.window, spacing=spacing, table=store.table, min_lung_cm2=preparation.min_lung_cm2
        )
        return rule, {"kind": kind, "who": "the HU rule for lungs", "real_slices": 0, "real_patients": 0}
    cohort = store.indices("annotator", labelled=True)
    job = training_job(
        config.stand_in,
        folder / "stand_in",
        [TrainingSource(StoredSlices(inputs.folders["prepare"], cohort), balanced=True)],
        num_classes=store.table.num_classes,
        seed=mix_seed(inputs.seed, "stand_in"),
        inputs=inputs,
    )
    train_segmenter(**job, description="annotate: stand-in")
    network = load_segmenter(folder / "stand_in", inputs.device)

    def label_of(images: Tensor) -> np.ndarray:
        return predict_labels(network, images, device=inputs.device, precision=inputs.precision).numpy()

    patients = len(store.patients("annotator"))
    who = f"a segmenter ({config.stand_in.name})"
    plausible = Plausible.from_labels(store.labels[cohort], store.table)
    return segmenter_annotator(label_of, plausible), {
        "kind": kind,
        "who": who,
        "real_slices": len(cohort),
        "real_patients": patients,
    }


def stored_annotator(inputs: Inputs, store: SliceStore) -> Annotator | None:
    """The automatic annotator or judge of the finished stage `annotate`; None where there is none to ask."""
    config = inputs.section(Annotate)
    kind = read_json(inputs.folders["annotate"] / "annotator.json")["kind"]
    kind = judge_kind(inputs) if kind == "inversion" else kind
    if kind in ("person", None):
        return None
    return build_annotator(kind, config, inputs.folders["annotate"], store, store.typical_spacing(), inputs)[0]
