"""Training of the whole interpreter: one file per member, so that finished members are kept after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg_gan.errors import MedsegError, did_you_mean
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.machine.seeding import mix_seed, seed_step
from medseg_gan.networks.interpreter import Init, JointSegmenter, Order, PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration
from medseg_gan.systems.datasetgan.interpreter.fit_images import class_counts, drop_small_classes, fit_images, fit_joint
from medseg_gan.systems.datasetgan.interpreter.fit_pixels import fit_pixels_together
from medseg_gan.systems.datasetgan.interpreter.model import LABELLERS, Interpreter, load_interpreter
from medseg_gan.systems.datasetgan.samples.images import Rendered
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


UNFINISHED = "unfinished-classifiers-"
"""Before the number of a group of classifiers that learn together, in the name of the file they go on from."""


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
    max_steps: int | None
    pixel_batch: int
    early_stop: bool
    class_balanced: bool
    shared_batches: bool
    steps: int
    image_steps: int | None
    image_batch: int
    precision: str

    @property
    def depth(self) -> int:
        """Length D of a feature vector."""
        return sum(part.shape[1] for part in self.annotated.maps)

    def classifier(self, number: int) -> PixelClassifier:
        """A member of the features' ensemble before its training; the number decides its initialisation."""
        seed_step(self.seed, "classifier", number)
        chosen = self.preset
        classifier = PixelClassifier(self.depth, chosen.hidden, self.num_classes, chosen.order, chosen.init)
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
            max_epochs=self.max_epochs,
            max_steps=self.max_steps,
            batch=self.pixel_batch,
            early_stop=self.early_stop,
            class_balanced=self.class_balanced,
            shared_batches=self.shared_batches,
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
            steps=self.steps,
            batch=self.image_batch,
            precision=self.precision,
        )
        return classifier

    def train_joint(self, number: int, width: int) -> JointSegmenter:
        """Train one network on image and features."""
        seed_step(self.seed, "joint network", number)
        network = JointSegmenter(self.depth, self.num_classes, width)
        network = network.to(self.labels.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit_joint(
            network,
            self.annotated.images,
            self.annotated.maps,
            self.labels,
            seed=(self.seed, "joint", number),
            steps=self.steps,
            batch=self.image_batch,
            precision=self.precision,
        )
        return network


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
    max_steps: int | None = None,
    pixel_batch: int = 64,
    early_stop: bool = True,
    class_balanced: bool = False,
    shared_batches: bool = False,
    steps: int = 400,
    image_steps: int | None = None,
    image_batch: int = 4,
    image_members: int = 3,
    image_width: int = 16,
    workers: int = 1,
    precision: str = "fp32",
    calibration: Calibration | None = None,
) -> Interpreter:
    """Train the members that the labeller needs; those already in the folder are taken as they are.

    Args:
        folder: receives `classifier-00.pt`, ..., `image-00/`, ..., `joint-00.pt`, ... and, last, `interpreter.json`.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` uint8 class ids, 255 where nobody said.
        num_classes: K, background included.
        seed: each member's initialisation and order of examples come from this and its number alone.
        variant: of the features, see `FeatureExtractor`.
        labeller: `features`, `image`, `average` or `joint`, see `Interpreter`.
        vote: `majority` or `probability`.
        loss: `pixels` (the papers) or `whole_image`.
        preset: a key of `PRESETS`; for the loss `pixels`.
        members: classifiers on features.
        max_epochs: over all pixels; for the loss `pixels`.
        max_steps: at most; for the loss `pixels`.
        pixel_batch: pixels a step and member; for the loss `pixels`.
        early_stop: for the loss `pixels`, see `fit_pixels_together`.
        class_balanced: for the loss `pixels`: all classes are drawn equally often.
        shared_batches: for the loss `pixels`: all members see the same pixels in the same order.
        steps: of the loss `whole_image`, and of the image and joint networks.
        image_steps: of the image networks; None for `steps`.
        image_batch: images a step, likewise.
        image_members: U-Nets on the augmented images alone, or joint networks.
        image_width: channels of their first level.
        workers: members trained at a time, in processes of one thread and one copy of the features each; 1 on a GPU.
        precision: `fp32` or `bf16`, of all members.
        calibration: of the labeller's probabilities, kept with it.

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
        max_steps=max_steps,
        pixel_batch=pixel_batch,
        early_stop=early_stop,
        class_balanced=class_balanced,
        shared_batches=shared_batches,
        steps=steps,
        image_steps=image_steps,
        image_batch=image_batch,
        precision=precision,
    )
    _check_same_training(folder, training)
    on_features, on_image = labeller in ("features", "average"), labeller in ("image", "average")
    classifiers = [_classifier_file(k) for k in range(members if on_features else 0)]
    image_networks = [f"image-{k:02d}" for k in range(image_members if on_image else 0)]
    joint_networks = [f"joint-{k:02d}.pt" for k in range(image_members if labeller == "joint" else 0)]
    jobs = _image_jobs(folder, image_networks, training, image_width)
    jobs |= _classifier_jobs(folder, classifiers, training, workers)
    jobs |= _joint_jobs(folder, joint_networks, training, image_width)
    sizes = {name: len(job["settings"].get("numbers", [0])) for name, job in jobs.items()}
    total = len(classifiers) + len(image_networks) + len(joint_networks)
    run_jobs(_train_member, jobs, workers, "train_interpreter", total=total, unit="network", sizes=sizes)
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink()
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
            "joint_networks": joint_networks,
            "joint_width": image_width,
            "calibration": calibration.plain() if calibration else None,
        },
    )
    return load_interpreter(folder, str(labels.device))


def _classifier_jobs(
    folder: Path, names: list[str], training: ClassifierTraining, workers: int
) -> dict[str, dict[str, Any]]:
    """Classifiers of features that are not there yet: on pixels all together, in as many groups as processes."""
    missing = [number for number, name in enumerate(names) if not (folder / name).exists()]
    if training.loss == "pixels":
        groups = [missing[start :: max(workers, 1)] for start in range(min(workers, len(missing)))]
        return {
            f"classifiers {group}": {
                "train": _train_classifiers,
                "settings": {"folder": folder, "training": training, "numbers": numbers, "group": group},
            }
            for group, numbers in enumerate(groups)
        }
    return {
        names[number]: {
            "train": _train_classifier,
            "settings": {"path": folder / names[number], "training": training, "number": number},
        }
        for number in missing
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
                "steps": training.image_steps or training.steps,
                "batch_size": training.image_batch,
                "checkpoints": 1,
                "device": training.labels.device.type,
                "precision": training.precision,
            },
        }
        for number, name in enumerate(names)
    }


def _classifier_file(number: int) -> str:
    return f"classifier-{number:02d}.pt"


def _joint_jobs(folder: Path, names: list[str], training: ClassifierTraining, width: int) -> dict[str, dict[str, Any]]:
    """Networks on image and features that are not there yet."""
    return {
        name: {
            "train": _train_joint,
            "settings": {"path": folder / name, "training": training, "number": number, "width": width},
        }
        for number, name in enumerate(names)
        if not (folder / name).exists()
    }


def _train_member(train: Callable[..., Any], settings: dict[str, Any]) -> None:
    train(**settings)


def _train_classifier(path: Path, training: ClassifierTraining, number: int) -> None:
    """Train one classifier and keep it; a job of its own, so importable by name."""
    save_checkpoint(path, network=training.train_on_images(number))


def _train_classifiers(folder: Path, training: ClassifierTraining, numbers: Sequence[int], group: int) -> None:
    """Train classifiers together and keep each as it ends."""

    def keep(number: int, classifier: PixelClassifier) -> None:
        save_checkpoint(folder / _classifier_file(number), network=classifier)

    training.train_on_pixels(numbers, keep, folder / f"{UNFINISHED}{group}.pt")


def _train_joint(path: Path, training: ClassifierTraining, number: int, width: int) -> None:
    save_checkpoint(path, network=training.train_joint(number, width))


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
    usual = {"max_steps": "None", "image_steps": "None", "class_balanced": "False", "shared_batches": "False"}
    changed = [name for name in now if before.get(name, usual.get(name)) != now[name]]  # usual: before it was a setting
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
