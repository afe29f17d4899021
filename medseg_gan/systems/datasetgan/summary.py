"""Stage `report`: collect the results of the other stages and write the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import SliceStore, to_grey
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.seeding import numpy_rng
from medseg_gan.report.run_facts import run_facts
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.inversion import inverted_slices
from medseg_gan.systems.datasetgan.quality.copies import audit_pairs
from medseg_gan.systems.datasetgan.quality.report import quality_report
from medseg_gan.systems.datasetgan.recipe import Report, TrainSegmenters
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.page import write_report
from medseg_gan.training.engine import read_stats

PAPER_ROWS = [
    {"row": "synthetic", "title": "1500 synthetic", "test_g": ".773 ± .012", "test_r": ".551 ± .006"},
    {"row": "real", "title": "500 real", "test_g": ".459 ± .004", "test_r": ".799 ± .010"},
    {"row": "hybrid", "title": "1500 synthetic + 30 real", "test_g": ".775 ± .012", "test_r": ".762 ± .006"},
    {"row": "", "title": "5000 synthetic", "test_g": ".783 ± .011", "test_r": ".560 ± .010"},
    {"row": "", "title": "10 000 synthetic", "test_g": ".793 ± .010", "test_r": ".569 ± .007"},
    {"row": "", "title": "15 000 synthetic", "test_g": ".801 ± .009", "test_r": ".580 ± .007"},
    {"row": "", "title": "50 annotated", "test_g": ".798 ± .004", "test_r": ".626 ± .004"},
    {"row": "", "title": "100 annotated", "test_g": ".844 ± .005", "test_r": ".663 ± .004"},
    {"row": "synthetic", "network": "fcn", "title": "FCN", "test_g": ".798 ± .014", "test_r": ".589 ± .004"},
    {"row": "synthetic", "network": "unet", "title": "UNet", "test_g": ".782 ± .013", "test_r": ".566 ± .009"},
]
"""Fan (2022), section III and tables I to III, DeepLabV3 if not said otherwise; unnamed rows have no twin here."""

PAPER_NOTES = [
    "The paper: SegTHOR at 256 x 256, DeepLabV3-ResNet101, 30 slices annotated by a person, protocol `seed`.",
    "The paper's FID: StyleGAN2 with ADA 43.02, StyleGAN 56.34. No FID is measured here.",
    "The paper judged 100 of its pairs: 74 good, 15 bad, 11 in between.",
]


def report(config: Report, folder: Path, inputs: Inputs) -> None:
    """Write `index.html`, `report.json` and the CSV tables."""
    folders = inputs.folders
    store = SliceStore.open(folders["prepare"])
    generated = SliceStore.open(folders["synthesize"] / "train")
    counts = read_json(folders["prepare"] / "counts.json")
    rng = numpy_rng(inputs.seed, "report")
    real = _some(rng, store.indices("test", labelled=True), config.pictures)
    fake = np.arange(min(config.pictures, len(generated)))
    training = inputs.section(TrainSegmenters)
    copies = config.audit_images and audit_pairs(
        folder,
        store,
        generated,
        seed=inputs.seed,
        images=config.audit_images,
        canaries=config.audit_canaries,
        device=inputs.device,
    )
    write_report(
        folder,
        ReportContent(
            title=f"{inputs.recipe}: DatasetGAN on StyleGAN2-ADA",
            table=store.table,
            scores=read_json(folders["evaluate"] / "scores.json"),
            headlines=_headlines(training, inverted_slices(folders["annotate"])),
            paper_rows=PAPER_ROWS,
            paper_notes=PAPER_NOTES,
            real_images=_grey(store, real),
            real_labels=store.labels[real],
            generated_images=_grey(generated, fake),
            generated_labels=generated.labels[fake],
            uncertainty=np.load(generated.folder / "uncertainty.npy", mmap_mode="r")[fake].astype(np.float32),
            sample_grids=sorted((folders["train_gan"] / "samples").glob("[0-9]*.png")),
            training_stats=read_stats(folders["train_gan"]),
            segmenter_stats=_curves(folders["train_segmenters"], training),
            pools=[{"pool": name, **numbers} for name, numbers in counts["pools"].items()],
            left_out={reason: number for reason, number in counts["left_out"].items() if number},
            phantom=counts["phantom"],
            warnings=_warnings(folders["train_gan"]),
            copies=copies or None,
            trust=quality_report(folders["synthesize"]),
            **run_facts(inputs, bool(counts["phantom"])),
        ),
    )


def _headlines(training: TrainSegmenters, inverted: np.ndarray | None) -> list[str]:
    drawn = (
        f"Each segmenter seed draws its own {training.few_patients} patients with up to {training.few_slices} slices; "
        "training sets of one seed share them, so differences are paired."
    )
    if inverted is not None:
        drawn = (
            f"{len(inverted)} real slices were inverted; every segmenter seed has their patients as its few, so that "
            "they are paid for once."
        )
    return [
        drawn,
        "The checkpoint of every training is picked on further labelled patients kept aside.",
    ]


def _some(rng: np.random.Generator, indices: np.ndarray, count: int) -> np.ndarray:
    return np.sort(rng.choice(indices, min(count, len(indices)), replace=False))


def _grey(store: SliceStore, indices: np.ndarray) -> np.ndarray:
    """Slices in their window as `(N, H, W)` uint8."""
    return to_grey(store.images[indices], store.window)


def _curves(folder: Path, training: TrainSegmenters) -> dict[str, list[dict[str, Any]]]:
    """Loss of the first seed of every row."""
    return {
        f"{network} {row}": read_json(folder / network / f"{row}-0" / "training.json")["curve"]
        for network in training.networks
        for row in training.rows
    }


def _warnings(folder: Path) -> list[str]:
    """What the GAN's training had to say."""
    path = folder / "warnings.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
