"""Protocols `seed` and `clean`, intervals over patients, and the comparison of training sets (rows)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_gan.evaluation.intervals import bootstrap_counts, interval
from medseg_gan.evaluation.segmentation import iou_per_class, per_image_miou, scores
from medseg_gan.machine.seeding import numpy_rng


@dataclass(frozen=True)
class Run:
    """One training of a segmenter as seen on one test set.

    Attributes:
        seed: of the training.
        matrices: `(C, N, K, K)` confusion matrix of each of the C checkpoints and N test slices.
        picked: the checkpoint picked on held-out labelled patients.
    """

    seed: int
    matrices: np.ndarray
    picked: int

    @property
    def clean(self) -> np.ndarray:
        """`(N, K, K)` of the picked checkpoint."""
        return self.matrices[self.picked]


@dataclass(frozen=True)
class Row:
    """A training set with one network: what it cost and how its trainings did.

    Attributes:
        row: name of the training set.
        title: the same in words.
        network: name of the segmenter.
        steps: optimiser steps, equal in all rows that are compared.
        deciding: whether the row stands in the way of the claim.
        cost: slices and patients by kind that went into it, the stand-in annotator's included.
        runs: trainings by test set.
    """

    row: str
    title: str
    network: str
    steps: int
    deciding: bool
    cost: Mapping[str, int]
    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)


def evenly_per_patient(patients: Sequence[str], most: int) -> np.ndarray:
    """Positions of at most `most` slices of each patient, evenly spread over the patient's slices."""
    names = np.asarray(patients)
    kept = []
    for patient in sorted(set(patients)):
        positions = np.flatnonzero(names == patient)
        if len(positions) > most:
            positions = positions[np.linspace(0, len(positions) - 1, most).round().astype(int)]
        kept.append(positions)
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def seed_protocol(matrices: np.ndarray, folds: int = 5) -> dict[str, float]:
    """DatasetGAN's cross-validation: the checkpoint is picked on one fold of the test set and scored on the others.

    Args:
        matrices: `(C, N, K, K)` of the checkpoints of one training, slices in the test set's order.
        folds: number of folds; the last slices that do not fill one are always scored.

    Returns:
        `miou`, the mean over folds, and `sd` with ddof 0, as DatasetGAN reports them.
    """
    count = matrices.shape[1]
    folds = min(folds, count)  # fewer slices than folds happen in tests alone
    if folds < 2:
        return {"miou": float(_miou(matrices[-1].sum(axis=0))), "sd": 0.0}
    size = count // folds
    found = []
    for fold in range(folds):
        held_out = np.zeros(count, dtype=bool)
        held_out[fold * size : (fold + 1) * size] = True
        best = _miou(matrices[:, held_out].sum(axis=1)).argmax()
        found.append(_miou(matrices[best, ~held_out].sum(axis=0)))
    return {"miou": float(np.mean(found)), "sd": float(np.std(found))}


def clean_protocol(runs: Sequence[Run], units: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """The whole test set scored once per training, with the checkpoint picked elsewhere.

    Args:
        runs: trainings that differ in their seed alone.
        units: what is drawn together in the bootstrap, for each slice: its patient; generated slices each their own.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `miou` and `sd` (ddof 1) over segmenter seeds, `per_seed`, `interval` over patients (of the mean over seeds),
        and the means over seeds of the other figures of `scores`.
    """
    each = [scores(run.clean.sum(axis=0)) for run in runs]
    per_seed = [one["miou"] for one in each]
    resampled = _resampled_miou(
        np.stack([run.clean for run in runs]), bootstrap_counts(units, resamples, seed)
    )  # (B, S)
    mean = {key: np.mean([one[key] for one in each], axis=0).tolist() for key in each[0]}
    return {
        **mean,
        "sd": float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else 0.0,
        "per_seed": per_seed,
        "interval": interval(resampled.mean(axis=1)),
        "per_image_miou": float(np.mean([per_image_miou(run.clean) for run in runs])),
    }


def score(
    runs: Sequence[Run], units: Sequence[str], *, resamples: int = 2000, folds: int = 5, seed: int = 0
) -> dict[str, Any]:
    """A row's figures on one test set, by both protocols; `seed` takes the first training, as the paper trains once."""
    return {
        "clean": clean_protocol(runs, units, resamples, seed),
        "seed": seed_protocol(runs[0].matrices, folds),
    }


def compare(
    a: Sequence[Run], b: Sequence[Run], units: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Paired difference of two rows on one test set, and whether `a` is above `b`.

    Both rows see the same resampled patients; trainings are paired by seed. The interval takes in both the test
    patients and, where there are several pairs, the segmenter seeds; with one pair it knows the patients alone.

    Args:
        a: trainings of the row expected to be better.
        b: trainings of the other.
        units: as in `clean_protocol`.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `difference` of the mean mIoU over the pairs, `interval`, `ordering` (`kept`, `not kept`, or `undecided` where
        the interval contains 0) and the number of `pairs`.
    """
    in_a, in_b = ({run.seed: run.clean for run in runs} for runs in (a, b))
    seeds = sorted(in_a.keys() & in_b.keys())
    assert seeds, "rows share their first segmenter seed"
    first, second = (np.stack([one[key] for key in seeds]) for one in (in_a, in_b))
    draws = bootstrap_counts(units, resamples, seed)
    differences = _resampled_miou(first, draws) - _resampled_miou(second, draws)  # (B, S)
    pairs = differences.shape[1]
    mean = differences.mean(axis=1)
    chosen = numpy_rng(seed, "segmenter seeds").integers(pairs, size=(len(mean), pairs))
    spread = np.take_along_axis(differences, chosen, axis=1).mean(axis=1) - mean
    if pairs > 1:  # a bootstrap of n values has (n - 1) / n of their variance, which matters at 3
        spread = spread * np.sqrt(pairs / (pairs - 1))
    low, high = interval(mean + spread)
    ordering = "kept" if low > 0 else "not kept" if high < 0 else "undecided"
    difference = (_miou(first.sum(axis=1)) - _miou(second.sum(axis=1))).mean()
    return {"difference": float(difference), "interval": [low, high], "ordering": ordering, "pairs": pairs}


def scores_document(
    rows: Sequence[Row],
    units: Mapping[str, Sequence[str]],
    *,
    annotator: Mapping[str, Any],
    classes: Sequence[str],
    orderings: Sequence[tuple[str, str]],
    floors: Mapping[str, Any],
    interpreter: Mapping[str, Any],
    score_name: str = "mIoU",
    resamples: int = 2000,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything the report knows about scores, as plain values.

    Args:
        rows: training sets with their trainings.
        units: per test set (`test_r`, `test_g[factory]`, `test_g[annotator]`), what each slice is drawn with.
        annotator: who annotated, and how many real slices of how many patients that took.
        classes: names of the K classes.
        orderings: pairs of row names, the first expected to be above the second; each is judged with every network
            both rows have, on every test set.
        floors: per test set, as `floors.floors` gives them.
        interpreter: how well the label factory agrees with the annotator.
        score_name: `mIoU`, or `agreement with the HU rule` where a rule made the labels.
        resamples: of the bootstrap over patients.
        folds: of the protocol `seed`.
        seed: of the bootstrap.
    """
    options = {"resamples": resamples, "seed": seed}
    by_name = {(row.row, row.network): row for row in rows}
    comparisons = [
        {"a": a, "b": b, "test": test, "network": network}
        | compare(by_name[a, network].runs[test], by_name[b, network].runs[test], units[test], **options)
        for a, b in orderings
        for network in dict.fromkeys(row.network for row in rows)
        if (a, network) in by_name and (b, network) in by_name
        for test in units
    ]
    generated = [test for test in units if test.startswith("test_g")]
    return {
        "annotator": dict(annotator),
        "classes": list(classes),
        "num_test_r": len(units["test_r"]),
        "num_test_g": len(units[generated[0]]) if generated else 0,
        "num_slices": {test: len(found) for test, found in units.items()},
        "test_patients": len(set(units["test_r"])),
        "score_name": score_name,
        "rows": [_row_document(row, units, folds, options) for row in rows],
        "floors": {test: dict(found) for test, found in floors.items()},
        "comparisons": comparisons,
        "interpreter": dict(interpreter),
    }


def _row_document(
    row: Row, units: Mapping[str, Sequence[str]], folds: int, options: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "row": row.row,
        "title": row.title,
        "network": row.network,
        "steps": row.steps,
        "segmenter_seeds": [run.seed for run in row.runs["test_r"]],
        "deciding": row.deciding,
        "cost": dict(row.cost),
        "scores": {test: score(row.runs[test], units[test], folds=folds, **options) for test in units},
    }


def _resampled_miou(matrices: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """mIoU of each resample and training: `(B, S)` from `(S, N, K, K)` and `(B, N)`."""
    s, n, k, _ = matrices.shape
    flat = matrices.transpose(1, 0, 2, 3).reshape(n, s * k * k).astype(np.float64)
    return _miou((draws.astype(np.float64) @ flat).reshape(len(draws), s, k, k))


def _miou(matrix: np.ndarray) -> np.ndarray:
    return iou_per_class(matrix).mean(axis=-1)
