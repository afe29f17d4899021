"""One member of the interpreter, or several on the same pixels: a network, and how it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medseg_gan.machine.seeding import seed_step
from medseg_gan.networks.interpreter import Init, JointSegmenter, Order, PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.fit_images import fit_images, fit_joint
from medseg_gan.systems.datasetgan.interpreter.fit_pixels import fit_pixels_together
from medseg_gan.systems.datasetgan.interpreter.masks import drop_small_classes
from medseg_gan.systems.datasetgan.interpreter.settings import InterpreterTraining
from medseg_gan.systems.datasetgan.samples.images import Rendered


@dataclass(frozen=True)
class Preset:
    """A pixel classifier and how its source trains it.

    Attributes:
        hidden: widths of the hidden layers.
        order: of batch norm and ReLU.
        init: of the linear layers.
        lr: learning rate.
        min_class_pixels: a class with fewer pixels in an image is background there.
    """

    hidden: tuple[int, ...]
    order: Order
    init: Init
    lr: float
    min_class_pixels: int = 0


PRESETS = {
    # "2496, 256, 128 neurons", read as input widths: 2496 is one map per block (4992 is all of them).
    "seed003": Preset((256, 128), "linear-bn-relu", "kaiming", lr=1e-4),
    # The same words, read as hidden widths.
    "seed003-literal": Preset((2496, 256, 128), "linear-bn-relu", "kaiming", lr=1e-4),
    # Zhang et al. (2021), for fewer than 32 classes.
    "datasetgan": Preset((128, 32), "linear-relu-bn", "normal", lr=1e-3, min_class_pixels=30),
}

WHOLE_IMAGE = Preset((48, 48, 48), "linear-bn-relu", "kaiming", lr=3e-3)
"""The classifier that the loss `whole_image` trains; ours."""

IMAGE_BATCH = 4
"""Images a step, where members learn from whole images."""


@dataclass(frozen=True)
class Lesson:
    """What every member learns from, and how.

    Attributes:
        annotated: the annotated images with their features.
        labels: `(N, R, R)` uint8 class ids, 255 where nobody said.
        num_classes: K, background included.
        seed: each member's initialisation and order of examples come from this and its number alone.
        how: settings of the training.
        precision: `fp32` or `bf16`.
        max_steps: of pixel classifiers at most, for a trial; None: as the epochs say.
    """

    annotated: Rendered
    labels: Tensor
    num_classes: int
    seed: int
    how: InterpreterTraining
    precision: str
    max_steps: int | None = None

    @property
    def preset(self) -> Preset:
        """The classifier of features."""
        return WHOLE_IMAGE if self.how.loss == "whole_image" else PRESETS[self.how.preset]

    @property
    def depth(self) -> int:
        """Length D of a feature vector."""
        return sum(part.shape[1] for part in self.annotated.maps)

    def classifier(self, number: int) -> PixelClassifier:
        """A member of the features' ensemble before its training; the number decides its initialisation."""
        seed_step(self.seed, "classifier", number)
        preset = self.preset
        classifier = PixelClassifier(self.depth, preset.hidden, self.num_classes, preset.order, preset.init)
        return classifier.to(self.labels.device)

    def train_on_pixels(
        self, numbers: Sequence[int], on_done: Callable[[int, PixelClassifier], None], unfinished: Path | None = None
    ) -> None:
        """Train several members together, each with an order of pixels of its own; each is handed over as it ends."""
        classifiers = {number: self.classifier(number) for number in numbers}
        fit_pixels_together(
            classifiers,
            self.annotated.maps,
            drop_small_classes(self.labels, self.preset.min_class_pixels),
            seed=(self.seed, "pixels"),
            lr=self.preset.lr,
            max_epochs=self.how.max_epochs,
            max_steps=self.max_steps,
            batch=self.how.pixel_batch,
            class_balanced=self.how.class_balanced,
            shared_batches=self.how.shared_batches,
            precision=self.precision,
            on_done=lambda number: on_done(number, classifiers[number]),
            unfinished=unfinished,
        )

    def train_on_images(self, number: int) -> PixelClassifier:
        """Train one member on whole images; the number decides their order too."""
        classifier = self.classifier(number)
        fit_images(
            classifier,
            self.annotated.maps,
            self.labels,
            seed=(self.seed, "images", number),
            lr=self.preset.lr,
            steps=self.how.steps,
            batch=IMAGE_BATCH,
            precision=self.precision,
        )
        return classifier

    def train_joint(self, number: int) -> JointSegmenter:
        """Train one network on image and features."""
        seed_step(self.seed, "joint network", number)
        network = JointSegmenter(self.depth, self.num_classes, self.how.image_width)
        network = network.to(self.labels.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit_joint(
            network,
            self.annotated.images,
            self.annotated.maps,
            self.labels,
            seed=(self.seed, "joint", number),
            steps=self.how.steps,
            batch=IMAGE_BATCH,
            precision=self.precision,
        )
        return network
