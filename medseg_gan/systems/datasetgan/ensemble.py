"""Training of the whole interpreter: one file per member, so that finished members are kept after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg_gan.atomic import read_json, write_json
from medseg_gan.checkpoint import save_checkpoint
from medseg_gan.errors import MedsegError, did_you_mean
from medseg_gan.networks.interpreter import Init, Order, PixelClassifier
from medseg_gan.seeding import mix_seed, seed_step
from medseg_gan.systems.datasetgan.fit import class_counts, drop_small_classes, fit_images, fit_pixels
from medseg_gan.systems.datasetgan.interpreter import LABELLERS, Interpreter, load_interpreter
from medseg_gan.systems.datasetgan.sampling import Rendered
from medseg_gan.training.labelled import LabelledSlices, TrainingSource
from medseg_gan.training.pool import run_jobs
from medseg_gan.training.segmenter import train_segmenter


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


@dataclass(frozen=True)
class ClassifierTraining:
    """What a classifier of features learns from, and how; see `train_interpreter` for the fields."""

    annotated: Rendered
    labels: Tensor
    num_classes: int
    seed: int
    loss: str
    preset: Preset
    max_epochs: int
    pixel_batch: int
    early_stop: bool
    steps: int
    image_batch: int
    precision: str

    @property
    def depth(self) -> int:
        """Length D of a feature vector."""
        return sum(part.shape[1] for part in self.annotated.maps)

    def train(self, number: int) -> PixelClassifier:
        """Train one member; the number decides its initialisation and the order of its examples."""
        seed_step(self.seed, "classifier", number)
        chosen, maps = self.preset, self.annotated.maps
        classifier = PixelClassifier(self.depth, chosen.hidden, self.num_classes, chosen.order, chosen.init)
        classifier.to(self.labels.device)
        if self.loss == "pixels":
            fit_pixels(
                classifier,
                maps,
                drop_small_classes(self.labels, chosen.min_class_pixels),
                seed=(self.seed, "pixels", number),
                lr=chosen.lr,
                max_epochs=self.max_epochs,
                batch=self.pixel_batch,
                early_stop=self.early_stop,
            )
        else:
            fit_images(
                classifier,
                maps,
                self.labels,
                seed=(self.seed, "images", number),
                lr=chosen.lr,
                steps=self.steps,
                batch=self.image_batch,
                precision=self.precision,
            )
        return classifier


def train_interpreter(
    folder: Path,
    annotated: Rendered,
    labels: Tensor,
    *,
    num_classes: int,
    seed: int,
    variant: str = "editgan",
    labeller: str = "features",
    vote: str = "majority",
    loss: str = "pixels",
    preset: str = "seed003",
    members: int = 10,
    max_epochs: int = 100,
    pixel_batch: int = 64,
    early_stop: bool = True,
    steps: int = 400,
    image_batch: int = 4,
    image_members: int = 3,
    image_width: int = 16,
    workers: int = 1,
    precision: str = "fp32",
) -> Interpreter:
    """Train the members that the labeller needs; those already in the folder are taken as they are.

    Args:
        folder: receives `classifier-00.pt`, ..., `image-00/`, ... and, last, `interpreter.json`.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` uint8 class ids, 255 where nobody said.
        num_classes: K, background included.
        seed: each member's initialisation and order of examples come from this and its number alone.
        variant: of the features, see `FeatureExtractor`.
        labeller: `features`, `image` or `average`, see `Interpreter`.
        vote: `majority` or `probability`.
        loss: `pixels` (the papers) or `whole_image`.
        preset: a key of `PRESETS`; for the loss `pixels`.
        members: classifiers on features.
        max_epochs: over all pixels; for the loss `pixels`.
        pixel_batch: pixels a step; for the loss `pixels`.
        early_stop: for the loss `pixels`, see `fit_pixels`.
        steps: of the loss `whole_image`, and of the image networks.
        image_batch: images a step, likewise.
        image_members: U-Nets on the augmented images alone.
        image_width: channels of their first level.
        workers: members trained at a time, in processes of one thread and one copy of the features each; 1 on a GPU.
        precision: of `whole_image` and of the image networks.

    Raises:
        MedsegError: unknown names, nothing to learn from, a loss that is not finite, or members of other settings.
    """
    _check_names(labeller=(labeller, LABELLERS), loss=(loss, ("pixels", "whole_image")), preset=(preset, PRESETS))
    if int((class_counts(labels, num_classes) > 0).sum()) < 2:
        raise MedsegError("the annotated images show fewer than two classes, nothing to learn from; look at the masks")
    training = ClassifierTraining(
        annotated=annotated,
        labels=labels,
        num_classes=num_classes,
        seed=seed,
        loss=loss,
        preset=WHOLE_IMAGE if loss == "whole_image" else PRESETS[preset],
        max_epochs=max_epochs,
        pixel_batch=pixel_batch,
        early_stop=early_stop,
        steps=steps,
        image_batch=image_batch,
        precision=precision,
    )
    _check_same_training(folder, training)
    classifiers = [f"classifier-{k:02d}.pt" for k in range(members if labeller != "image" else 0)]
    image_networks = [f"image-{k:02d}" for k in range(image_members if labeller != "features" else 0)]
    jobs = _image_jobs(folder, image_networks, training, image_width) | _classifier_jobs(folder, classifiers, training)
    run_jobs(_train_member, jobs, workers, "train_interpreter", total=len(classifiers) + len(image_networks))
    write_json(
        folder / "interpreter.json",
        {
            "version": 1,
            "variant": variant,
            "labeller": labeller,
            "vote": vote,
            "num_classes": num_classes,
            "depth": training.depth,
            "hidden": list(training.preset.hidden),
            "order": training.preset.order,
            "loss": loss,
            "preset": preset if loss == "pixels" else None,
            "classifiers": classifiers,
            "image_networks": image_networks,
        },
    )
    return load_interpreter(folder, str(labels.device))


def _classifier_jobs(folder: Path, names: list[str], training: ClassifierTraining) -> dict[str, dict[str, Any]]:
    """Classifiers of features that are not there yet."""
    return {
        name: {
            "train": _train_classifier,
            "settings": {"path": folder / name, "training": training, "number": number},
        }
        for number, name in enumerate(names)
        if not (folder / name).exists()
    }


def _image_jobs(folder: Path, names: list[str], training: ClassifierTraining, width: int) -> dict[str, dict[str, Any]]:
    """U-Nets on the same images, by the trainer of all segmenters, which itself keeps or resumes what is there."""
    source = TrainingSource(LabelledSlices(training.annotated.images.cpu(), training.labels.cpu()))
    return {
        name: {
            "train": train_segmenter,
            "settings": {
                "folder": folder / name,
                "network": {"name": "unet", "num_classes": training.num_classes, "width": width},
                "sources": [source],
                "seed": mix_seed(training.seed, "image network", number),
                "steps": training.steps,
                "batch_size": training.image_batch,
                "checkpoints": 1,
                "device": training.labels.device.type,
                "precision": training.precision,
            },
        }
        for number, name in enumerate(names)
    }


def _train_member(train: Callable[..., Any], settings: dict[str, Any]) -> None:
    train(**settings)


def _train_classifier(path: Path, training: ClassifierTraining, number: int) -> None:
    """Train one classifier and keep it; a job of its own, so importable by name."""
    save_checkpoint(path, network=training.train(number))


def _check_same_training(folder: Path, training: ClassifierTraining) -> None:
    """Members left by an interruption are kept only if they learnt from the same masks in the same way."""
    plain = {
        field.name: repr(getattr(training, field.name))
        for field in fields(training)
        if field.name not in ("annotated", "labels")
    }
    tensors = {"labels": training.labels, "indices": training.annotated.indices, "ws": training.annotated.ws}
    digests = {
        name: sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest() for name, tensor in tensors.items()
    }
    path = folder / "trained_on.json"
    now = plain | digests
    before = read_json(path) if path.exists() else now
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise MedsegError(
            f"{folder} holds members trained otherwise ({', '.join(changed)} changed); "
            "start anew with --rerun train_interpreter"
        )
    write_json(path, now)


def _check_names(**chosen: tuple[str, Iterable[str]]) -> None:
    for setting, (name, known) in chosen.items():
        if name not in known:
            raise MedsegError(
                f"train_interpreter.{setting} is {name!r}; wanted one of {', '.join(known)}{did_you_mean(name, known)}"
            )
