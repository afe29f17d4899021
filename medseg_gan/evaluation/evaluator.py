"""MONAI's evaluator over a set of images: predictions, confusion matrices, Ignite's report and MONAI's tables."""

from __future__ import annotations

import csv
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import ConfusionMatrix, DiceCoefficient, IoU, mIoU
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanIoUHandler, MetricsSaver
from monai.inferers import Inferer
from monai.networks.utils import one_hot
from torch import Tensor, nn

from medseg_gan.evaluation.segmentation import confusion
from medseg_gan.labels import UNLABELLED
from medseg_gan.machine.atomic import write_json, write_text
from medseg_gan.machine.device import autocast

REPORT = "ignite_report.json"


@dataclass(frozen=True)
class Evaluation:
    """What one pass of MONAI's evaluator over a set of images found.

    Attributes:
        pred: `(N, H, W)` uint8 class ids.
        matrices: `(N, K, K)` confusion matrix of each image.
        report: `metrics` of Ignite and MONAI over the set, `classes` and `num_images`, as plain values.
        tables: MONAI's CSV files by name: `metrics.csv`, and the IoU of every image and class in
            `per_image_iou_raw.csv` and `per_image_iou_summary.csv`.
    """

    pred: np.ndarray
    matrices: np.ndarray
    report: Mapping[str, Any]
    tables: Mapping[str, str]

    def write(self, folder: Path, settings: Mapping[str, Any], **more: Any) -> None:
        """Leave `ignite_report.json`, with `more` in it, and the tables; `settings` say which network this is."""
        for name, text in self.tables.items():
            write_text(folder / name, text)
        write_json(folder / REPORT, {**self.report, **more, "settings": dict(settings)})


def evaluate_segmenter(
    network: nn.Module,
    images: Tensor,
    label: Tensor,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    batch_size: int = 32,
    device: str = "cpu",
    precision: str = "fp32",
) -> Evaluation:
    """Evaluate a segmenter with MONAI's evaluator, in one pass over the images.

    Args:
        network: segmenter on `device`.
        images: `(N, C, H, W)` in [-1, 1].
        label: `(N, H, W)` class ids, 255 where unlabelled.
        names: name of each image in the CSV files; pseudonyms, as everything outside `prepare`.
        classes: names of the K classes.
        batch_size: images at once.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
    """
    found: list[np.ndarray] = []

    def keep(engine: Engine) -> None:
        output: Any = engine.state.output
        found.append(output["pred"].argmax(dim=1).to(torch.uint8).cpu().numpy())

    with tempfile.TemporaryDirectory() as scratch:
        evaluator = SupervisedEvaluator(
            device=torch.device(device),
            val_data_loader=list(_batches(images, label, names, batch_size)),
            network=network,
            inferer=_ForwardForMetrics(device, precision),
            prepare_batch=_prepare_batch,
            **_metrics(len(classes)),
            val_handlers=[_saver(scratch)],
            decollate=False,
        )
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
        with warnings.catch_warnings():  # MONAI's summaries of classes that no image shows
            warnings.simplefilter("ignore", RuntimeWarning)
            evaluator.run()
        tables = {path.name: _with_class_names(path.read_text(), classes) for path in Path(scratch).glob("*.csv")}
    pred = np.concatenate(found)
    report = {"metrics": _plain(evaluator.state.metrics), "classes": list(classes), "num_images": len(images)}
    return Evaluation(pred, confusion(pred, label.numpy(), len(classes)), report, tables)


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


class _ForwardForMetrics(Forward):
    """Each metric takes the argmax over classes, which is five times as fast where these lie side by side."""

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return super().__call__(inputs, network).contiguous(memory_format=torch.channels_last)


def _batches(images: Tensor, label: Tensor, names: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        meta = [{"filename_or_obj": name} for name in names[chosen]]
        yield {"image": images[chosen], "label": label[chosen], "meta": meta}


def _prepare_batch(
    batch: Mapping[str, Tensor], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor]:
    image, label = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "label"))
    return image.contiguous(memory_format=torch.channels_last), label.long()


def _metrics(num_classes: int) -> dict[str, Any]:
    matrix = ConfusionMatrix(num_classes, output_transform=lambda out: (out["pred"], out["label"]))
    per_image = MeanIoUHandler(output_transform=lambda out: _one_hot_pair(out["pred"], out["label"]))
    others = {"iou": IoU(matrix), "dice": DiceCoefficient(matrix), "per_image_iou": per_image}
    return {"key_val_metric": {"miou": mIoU(matrix)}, "additional_metrics": others}


def _saver(folder: str) -> MetricsSaver:
    return MetricsSaver(
        folder,
        metrics=["miou", "per_image_iou"],
        metric_details=["per_image_iou"],
        batch_transform=lambda batch: batch["meta"],
        summary_ops="*",
    )


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: np.asarray(metrics[name], dtype=float).tolist() for name in ("miou", "iou", "dice")}
    per_image = float(metrics["per_image_iou"])
    return {**found, "per_image_iou": per_image if np.isfinite(per_image) else None}


def _one_hot_pair(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction and label as `(B, K, H, W)`, without the pixels nobody labelled."""
    k = logits.shape[1]
    labelled = (label != UNLABELLED).unsqueeze(1)
    truth = one_hot(label.unsqueeze(1).where(labelled, 0), k) * labelled
    return one_hot(logits.argmax(dim=1, keepdim=True), k) * labelled, truth


def _with_class_names(text: str, classes: Sequence[str]) -> str:
    """MONAI numbers the columns `class0`, `class1`, ...; give them their names."""
    names = {f"class{k}": name for k, name in enumerate(classes)}
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    for row in csv.reader(io.StringIO(text)):
        writer.writerow([names.get(cell, cell) for cell in row])
    return target.getvalue()
