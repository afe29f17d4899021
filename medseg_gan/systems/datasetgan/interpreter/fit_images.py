"""How one member of the interpreter learns from whole images, by features alone or together with the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.losses.segmentation import class_weights, weighted_ce_dice
from medseg_gan.machine.device import autocast
from medseg_gan.machine.seeding import seed_step, torch_generator
from medseg_gan.networks.interpreter import JointSegmenter, PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.masks import class_counts
from medseg_gan.systems.datasetgan.samples.features import project_maps
from medseg_gan.training.augment import AIR, draw_affine, vary_intensity, warp


def fit_images(
    classifier: PixelClassifier,
    maps: Sequence[Tensor],
    labels: Tensor,
    *,
    seed: tuple[int | str, ...],
    lr: float,
    steps: int = 400,
    batch: int = 4,
    precision: str = "fp32",
) -> None:
    """Train a classifier on whole images: cross-entropy weighted by 1/sqrt(frequency) plus Dice, AdamW, one cycle.

    Its first layer is applied at native size, which is exact, so that an image costs little more than its pixels.

    Args:
        classifier: trained in place.
        maps: `(N, C_i, r_i, r_i)` feature maps of the annotated images.
        labels: `(N, R, R)` class ids; pixels of 255 are left out.
        seed: of the order of the images.
        lr: largest learning rate.
        steps: of the optimiser.
        batch: images a step.
        precision: of the classifier.

    Raises:
        MedsegError: the loss is not finite.
    """

    def answer(step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        first = classifier.first
        with autocast(labels.device.type, precision):
            hidden = project_maps([part[rows] for part in maps], first.weight, first.bias, labels.shape[-1])
            return classifier.classify(hidden), labels[rows]

    _fit_whole(classifier, labels, answer, seed=seed, lr=lr, steps=steps, batch=batch)


def fit_joint(
    network: JointSegmenter,
    images: Tensor,
    maps: Sequence[Tensor],
    labels: Tensor,
    *,
    seed: tuple[int | str, ...],
    lr: float = 3e-3,
    steps: int = 400,
    batch: int = 4,
    precision: str = "fp32",
) -> None:
    """Train a network on images and features together: loss and schedule of `fit_images`, and augmented.

    Image, label and projected features of an example are moved alike; grey values change in the image alone.

    Args:
        network: trained in place.
        images: `(N, 1, R, R)` the annotated images in [-1, 1].
        maps: `(N, C_i, r_i, r_i)` their feature maps.
        labels: `(N, R, R)` class ids; pixels of 255 are left out.
        seed: of the order of the images and of their augmentation.
        lr: largest learning rate.
        steps: of the optimiser.
        batch: images a step.
        precision: of the network.

    Raises:
        MedsegError: the loss is not finite.
    """

    def answer(step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        seed_step(*seed, "augment", step)
        theta, first = draw_affine(len(rows), labels.device), network.first
        with autocast(labels.device.type, precision):
            hidden = project_maps([part[rows] for part in maps], first.weight, first.bias, labels.shape[-1])
            hidden = warp(hidden.float(), theta, padding_mode="border")
            image = vary_intensity(warp(images[rows] - AIR, theta) + AIR)
            logits = network.segment(image, hidden)
        return logits, warp(labels[rows][:, None].float(), theta, mode="nearest")[:, 0]

    _fit_whole(network, labels, answer, seed=seed, lr=lr, steps=steps, batch=batch)


def _fit_whole(
    network: PixelClassifier | JointSegmenter,
    labels: Tensor,
    answer: Callable[[int, Tensor], tuple[Tensor, Tensor]],
    *,
    seed: tuple[int | str, ...],
    lr: float,
    steps: int,
    batch: int,
) -> None:
    """Train on whole images; `answer` gives logits and labels of a step's images, whose numbers it is told."""
    weights = class_weights(class_counts(labels, network.num_classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    network.train()
    for step, rows in enumerate(_batches(len(labels), batch, steps, seed)):
        logits, target = answer(step, rows.to(labels.device))
        loss = weighted_ce_dice(logits.float(), target.long(), weights)
        check_finite(loss.item(), step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def check_finite(loss: float, step: int) -> None:
    """Stop a training that can only get worse.

    Raises:
        MedsegError: the loss is not finite.
    """
    if not abs(loss) < float("inf"):
        raise MedsegError(
            f"train_interpreter: the loss is {loss} at step {step}; lower the learning rate or use run.precision=fp32"
        )


def _batches(count: int, batch: int, steps: int, seed: tuple[int | str, ...]) -> Iterator[Tensor]:
    """Image numbers of each step; every image once before any a second time."""
    ahead = torch.empty(0, dtype=torch.int64)
    epoch = 0
    for _ in range(steps):
        while len(ahead) < batch:
            order = torch.randperm(count, generator=torch_generator(*seed, "epoch", epoch))
            ahead, epoch = torch.cat([ahead, order]), epoch + 1
        yield ahead[:batch]
        ahead = ahead[batch:]
