"""Agreement of the interpreter with the annotator on generated images that neither was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.device import autocast
from medseg_gan.systems.datasetgan.interpreter.calibration import CalibrationError
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.samples.images import ImageSource


def agreement(
    interpreter: Interpreter, source: ImageSource, indices: np.ndarray, truth: np.ndarray, num_classes: int
) -> dict[str, Any]:
    """Compare every labeller that the interpreter's members make with the annotator.

    Args:
        interpreter: trained.
        source: renders the images.
        indices: `(N,)` sample indices of held-out images that the annotator accepted.
        truth: `(N, R, R)` the annotator's class ids, 255 where unlabelled.
        num_classes: K, background included.

    Returns:
        `agreement_miou` and `per_class_iou` of the interpreter's own labeller (dataset level, background included),
        `held_out_images`, and the mIoU of each of `labellers`; `disagreement`, the mean Jensen-Shannon divergence of
        the own labeller's members in nats; `calibration_error` of its probabilities, see `CalibrationError`, and
        `calibrated_error` after the interpreter's calibration where it has one.
    """
    matrices = dict.fromkeys(interpreter.labellers, np.zeros((num_classes, num_classes), np.int64))
    before, after = CalibrationError(num_classes), CalibrationError(num_classes)
    disagreement = 0.0
    size = source.sampling.block
    for number in np.unique(indices // size):
        inside = indices // size == number
        rendered = source.render(indices[inside])
        with autocast(source.device, source.sampling.precision):  # as the factory labels
            ballots = interpreter.count_each(rendered.images, rendered.maps)
        for name, ballot in ballots.items():
            labels = ballot.label(interpreter.rule(name)).cpu().numpy()
            matrices[name] = matrices[name] + confusion(labels, truth[inside], num_classes).sum(axis=0)
        own = ballots[interpreter.labeller]
        disagreement += float(own.uncertainty().mean(dim=(1, 2)).sum()) / len(indices)
        before.add(own.probs(), truth[inside])
        after.add(own.calibrated(), truth[inside])
    found = scores(matrices[interpreter.labeller])
    return {
        "agreement_miou": found["miou"],
        "per_class_iou": found["iou_per_class"],
        "held_out_images": len(indices),
        "labellers": {name: scores(matrix)["miou"] for name, matrix in matrices.items()},
        "disagreement": disagreement,
        "calibration_error": before.result(),
        **({"calibrated_error": after.result()} if interpreter.calibration else {}),
    }
