"""A made-up run for the report tests: slices drawn from circles, scores without meaning."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_gan.labels import LabelTable, lookup_table
from medseg_gan.report import document
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.page import document_of

TITLES = {
    "synthetic": "1000 synthetic pairs",
    "hybrid": "1000 synthetic pairs + 30 real",
    "real30": "30 real only (3 patients x 10)",
    "real30_spread": "30 real only (spread)",
    "pseudo_label": "pseudo-label, 30 real + 1000 unlabelled",
    "annotated_only": "30 annotated only",
    "real": "500 real",
}
HEIGHTS = {"synthetic": 0.60, "hybrid": 0.66, "real30": 0.58, "real30_spread": 0.64, "pseudo_label": 0.645}
HEIGHTS |= {"annotated_only": 0.61, "real": 0.80}


def cost(row: str) -> dict[str, int]:
    """What a row cost in labels."""
    made = dict.fromkeys(("real_slices", "real_patients", "stand_in_slices", "stand_in_patients"), 0)
    made |= dict.fromkeys(("annotated_synthetic", "synthetic_pairs", "pseudo_slices"), 0)
    if row in ("synthetic", "hybrid", "annotated_only"):
        made |= {"stand_in_slices": 288, "stand_in_patients": 12, "annotated_synthetic": 30}
    if row in ("synthetic", "hybrid"):
        made["synthetic_pairs"] = 1000
    if row in ("hybrid", "real30", "real30_spread", "pseudo_label"):
        made |= {"real_slices": 30, "real_patients": 10 if row.endswith("spread") else 3}
    if row == "pseudo_label":
        made["pseudo_slices"] = 1000
    if row == "real":
        made |= {"real_slices": 500, "real_patients": 22}
    return made


def score(height: float, num_classes: int, seeds: int, rng: np.random.Generator) -> dict[str, Any]:
    """A score in both protocols around `height`."""
    per_class = np.clip(height + np.linspace(0.25, -0.25, num_classes) + rng.normal(0, 0.03, num_classes), 0, 1)
    per_seed = (height + rng.normal(0, 0.008, seeds)).tolist()
    return {
        "clean": {
            "miou": float(np.mean(per_seed)),
            "sd": float(np.std(per_seed)),
            "per_seed": per_seed,
            "interval": [height - 0.03, height + 0.025],
            "iou_per_class": per_class.tolist(),
            "foreground_miou": float(per_class[1:].mean()),
            "dice_per_class": (2 * per_class / (1 + per_class)).tolist(),
            "per_image_miou": height - 0.02,
            "nanmean_miou": height + 0.01,
        },
        "seed": {"miou": height - 0.005, "sd": 0.007},
    }


def comparison(b: str, difference: float, half: float, **more: Any) -> dict[str, Any]:
    """Hybrid minus `b` with a symmetric interval."""
    interval = [difference - half, difference + half]
    ordering = "kept" if interval[0] > 0 else "not kept" if interval[1] < 0 else "undecided"
    made = {"a": "hybrid", "b": b, "test": "test_r", "difference": difference, "interval": interval}
    return made | {"network": "unet", "ordering": ordering, "pairs": 3} | more


def example_scores(table: LabelTable, score_name: str = "mIoU") -> dict[str, Any]:
    """Seven rows, floors, comparisons with each of the three outcomes, an interpreter."""
    rng = np.random.default_rng(0)
    rows = []
    for row, title in TITLES.items():
        seeds = 1 if row == "real" else 3
        tests = ("test_r", "test_g[factory]", "test_g[annotator]")
        scores = {test: score(HEIGHTS[row] + 0.07 * k, table.num_classes, seeds, rng) for k, test in enumerate(tests)}
        if row in ("real", "real30_spread"):
            del scores["test_g[factory]"]
        rows.append(
            {
                "row": row,
                "title": title,
                "network": "unet",
                "steps": 1200,
                "segmenter_seeds": list(range(seeds)),
                "deciding": row not in ("real", "synthetic"),
                "cost": cost(row),
                "scores": scores,
            }
        )
    heights = {"all_background": 0.136, "position": 0.322, "intensity": 0.241, "untrained": 0.05}
    floors = {
        name: {"miou": h, "foreground_miou": h / 2, "iou_per_class": [0.9, *[h / 3] * (table.num_classes - 1)]}
        for name, h in heights.items()
    }
    kind = "lungs" if score_name != "mIoU" else "segmenter"
    return {
        "annotator": {"kind": kind, "who": "a U-Net", "real_slices": 288, "real_patients": 12},
        "classes": list(table.classes),
        "num_test_r": 216,
        "num_test_g": 100,
        "test_patients": 12,
        "score_name": score_name,
        "rows": rows,
        "floors": {"test_r": floors, "test_g[annotator]": floors},
        "comparisons": [
            comparison("real30", 0.08, 0.03),
            comparison("real30_spread", 0.02, 0.03),
            comparison("pseudo_label", 0.015, 0.02),
            comparison("annotated_only", 0.05, 0.02),
            comparison("synthetic", 0.06, 0.02),
        ],
        "interpreter": {
            "agreement_miou": 0.861,
            "per_class_iou": np.linspace(0.97, 0.6, table.num_classes).tolist(),
            "held_out_images": 100,
            "labellers": {"features": 0.845, "image": 0.858, "average": 0.861},
            "rejected": 6,
            "sampled": 136,
        },
    }


def example_slices(count: int, size: int, table: LabelTable, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grey `(N, H, W)` slices with a body and two dark lungs, and their label maps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    images, labels = np.zeros((count, size, size)), np.zeros((count, size, size), np.uint8)
    for k in range(count):
        width, height = rng.uniform(0.38, 0.46), rng.uniform(0.28, 0.36)
        images[k][(x / width) ** 2 + (y / height) ** 2 < 1] = 165
        for name, (cx, cy, r) in {
            "right_lung": (-0.19, 0.0, 0.14),
            "left_lung": (0.19, 0.0, 0.14),
            "heart": (0.04, -0.08, 0.10),
            "aorta": (0.05, 0.13, 0.035),
            "trachea": (0.0, 0.06, 0.02),
        }.items():
            disc = (x - cx) ** 2 + (y - cy) ** 2 < (r * rng.uniform(0.85, 1.1)) ** 2
            images[k][disc] = {"heart": 190, "aorta": 215}.get(name, 25)
            if name in table.classes:
                labels[k][disc] = table.id_of(name)
    noisy = images + rng.normal(0, 9, images.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def example_stats() -> list[dict[str, Any]]:
    """Rows of `stats.jsonl`; the penalty is missing in some, the first speed is not a number."""
    rows = []
    for k in range(60):
        row = {"images": 400 * (k + 1), "iteration": 50 * (k + 1), "loss_G": 1.5 + 0.3 * np.sin(k / 4)}
        row |= {"loss_D": 0.8 + 2 / (k + 1), "r_t": 0.9 - 0.6 / (k + 1), "p": min(0.3, 0.01 * k)}
        row |= {"img_per_s": float("nan") if k == 0 else 46 + np.cos(k)}
        rows.append(row | ({"r1": 0.4 / (k + 1)} if k % 2 else {}))
    return rows


def example_content(labels: str = "paper", size: int = 64, score_name: str = "mIoU", count: int = 16) -> ReportContent:
    """A full report content."""
    table = lookup_table(labels)
    real, real_labels = example_slices(count, size, table, seed=1)
    generated, generated_labels = example_slices(count, size, table, seed=2)
    edges = np.abs(np.diff(generated_labels.astype(int), axis=1, prepend=0)) > 0
    return ReportContent(
        title="DatasetGAN on SegTHOR (made-up example)",
        table=table,
        scores=example_scores(table, score_name),
        recipe="segthor_datasetgan",
        profile="demo",
        command="medseg-gan recipe segthor_datasetgan",
        headlines=["The run took 12 min 40 s, of which the GAN 8 min."],
        paper_rows=[
            {"row": "synthetic", "title": "1500 synthetic", "test_g": ".773 ± .012", "test_r": ".551 ± .006"},
            {"row": "real", "title": "500 real", "test_g": ".459 ± .004", "test_r": ".799 ± .010"},
            {"row": "hybrid", "title": "1500 synthetic + 30 real", "test_g": ".775 ± .012", "test_r": ".762 ± .006"},
            {"row": "annotated100", "title": "100 annotated", "test_g": ".844 ± .005", "test_r": ".663 ± .004"},
        ],
        paper_notes=["SegTHOR, 256 x 256, DeepLabV3-ResNet101, 1500 pairs, a person annotated 30 slices."],
        real_images=real,
        real_labels=real_labels,
        generated_images=generated,
        generated_labels=generated_labels,
        uncertainty=edges * np.random.default_rng(3).uniform(0.1, 0.6, edges.shape),
        training_stats=example_stats(),
        segmenter_stats={"synthetic": [{"iteration": 50 * k, "loss": 1.6 / (1 + k)} for k in range(24)]},
        pools=[
            {"pool": "gan", "patients": 60, "slices": 1440, "labelled_slices": 0},
            {"pool": "labelled", "patients": 22, "slices": 528, "labelled_slices": 528},
            {"pool": "test", "patients": 12, "slices": 216, "labelled_slices": 216},
            {"pool": "annotator", "patients": 12, "slices": 288, "labelled_slices": 288},
        ],
        left_out={"lungs cannot be told apart": 9, "lung area under 20 cm2": 31},
        phantom="edition 1",
        stages=[
            {"name": "prepare", "seconds": 41.2, "peak_mb": 850.0},
            {"name": "train_gan", "seconds": 482.0, "peak_mb": 1530.0},
            {"name": "annotate", "seconds": 52.0, "peak_mb": 1210.0},
            {"name": "train_segmenters", "seconds": 190.0, "peak_mb": 2410.0},
        ],
        versions={"medseg-gan": "0.1.0", "torch": "2.13.0+cpu", "monai": "1.6.1"},
        machine="Example CPU @ 2.1 GHz, 2 cores, avx512_bf16",
        precision="bf16",
        settings="prepare:\n  size: 64\ntrain_gan:\n  total_kimg: 24\n",
        warnings=["p reached its bound 0.8: the discriminator overfits."],
    )


def render(content: ReportContent) -> str:
    """The page of a content."""
    return document.render(document_of(content), [])
