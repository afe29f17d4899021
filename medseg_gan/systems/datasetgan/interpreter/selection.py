"""Which labeller to take: cross-validation on the annotated images, whole images being the unit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.atomic import atomic_path, read_json, write_json
from medseg_gan.machine.device import autocast
from medseg_gan.machine.seeding import mix_seed, numpy_rng
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.interpreter.agreement import agreement
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration, fit_calibration
from medseg_gan.systems.datasetgan.interpreter.choice import report_of
from medseg_gan.systems.datasetgan.interpreter.settings import InterpreterTraining, TrainInterpreter
from medseg_gan.systems.datasetgan.interpreter.training import train_interpreter
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Rendered
from medseg_gan.training.log import say
from medseg_gan.training.pool import process_count, run_jobs

Labeller = dict[str, str]
"""What a candidate changes in the settings: `labeller` and `loss`."""

CANDIDATES: dict[str, Labeller] = {
    "image": {"labeller": "image", "loss": "whole_image"},
    "whole_image": {"labeller": "features", "loss": "whole_image"},
    "joint": {"labeller": "joint", "loss": "whole_image"},
    "average": {"labeller": "average", "loss": "whole_image"},
    "pixels": {"labeller": "features", "loss": "pixels"},
}
"""Labellers to choose from, the simplest and cheapest first: where two tie, the earlier is taken."""

RESULT, FOLDS = "selection.json", "selection"

PIXELS_KEPT = 4096
"""Pixels of each left-out image that calibration learns from, at random."""

PIXEL_STEPS = 10
"""Steps of pixel classifiers in a fold at most, for each step of the other labellers; one of pixels costs far less."""


@dataclass(frozen=True)
class Held:
    """Held-out generated images that judge labellers: where they come from, and the annotator's answers."""

    source: ImageSource
    indices: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Selection:
    """The outcome: settings of the labeller to train, and its calibration."""

    labeller: str
    loss: str
    calibration: Calibration | None


@dataclass(frozen=True)
class Trial:
    """How labellers are tried.

    Attributes:
        how: settings of the training in a fold, but for what a candidate changes.
        candidates: settings `labeller` and `loss` of each by name, the one to keep in a tie first.
        folds: parts of the images; fewer where there are fewer images.
        calibrate: `none`, `temperature` or `per_class`.
        max_steps: of pixel classifiers at most.
        precision: `fp32` or `bf16`.
    """

    how: InterpreterTraining
    candidates: dict[str, Labeller]
    folds: int
    calibrate: str
    max_steps: int
    precision: str

    def training(self, labeller: Labeller) -> InterpreterTraining:
        """Settings of a candidate's training."""
        return self.how.model_copy(update=labeller)

    def told(self) -> dict[str, Any]:
        """Settings of the folds, for the report."""
        members = {"variant": self.how.features, "members": self.how.members, "image_members": self.how.image_members}
        alike = ("max_epochs", "steps", "image_steps", "preset", "pixel_batch", "class_balanced", "shared_batches")
        steps = {name: getattr(self.how, name) for name in (*alike, "image_width")}
        return {**members, **steps, "max_steps": self.max_steps, "precision": self.precision}


def trial_of(config: TrainInterpreter, precision: str) -> Trial | None:
    """What a recipe wants to be tried; None where it names a labeller and no calibration."""
    calibrate = config.calibration
    if calibrate == "auto":
        calibrate = "per_class" if config.labeller == "auto" else "none"
    if config.labeller != "auto" and calibrate == "none":
        return None
    candidates: dict[str, Labeller] = {name: CANDIDATES[name] for name in config.candidates}
    if config.labeller != "auto":
        candidates = {config.labeller: {"labeller": config.labeller, "loss": config.loss}}
    steps = config.fold_steps or config.steps
    fewer = {
        "members": min(config.members, config.fold_members),
        "image_members": min(config.image_members, config.fold_members),
        "steps": steps,
        "image_steps": config.fold_steps or config.image_steps,
    }
    how = config.model_copy(update=fewer)
    return Trial(how, candidates, config.folds, calibrate, PIXEL_STEPS * steps, precision)


def choose_labeller(
    folder: Path,
    annotated: Rendered,
    labels: Tensor,
    config: TrainInterpreter,
    inputs: Inputs,
    num_classes: int,
    held_out: Held | None,
) -> Selection | None:
    """Cross-validate where the recipe wants a choice or a calibration; an earlier outcome in the folder is kept.

    Args:
        folder: of the stage.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` class ids, 255 where unlabelled.
        config: settings of the stage.
        inputs: of the stage.
        num_classes: K, background included.
        held_out: further labelled images, where there are some.
    """
    trial = trial_of(config, inputs.precision)
    if trial is None or (found := load_selection(folder)) is not None:
        return None if trial is None else found
    seed, workers = mix_seed(inputs.seed, "selection"), process_count(config.workers, inputs.device)
    return select_labeller(
        folder, annotated, labels, trial, num_classes=num_classes, seed=seed, workers=workers, held_out=held_out
    )


def select_labeller(
    folder: Path,
    annotated: Rendered,
    labels: Tensor,
    trial: Trial,
    *,
    num_classes: int,
    seed: int,
    workers: int,
    held_out: Held | None = None,
) -> Selection:
    """Cross-validate labellers on the annotated images, take the best, and calibrate it by its out-of-fold answers.

    Leaves `selection.json`. Finished folds are kept after an interruption.

    Args:
        folder: of the stage.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` uint8 class ids, 255 where nobody said.
        trial: what is tried.
        num_classes: K, background included.
        seed: of the folds and of the trainings.
        workers: folds at a time, in processes of one thread.
        held_out: further labelled images; every fold's labeller is tried on them too.

    Raises:
        MedsegError: there is but one image, or a training fails.
    """
    parts = _folds(annotated, trial.folds, seed)
    trainings = {name: _training_of(labeller, trial.candidates) for name, labeller in trial.candidates.items()}
    jobs: dict[str, dict[str, Any]] = {
        _fold_name(labeller, fold): {
            "path": folder / FOLDS / f"{_fold_name(labeller, fold)}.npz",
            "annotated": annotated,
            "labels": labels,
            "left_out": left_out,
            "trial": trial,
            "labeller": labeller,
            "num_classes": num_classes,
            "seed": mix_seed(seed, "fold", fold),
            "held_out": held_out,
        }
        for fold, left_out in enumerate(parts)
        for labeller in trainings.values()
    }
    missing = {name: job for name, job in jobs.items() if not job["path"].is_file()}
    run_jobs(cross_validate_fold, missing, workers, "train_interpreter: folds", total=len(jobs))
    found = {name: _gather(folder / FOLDS, how, trainings[name], len(parts)) for name, how in trial.candidates.items()}
    report = report_of(found, trial.candidates, trial.told(), len(parts), len(np.unique(annotated.indices.cpu())))
    best = found[report["chosen"]]
    calibration = None
    if trial.calibrate != "none":
        calibration = fit_calibration(torch.from_numpy(best["probs"]), torch.from_numpy(best["truth"]), trial.calibrate)
        report["calibration"] = {**calibration.plain(), "pixels": len(best["truth"])}
    write_json(folder / RESULT, report)
    shutil.rmtree(folder / FOLDS)
    say(f"train_interpreter: {report['sentence']}")
    return Selection(**trial.candidates[report["chosen"]], calibration=calibration)


def _folds(annotated: Rendered, folds: int, seed: int) -> list[np.ndarray]:
    """Positions that each fold leaves out; an image that counts several times is left out as one.

    Raises:
        MedsegError: there is but one image.
    """
    units, unit_of = np.unique(annotated.indices.cpu().numpy(), return_inverse=True)
    folds = min(folds, len(units))
    if folds < 2:
        raise MedsegError(
            "one annotated image cannot be cross-validated; name train_interpreter.labeller, or annotate more"
        )
    fold_of = (numpy_rng(seed, "folds").permutation(len(units)) % folds)[unit_of]
    return [np.flatnonzero(fold_of == fold) for fold in range(folds)]


def load_selection(folder: Path) -> Selection | None:
    """The outcome of an earlier selection; None: there is none."""
    if not (folder / RESULT).is_file():
        return None
    report = read_json(folder / RESULT)
    calibration = report.get("calibration")
    return Selection(
        **report["candidates"][report["chosen"]]["settings"],
        calibration=Calibration.from_plain(calibration) if calibration else None,
    )


def cross_validate_fold(
    path: Path,
    annotated: Rendered,
    labels: Tensor,
    left_out: np.ndarray,
    trial: Trial,
    labeller: Labeller,
    num_classes: int,
    seed: int,
    held_out: Held | None,
) -> None:
    """Train without some images and label them, by every labeller that the training makes; a job of its own."""
    kept = torch.from_numpy(np.setdiff1d(np.arange(len(labels)), left_out))
    out = torch.from_numpy(left_out)
    folder = path.with_suffix("")
    interpreter = train_interpreter(
        folder,
        annotated.take(kept),
        labels[kept],
        trial.training(labeller),
        num_classes=num_classes,
        seed=seed,
        precision=trial.precision,
        max_steps=trial.max_steps,
    )
    truth = labels[out].cpu().numpy()
    rest = annotated.take(out)
    rng = numpy_rng(seed, "calibration pixels")
    result: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(out), 4):
        images, maps = rest.images[start : start + 4], [part[start : start + 4] for part in rest.maps]
        with autocast(labels.device.type, trial.precision):
            ballots = interpreter.count_each(images, maps)
        part = truth[start : start + 4]
        chosen = rng.permutation(part[0].size)[:PIXELS_KEPT]
        result.setdefault("truth", []).append(part.reshape(len(part), -1)[:, chosen].reshape(-1))
        for name, ballot in ballots.items():
            given = ballot.label(interpreter.rule(name)).cpu().numpy()
            probs = ballot.probs().flatten(2)[:, :, chosen].movedim(1, 2).flatten(0, 1)
            result.setdefault(f"{name}_matrix", []).append(confusion(given, part, num_classes).sum(0, keepdims=True))
            result.setdefault(f"{name}_probs", []).append(probs.float().cpu().numpy().astype(np.float32))
    arrays = {name: np.concatenate(parts) for name, parts in result.items()}
    if held_out is not None:
        tried = agreement(interpreter, held_out.source, held_out.indices, held_out.labels, num_classes)
        arrays |= {f"{name}_held_out": np.array(miou) for name, miou in tried["labellers"].items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    shutil.rmtree(folder)


def _training_of(how: Labeller, candidates: dict[str, Labeller]) -> Labeller:
    """The training whose members make a labeller: that of a candidate `average` serves its two parts too."""
    for other in candidates.values():
        part = how["labeller"] == "image" or (how["labeller"] == "features" and how["loss"] == other["loss"])
        if other["labeller"] == "average" and part:
            return other
    return how


def _fold_name(how: Labeller, fold: int) -> str:
    return f"fold-{fold}-{how['labeller']}-{how['loss']}"


def _gather(folder: Path, how: Labeller, training: Labeller, folds: int) -> dict[str, Any]:
    """Out-of-fold answers of one candidate."""
    parts = []
    for fold in range(folds):
        with np.load(folder / f"{_fold_name(training, fold)}.npz") as file:
            parts.append({name.removeprefix(f"{how['labeller']}_"): file[name] for name in file.files})
    matrices = [part["matrix"].sum(axis=0) for part in parts]
    return {
        "folds": [scores(matrix)["miou"] for matrix in matrices],
        "pooled": scores(np.sum(matrices, axis=0))["miou"],
        "probs": np.concatenate([part["probs"] for part in parts]),
        "truth": np.concatenate([part["truth"] for part in parts]),
        "held_out": [float(part["held_out"]) for part in parts if "held_out" in part],
    }
