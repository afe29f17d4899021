"""Which of several labellers to take, by their figures in each fold, and how that is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


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


def report_of(
    found: dict[str, dict[str, Any]],
    candidates: dict[str, dict[str, str]],
    settings: dict[str, Any],
    folds: int,
    images: int,
) -> dict[str, Any]:
    """What `selection.json` says.

    Args:
        found: figures of each candidate, `pooled`, in the `folds` and on `held_out` images.
        candidates: settings of each.
        settings: of the trainings in a fold.
        folds: number of folds.
        images: number of annotated images.
    """
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
        "fold_settings": {name: value for name, value in settings.items() if value is not None},
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
