"""Score predictions of pair quality against an annotator's labels and beside trivial predictions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.conformal import coverage
from medseg_gan.systems.datasetgan.quality.model import CLASSES, ERRORS, class_of

TEXTS = ("case", "class", "objections")
"""Columns of `quality.csv` that are no numbers."""


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where one of them is constant or there are fewer than three."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def quality_scores(
    columns: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray], uncertainty: np.ndarray
) -> dict[str, Any]:
    """Predictions against what an annotator found.

    Args:
        columns: of the pairs, as `QualityModel.judge` gives them.
        errors: their true errors, by `ERRORS`.
        uncertainty: `(N,)` image scores, the older predictor.

    Returns:
        Plain values: for each of `ERRORS` the rank correlation of the prediction and of the uncertainty alone, the mean
        absolute error beside that of the best constant, and the coverage of the bound; then `confusion` (true class by
        predicted class, in the order of `CLASSES`), the share of classes that are right, and that of the most frequent
        class alone.
    """
    result: dict[str, Any] = {"pairs": len(uncertainty)}
    for name in ERRORS:
        predicted, true = columns[f"predicted_{name}"], errors[name]
        result[name] = {
            "rank_correlation": rank_correlation(predicted, true),
            "rank_correlation_of_uncertainty": rank_correlation(uncertainty, true),
            "mean": float(true.mean()),
            "mean_predicted": float(predicted.mean()),
            "absolute_error": float(np.abs(predicted - true).mean()),
            "absolute_error_of_constant": float(np.abs(np.median(true) - true).mean()),
            "coverage": coverage(columns[f"bound_{name}"], true),
        }
    true_class = class_of(errors["wrong"])
    confusion = [[int(((true_class == a) & (columns["class"] == b)).sum()) for b in CLASSES] for a in CLASSES]
    result["confusion"] = confusion
    result["classes_right"] = sum(confusion[k][k] for k in range(len(CLASSES))) / len(true_class)
    result["most_frequent_class"] = max(sum(row) for row in confusion) / len(true_class)
    return result


def class_counts(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Pairs of each class, the mean share of pixels predicted wrong, and pairs with an objection."""
    count = len(columns["class"])
    return {
        "pairs": count,
        **{name: int((columns["class"] == name).sum()) for name in CLASSES},
        "mean_predicted_wrong": float(columns["predicted_wrong"].mean()) if count else None,
        "with_objections": int((columns["objections"] != "").sum()),
    }


def read_quality(path: Path) -> dict[str, np.ndarray]:
    """Columns of a `quality.csv`, in the store's order.

    Raises:
        MedsegError: the file is missing or not what `synthesize` wrote.
    """
    if not path.is_file():
        raise MedsegError(f"{path} does not exist; pairs are judged by the stage synthesize, use --rerun synthesize")
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        names, lines = list(rows.fieldnames or ()), list(rows)
    wanted = ("case", "class", "predicted_wrong", "bound_wrong")
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise MedsegError(f"{path} has no column {lacking[0]}; it was edited, use --rerun synthesize")
    if any(None in line.values() or None in line for line in lines):
        raise MedsegError(f"{path} has a line with too few or too many columns; it was edited, use --rerun synthesize")
    try:
        return {
            name: np.array([line[name] for line in lines], dtype=np.str_ if name in TEXTS else np.float64)
            for name in names
        }
    except (TypeError, ValueError) as error:
        raise MedsegError(f"{path} holds what is no number ({error}); it was edited, use --rerun synthesize") from error
