"""Training of the whole interpreter: one file per member, so that finished members are kept after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration
from medseg_gan.systems.datasetgan.interpreter.masks import class_counts
from medseg_gan.systems.datasetgan.interpreter.members import IMAGE_BATCH, Lesson
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter, load_interpreter
from medseg_gan.systems.datasetgan.interpreter.settings import InterpreterTraining
from medseg_gan.systems.datasetgan.samples.images import Rendered
from medseg_gan.training.labelled import LabelledSlices, TrainingSource
from medseg_gan.training.pool import run_jobs
from medseg_gan.training.segmenter import train_segmenter

UNFINISHED = "unfinished-classifiers-"
"""Before the number of a group of classifiers that learn together, in the name of the file they go on from."""

Jobs = dict[str, dict[str, Any]]


def train_interpreter(
    folder: Path,
    annotated: Rendered,
    labels: Tensor,
    how: InterpreterTraining,
    *,
    num_classes: int,
    seed: int,
    precision: str = "fp32",
    workers: int = 1,
    max_steps: int | None = None,
    calibration: Calibration | None = None,
) -> Interpreter:
    """Train the members that the labeller needs; those already in the folder are taken as they are.

    Args:
        folder: receives `classifier-00.pt`, ..., `image-00/`, ..., `joint-00.pt`, ... and, last, `interpreter.json`.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` uint8 class ids, 255 where nobody said.
        how: settings; the labeller is one of those that `Interpreter` knows.
        num_classes: K, background included.
        seed: each member's initialisation and order of examples come from this and its number alone.
        precision: `fp32` or `bf16`, of all members.
        workers: members trained at a time, in processes of one thread and one copy of the features each; 1 on a GPU.
        max_steps: of pixel classifiers at most, for a trial; None: as the epochs say.
        calibration: of the labeller's probabilities, kept with it.

    Raises:
        MedsegError: nothing to learn from, a loss that is not finite, or members of other settings.
    """
    assert how.labeller != "auto", "a labeller is chosen before it is trained"
    if int((class_counts(labels, num_classes) > 0).sum()) < 2:
        raise MedsegError("the annotated images show fewer than two classes, nothing to learn from; look at the masks")
    lesson = Lesson(annotated, labels, num_classes, seed, how, precision, max_steps)
    _check_same_training(folder, lesson)
    classifiers, image_networks, joint_networks = _member_names(how)
    jobs = _image_jobs(folder, image_networks, lesson)
    jobs |= _classifier_jobs(folder, classifiers, lesson, workers)
    jobs |= _joint_jobs(folder, joint_networks, lesson)
    sizes = {name: len(job["settings"].get("numbers", [0])) for name, job in jobs.items()}
    total = len(classifiers) + len(image_networks) + len(joint_networks)
    run_jobs(_train_member, jobs, workers, "train_interpreter", total=total, unit="network", sizes=sizes)
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink()
    plan = _plan(lesson, classifiers, image_networks, joint_networks, calibration)
    write_json(folder / "interpreter.json", plan)
    return load_interpreter(folder, str(labels.device))


def _member_names(how: InterpreterTraining) -> tuple[list[str], list[str], list[str]]:
    """Files of the classifiers of features, the networks on the image and those on both that a labeller consists of."""
    on_features, on_image = how.labeller in ("features", "average"), how.labeller in ("image", "average")
    return (
        [_classifier_file(k) for k in range(how.members if on_features else 0)],
        [f"image-{k:02d}" for k in range(how.image_members if on_image else 0)],
        [f"joint-{k:02d}.pt" for k in range(how.image_members if how.labeller == "joint" else 0)],
    )


def _plan(
    lesson: Lesson,
    classifiers: list[str],
    image_networks: list[str],
    joint_networks: list[str],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """What `load_interpreter` reads: the members and how they are built."""
    how = lesson.how
    return {
        "version": 1,
        "variant": how.features,
        "labeller": how.labeller,
        "vote": "majority",
        "num_classes": lesson.num_classes,
        "depth": lesson.depth,
        "hidden": list(lesson.preset.hidden),
        "order": lesson.preset.order,
        "loss": how.loss,
        "preset": how.preset if how.loss == "pixels" else None,
        "classifiers": classifiers,
        "image_networks": image_networks,
        "joint_networks": joint_networks,
        "joint_width": how.image_width,
        "calibration": calibration.plain() if calibration else None,
    }


def _classifier_jobs(folder: Path, names: list[str], lesson: Lesson, workers: int) -> Jobs:
    """Classifiers of features that are not there yet: on pixels all together, in as many groups as processes."""
    missing = [number for number, name in enumerate(names) if not (folder / name).exists()]
    if lesson.how.loss == "pixels":
        groups = [missing[start :: max(workers, 1)] for start in range(min(workers, len(missing)))]
        return {
            f"classifiers {group}": {
                "train": _train_classifiers,
                "settings": {"folder": folder, "lesson": lesson, "numbers": numbers, "group": group},
            }
            for group, numbers in enumerate(groups)
        }
    return {
        names[number]: {
            "train": _train_classifier,
            "settings": {"path": folder / names[number], "lesson": lesson, "number": number},
        }
        for number in missing
    }


def _image_jobs(folder: Path, names: list[str], lesson: Lesson) -> Jobs:
    """U-Nets on the same images, by the trainer of all segmenters, which itself keeps or resumes what is there."""
    source = TrainingSource(LabelledSlices(lesson.annotated.images.cpu(), lesson.labels.cpu()))
    return {
        name: {
            "train": train_segmenter,
            "settings": {
                "folder": folder / name,
                "network": {"name": "unet", "num_classes": lesson.num_classes, "width": lesson.how.image_width},
                "sources": [source],
                "seed": mix_seed(lesson.seed, "image network", number),
                "steps": lesson.how.image_steps or lesson.how.steps,
                "batch_size": IMAGE_BATCH,
                "checkpoints": 1,
                "device": lesson.labels.device.type,
                "precision": lesson.precision,
            },
        }
        for number, name in enumerate(names)
    }


def _joint_jobs(folder: Path, names: list[str], lesson: Lesson) -> Jobs:
    """Networks on image and features that are not there yet."""
    return {
        name: {"train": _train_joint, "settings": {"path": folder / name, "lesson": lesson, "number": number}}
        for number, name in enumerate(names)
        if not (folder / name).exists()
    }


def _classifier_file(number: int) -> str:
    return f"classifier-{number:02d}.pt"


def _train_member(train: Callable[..., Any], settings: dict[str, Any]) -> None:
    train(**settings)


def _train_classifier(path: Path, lesson: Lesson, number: int) -> None:
    """Train one classifier and keep it; a job of its own, so importable by name."""
    save_checkpoint(path, network=lesson.train_on_images(number))


def _train_classifiers(folder: Path, lesson: Lesson, numbers: Sequence[int], group: int) -> None:
    """Train classifiers together and keep each as it ends."""

    def keep(number: int, classifier: PixelClassifier) -> None:
        save_checkpoint(folder / _classifier_file(number), network=classifier)

    lesson.train_on_pixels(numbers, keep, folder / f"{UNFINISHED}{group}.pt")


def _train_joint(path: Path, lesson: Lesson, number: int) -> None:
    save_checkpoint(path, network=lesson.train_joint(number))


def _check_same_training(folder: Path, lesson: Lesson) -> None:
    """Members left by an interruption are kept only if they learnt from the same masks in the same way."""
    counts = {"labeller", "members", "image_members"}  # which and how many there are changes none of them
    plain = lesson.how.model_dump(mode="json", include=InterpreterTraining.model_fields.keys() - counts)
    plain |= {name: getattr(lesson, name) for name in ("num_classes", "seed", "precision", "max_steps")}
    tensors = {"labels": lesson.labels, "indices": lesson.annotated.indices, "ws": lesson.annotated.ws}
    now = plain | {
        name: sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest() for name, tensor in tensors.items()
    }
    path = folder / "trained_on.json"
    before = read_json(path) if path.exists() else now
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise MedsegError(
            f"{folder} holds members trained otherwise ({', '.join(changed)} changed); "
            "start anew with --rerun train_interpreter"
        )
    write_json(path, now)
