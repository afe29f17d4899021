"""Scores of label maps: dataset-level IoU as DatasetGAN counts it, Dice, per-image IoU, and MONAI's evaluator."""

from __future__ import annotations

import csv
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from ignite.metrics import ConfusionMatrix, DiceCoefficient, IoU, mIoU
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanIoUHandler, MetricsSaver
from monai.inferers import Inferer
from monai.networks.utils import one_hot
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED
from medseg_gan.machine.atomic import write_json, write_text
from medseg_gan.machine.device import autocast

REPORT = "ignite_report.json"


def confusion(pred: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix of each image; sums of them are what Ignite's `ConfusionMatrix` gives.

    Args:
        pred: `(N, H, W)` class ids.
        label: `(N, H, W)` class ids, 255 where unlabelled.
        num_classes: K.

    Returns:
        `(N, K, K)` int64 pixels, rows the label, columns the prediction.

    Raises:
        MedsegError: shapes differ.
    """
    if pred.shape != label.shape:
        raise MedsegError(f"prediction has shape {pred.shape}, label {label.shape}")
    n, k = len(pred), num_classes
    cell = label.reshape(n, -1).astype(np.int64) * k + pred.reshape(n, -1)
    cell += np.arange(n)[:, None] * k * k
    counts = np.bincount(cell[label.reshape(n, -1) != UNLABELLED], minlength=n * k * k)
    return counts.reshape(n, k, k)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class; 0 where it is neither labelled nor predicted (DatasetGAN, Ignite).

    Args:
        matrix: `(..., K, K)` confusion matrices.

    Returns:
        `(..., K)` in [0, 1].
    """
    hit, union = _hit_and_union(matrix)
    return hit / np.maximum(union, 1)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    """Every dataset-level figure of one confusion matrix, each under its own name.

    Args:
        matrix: `(K, K)` pixels of the whole set.

    Returns:
        `miou` (background included), `foreground_miou`, `nanmean_miou` (classes that are neither labelled nor
        predicted left out), `iou_per_class` and `dice_per_class` (K each).
    """
    iou = iou_per_class(matrix)
    present = _hit_and_union(matrix)[1] > 0
    return {
        "miou": float(iou.mean()),
        "foreground_miou": float(iou[1:].mean()),
        "nanmean_miou": float(iou[present].mean()) if present.any() else 0.0,
        "iou_per_class": iou.tolist(),
        "dice_per_class": (2 * iou / (1 + iou)).tolist(),
    }


def per_image_miou(matrices: np.ndarray) -> float:
    """Mean over images of the mean IoU of the classes labelled there, as MONAI's `MeanIoU` counts it.

    What is predicted in an image where its class is not labelled costs nothing here: not comparable with `miou`.

    Args:
        matrices: `(N, K, K)`, one per image.
    """
    labelled = matrices.sum(axis=2) > 0
    kept = labelled.any(axis=1)
    if not kept.any():
        return 0.0
    iou = np.where(labelled, iou_per_class(matrices), np.nan)[kept]
    return float(np.nanmean(iou, axis=1).mean())


def _hit_and_union(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    return hit, matrix.sum(axis=-1) + matrix.sum(axis=-2) - hit


def evaluate_segmenter(
    network: nn.Module,
    images: Tensor,
    label: Tensor,
    names: Sequence[str],
    classes: Sequence[str],
    folder: Path,
    *,
    settings: Mapping[str, Any],
    batch_size: int = 32,
    device: str = "cpu",
    precision: str = "fp32",
) -> np.ndarray:
    """Evaluate a segmenter with MONAI's evaluator and leave its files.

    Writes `ignite_report.json` (metrics, settings) and MONAI's CSV files: `metrics.csv`, and the IoU of every image
    and class in `per_image_iou_raw.csv` and `per_image_iou_summary.csv`.

    Args:
        network: segmenter on `device`.
        images: `(N, C, H, W)` in [-1, 1].
        label: `(N, H, W)` class ids, 255 where unlabelled.
        names: name of each image in the CSV files; pseudonyms, as everything outside `prepare`.
        classes: names of the K classes.
        folder: where to.
        settings: plain values that say which network and checkpoint this is.
        batch_size: images at once.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.

    Returns:
        `(N, K, K)` confusion matrix of each image.
    """
    num_classes = len(classes)
    matrices: list[np.ndarray] = []

    def batches() -> Iterator[dict[str, Any]]:
        for start in range(0, len(images), batch_size):
            chosen = slice(start, start + batch_size)
            meta = [{"filename_or_obj": name} for name in names[chosen]]
            yield {"image": images[chosen], "label": label[chosen], "meta": meta}

    matrix = ConfusionMatrix(num_classes, output_transform=lambda out: (out["pred"], out["label"]))
    metrics = {"miou": mIoU(matrix), "iou": IoU(matrix), "dice": DiceCoefficient(matrix)}  # before any update
    per_image = MeanIoUHandler(output_transform=lambda out: _one_hot_pair(out["pred"], out["label"]))
    with tempfile.TemporaryDirectory() as scratch:
        saver = MetricsSaver(
            scratch,
            metrics=["miou", "per_image_iou"],
            metric_details=["per_image_iou"],
            batch_transform=lambda batch: batch["meta"],
            summary_ops="*",
        )
        evaluator = SupervisedEvaluator(
            device=torch.device(device),
            val_data_loader=list(batches()),
            network=network,
            inferer=Forward(device, precision),
            key_val_metric={"miou": metrics["miou"]},
            additional_metrics={"iou": metrics["iou"], "dice": metrics["dice"], "per_image_iou": per_image},
            val_handlers=[saver],
            decollate=False,
        )
        evaluator.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine: matrices.append(_matrices(engine.state.output, num_classes)),
        )
        with warnings.catch_warnings():  # MONAI's summaries of classes that no image shows
            warnings.simplefilter("ignore", RuntimeWarning)
            evaluator.run()
        for path in sorted(Path(scratch).glob("*.csv")):
            write_text(folder / path.name, _with_class_names(path.read_text(), classes))
    found = evaluator.state.metrics
    report = {name: np.asarray(found[name], dtype=float).tolist() for name in ("miou", "iou", "dice")}
    per_image_mean = float(found["per_image_iou"])
    report["per_image_iou"] = per_image_mean if np.isfinite(per_image_mean) else None
    write_json(
        folder / REPORT,
        {"metrics": report, "classes": list(classes), "num_images": len(images), "settings": dict(settings)},
    )
    return np.concatenate(matrices)


class Forward(Inferer):
    """Forward pass in the chosen precision, for MONAI's engines.

    Example:
        SupervisedTrainer(..., inferer=Forward("cpu", "bf16"))
    """

    def __init__(self, device: str, precision: str) -> None:
        """Choose `cpu` or `cuda`, and `fp32` or `bf16`."""
        super().__init__()
        self.device, self.precision = device, precision

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Logits of `inputs`, in fp32."""
        with autocast(self.device, self.precision):
            return network(inputs).float()


def _one_hot_pair(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction and label as `(B, K, H, W)`, without the pixels nobody labelled."""
    k = logits.shape[1]
    labelled = (label != UNLABELLED).unsqueeze(1)
    truth = one_hot(label.unsqueeze(1).where(labelled, 0), k) * labelled
    return one_hot(logits.argmax(dim=1, keepdim=True), k) * labelled, truth


def _matrices(output: Mapping[str, Tensor], num_classes: int) -> np.ndarray:
    return confusion(output["pred"].argmax(dim=1).cpu().numpy(), output["label"].cpu().numpy(), num_classes)


def _with_class_names(text: str, classes: Sequence[str]) -> str:
    """MONAI numbers the columns `class0`, `class1`, ...; give them their names."""
    names = {f"class{k}": name for k, name in enumerate(classes)}
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    for row in csv.reader(io.StringIO(text)):
        writer.writerow([names.get(cell, cell) for cell in row])
    return target.getvalue()
