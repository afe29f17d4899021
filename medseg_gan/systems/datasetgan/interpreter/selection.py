"""Which labeller to take: cross-validation on the annotated images, whole images being the unit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
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
from medseg_gan.systems.datasetgan.interpreter.agreement import agreement
from medseg_gan.systems.datasetgan.interpreter.calibration import Calibration, fit_calibration
from medseg_gan.systems.datasetgan.interpreter.training import train_interpreter
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Rendered
from medseg_gan.training.log import say
from medseg_gan.training.pool import run_jobs

CANDIDATES: dict[str, dict[str, str]] = {
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


def select_labeller(
    folder: Path,
    annotated: Rendered,
    labels: Tensor,
    candidates: dict[str, dict[str, str]],
    *,
    num_classes: int,
    seed: int,
    folds: int,
    settings: dict[str, Any],
    calibrate: str,
    workers: int,
    held_out: Held | None = None,
) -> Selection:
    """Cross-validate labellers on the annotated images, take the best, and calibrate it by its out-of-fold answers.

    Leaves `selection.json`. Finished folds are kept after an interruption.

    Args:
        folder: of the stage.
        annotated: the annotated images with their features.
        labels: `(N, R, R)` uint8 class ids, 255 where nobody said.
        candidates: settings `labeller` and `loss` of each by name, the one to keep in a tie first.
        num_classes: K, background included.
        seed: of the folds and of the trainings.
        folds: parts of the images; fewer where there are fewer images.
        settings: further arguments of `train_interpreter` in every fold.
        calibrate: `none`, `temperature` or `per_class`.
        workers: folds at a time, in processes of one thread.
        held_out: further labelled images; every fold's labeller is tried on them too.

    Raises:
        MedsegError: there is but one image, or a training fails.
    """
    units, unit_of = np.unique(annotated.indices.cpu().numpy(), return_inverse=True)
    folds = min(folds, len(units))
    if folds < 2:
        raise MedsegError(
            "one annotated image cannot be cross-validated; name train_interpreter.labeller, or annotate more"
        )
    fold_of = (numpy_rng(seed, "folds").permutation(len(units)) % folds)[unit_of]
    trainings = {name: _training_of(how, candidates) for name, how in candidates.items()}
    jobs: dict[str, dict[str, Any]] = {
        _fold_name(how, fold): {
            "path": folder / FOLDS / f"{_fold_name(how, fold)}.npz",
            "annotated": annotated,
            "labels": labels,
            "left_out": np.flatnonzero(fold_of == fold),
            "how": how,
            "num_classes": num_classes,
            "seed": mix_seed(seed, "fold", fold),
            "settings": settings,
            "held_out": held_out,
        }
        for fold in range(folds)
        for how in trainings.values()
    }
    missing = {name: job for name, job in jobs.items() if not job["path"].is_file()}
    run_jobs(cross_validate_fold, missing, workers, "train_interpreter: folds", total=len(jobs))
    found = {name: _gather(folder / FOLDS, how, trainings[name], folds) for name, how in candidates.items()}
    report = _report(found, candidates, settings, folds, len(units))
    best = found[report["chosen"]]
    calibration = None
    if calibrate != "none":
        calibration = fit_calibration(torch.from_numpy(best["probs"]), torch.from_numpy(best["truth"]), calibrate)
        report["calibration"] = {**calibration.plain(), "pixels": len(best["truth"])}
    write_json(folder / RESULT, report)
    shutil.rmtree(folder / FOLDS)
    say(f"train_interpreter: {report['sentence']}")
    return Selection(**candidates[report["chosen"]], calibration=calibration)


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
    how: dict[str, Any],
    num_classes: int,
    seed: int,
    settings: dict[str, Any],
    held_out: Held | None,
) -> None:
    """Train without some images and label them, by every labeller that the training makes; a job of its own."""
    kept = torch.from_numpy(np.setdiff1d(np.arange(len(labels)), left_out))
    out = torch.from_numpy(left_out)
    folder = path.with_suffix("")
    interpreter = train_interpreter(
        folder, annotated.take(kept), labels[kept], num_classes=num_classes, seed=seed, **how, **settings
    )
    truth = labels[out].cpu().numpy()
    rest = annotated.take(out)
    rng = numpy_rng(seed, "calibration pixels")
    result: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(out), 4):
        images, maps = rest.images[start : start + 4], [part[start : start + 4] for part in rest.maps]
        with autocast(labels.device.type, settings["precision"]):
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


def choose(folds: dict[str, Sequence[float]], pooled: dict[str, float]) -> tuple[str, str, dict[str, Any]]:
    """The best candidate, the one to take, and how each compares with the best, fold by fold.

    A candidate ties with the best where the mean of its differences is within their standard error (Breiman et al.,
    1984: the rule of one standard error); of those that tie, the first is taken.

    Args:
        folds: figures of each candidate in every fold; the first is the simplest.
        pooled: figure of each candidate over all folds.
    """
    best = max(pooled, key=lambda name: pooled[name])  # the first of equals
    compared = {}
    for name in folds:
        behind = np.array(folds[best]) - np.array(folds[name])
        error = float(behind.std(ddof=1) / np.sqrt(len(behind)))
        compared[name] = {
            "behind": float(behind.mean()),
            "standard_error": error,
            "tie": name == best or bool(behind.mean() <= error),
        }
    chosen = next(name for name in folds if compared[name]["tie"])
    return best, chosen, compared


def _training_of(how: dict[str, str], candidates: dict[str, dict[str, str]]) -> dict[str, str]:
    """The training whose members make a labeller: that of a candidate `average` serves its two parts too."""
    for other in candidates.values():
        part = how["labeller"] == "image" or (how["labeller"] == "features" and how["loss"] == other["loss"])
        if other["labeller"] == "average" and part:
            return other
    return how


def _fold_name(how: dict[str, str], fold: int) -> str:
    return f"fold-{fold}-{how['labeller']}-{how['loss']}"


def _gather(folder: Path, how: dict[str, str], training: dict[str, str], folds: int) -> dict[str, Any]:
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


def _report(
    found: dict[str, dict[str, Any]],
    candidates: dict[str, dict[str, str]],
    settings: dict[str, Any],
    folds: int,
    images: int,
) -> dict[str, Any]:
    pooled = {name: one["pooled"] for name, one in found.items()}
    best, chosen, compared = choose({name: one["folds"] for name, one in found.items()}, pooled)
    ranked = sorted(pooled, key=lambda name: -pooled[name])
    entries = {
        name: {
            "settings": candidates[name],
            "miou": one["pooled"],
            "folds": one["folds"],
            **compared[name],
            **({"held_out_mean_of_folds": float(np.mean(one["held_out"]))} if one["held_out"] else {}),
        }
        for name, one in found.items()
    }
    return {
        "version": 1,
        "chosen": chosen,
        "best": best,
        "sentence": _sentence(best, chosen, ranked, pooled, compared, folds, images),
        "images": images,
        "fold_count": folds,
        "fold_settings": {name: value for name, value in settings.items() if isinstance(value, (int, float, str))},
        "candidates": entries,
    }


def _sentence(
    best: str,
    chosen: str,
    ranked: Sequence[str],
    pooled: dict[str, float],
    compared: dict[str, Any],
    folds: int,
    images: int,
) -> str:
    where = f"in {folds}-fold cross-validation on {images} annotated images"
    if len(ranked) == 1:
        return f"labeller {chosen}: mIoU {pooled[chosen]:.3f} {where}"
    text = f"labeller {chosen}: mIoU {pooled[chosen]:.3f} {where}"
    if chosen != best:
        behind = compared[chosen]
        return (
            f"{text}; {best} has {pooled[best]:.3f}, a tie ({behind['behind']:.3f} ± {behind['standard_error']:.3f} "
            "over folds), and the simpler is taken"
        )
    second = ranked[1]
    behind = compared[second]
    words = "a tie" if behind["tie"] else "behind"
    return (
        f"{text}; next {second} {pooled[second]:.3f}, {words} "
        f"({behind['behind']:.3f} ± {behind['standard_error']:.3f} over folds)"
    )
