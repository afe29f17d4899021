"""One pixel classifier trained alone: what `fit_pixels_together` has to equal for each of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medseg_gan.machine.device import autocast
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.fit_images import check_finite
from medseg_gan.systems.datasetgan.interpreter.fit_pixels import FIRST_STOPPING_EPOCH, PATIENCE, PixelOrder
from medseg_gan.systems.datasetgan.samples.features import gather_pixels


def fit_pixels(
    classifier: PixelClassifier,
    maps: Sequence[Tensor],
    labels: Tensor,
    *,
    seed: tuple[int | str, ...],
    lr: float,
    max_epochs: int = 100,
    batch: int = 64,
    early_stop: bool = True,
    class_balanced: bool = False,
    precision: str = "fp32",
) -> int:
    """Train one classifier on single pixels of all images, each once an epoch (DatasetGAN; Adam, cross-entropy).

    Feature vectors are read from the maps at native size, as many as a step needs: the same numbers as rows of the
    hypercolumn, in a thousandth of its memory.

    Args:
        classifier: trained in place.
        maps: `(N, C_i, r_i, r_i)` feature maps of the annotated images.
        labels: `(N, R, R)` class ids; pixels of 255 are left out.
        seed: of the order of the pixels.
        lr: learning rate.
        max_epochs: over all labelled pixels.
        batch: pixels a step.
        early_stop: see `PATIENCE`.
        class_balanced: see `PixelOrder`.
        precision: of the classifier.

    Returns:
        Steps taken.

    Raises:
        MedsegError: the loss is not finite.
    """
    resolution = labels.shape[-1]
    truth = labels.flatten().long()
    order = PixelOrder(labels, class_balanced)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=lr)
    classifier.train()
    step, best, failures = 0, float("inf"), 0
    for epoch in range(max_epochs):
        for pixels in order.labelled[order.epoch(seed, epoch).long().to(labels.device)].split(batch):
            if len(pixels) < 2:
                continue  # batch norm has no variance of one pixel
            rows = gather_pixels(maps, pixels, resolution)
            with autocast(labels.device.type, precision):
                logits = classifier(rows)
            loss = functional.cross_entropy(logits.float(), truth[pixels])
            value = loss.item()
            check_finite(value, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if early_stop and epoch >= FIRST_STOPPING_EPOCH:
                best, failures = (value, 0) if value < best else (best, failures + 1)
                if failures > PATIENCE:
                    return step
    return step
