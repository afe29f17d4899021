"""Split-conformal upper bounds: "at most x, 95 %" for an error that a model predicts (Lei et al., 2018)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from medseg_gan.errors import MedsegError


@dataclass(frozen=True)
class UpperBound:
    """An upper bound for errors in [0, 1], calibrated on examples that the prediction did not learn from.

    What holds: if the calibration examples and a new one are exchangeable (drawn alike, in any order as likely), the
    new error lies at or below its bound with probability at least `level`, averaged over calibration sets and new
    examples, however bad the prediction is; a bad one only makes the bound wide. What does not follow: the same share
    among examples *chosen by their prediction* (the pairs a filter kept, or the worst ten), among one class of them, or
    for one fixed calibration set, whose own coverage scatters around the level, the more the fewer examples it has.

    Attributes:
        level: nominal coverage, in (0, 1).
        examples: calibration examples.
        quantile: of their normalised residuals `(error - predicted) / (predicted + softening)`; infinite where there
            were too few for the level.
        softening: keeps residuals of predictions near 0 comparable with the others.

    Example:
        bound = UpperBound.calibrated(predicted, errors, level=0.95)
        bound.of(new_predictions)  # (N,), 1 everywhere where nothing can be said
    """

    level: float
    examples: int
    quantile: float
    softening: float

    @classmethod
    def calibrated(
        cls, predicted: np.ndarray, errors: np.ndarray, level: float = 0.95, softening: float = 0.0
    ) -> UpperBound:
        """Calibrate on examples whose error is known.

        Args:
            predicted: `(n,)` in [0, 1].
            errors: `(n,)` in [0, 1].
            level: nominal coverage.
            softening: at least 0; fixed before the calibration examples are looked at.

        Raises:
            MedsegError: arrays that do not fit, are not finite or lie outside [0, 1], or a level outside (0, 1).
        """
        predicted, errors = _shares(predicted, "predicted errors"), _shares(errors, "errors")
        if predicted.shape != errors.shape or predicted.ndim != 1:
            raise MedsegError(
                f"predicted errors have shape {predicted.shape}, errors {errors.shape}; wanted one of each per example"
            )
        if not softening >= 0:
            raise MedsegError(f"the softening of a bound is {softening}; wanted at least 0")
        scores = (errors - predicted) / np.maximum(predicted + softening, np.finfo(float).tiny)
        return cls(float(level), len(errors), conformal_quantile(scores, level), float(softening))

    @property
    def exists(self) -> bool:
        """Whether the examples sufficed for the level."""
        return math.isfinite(self.quantile)

    def of(self, predicted: np.ndarray) -> np.ndarray:
        """Bounds `(N,)` in [0, 1] for predictions `(N,)`; 1 everywhere where there is no bound."""
        predicted = _shares(predicted, "predicted errors")
        if not self.exists:
            return np.ones_like(predicted)
        return np.clip(predicted + self.quantile * (predicted + self.softening), 0, 1)

    def sentence(self) -> str:
        """What the bound says, or how many examples are missing."""
        percent = f"{100 * self.level:g} %"
        if self.exists:
            return f"bounds hold for {percent} of pairs drawn like the {self.examples} they were calibrated on"
        return (
            f"no bound: {self.examples} annotated pairs to calibrate on, {percent} needs at least {needed(self.level)}"
        )

    def plain(self) -> dict[str, Any]:
        """As JSON has it: no infinity, null instead."""
        return {**asdict(self), "quantile": self.quantile if self.exists else None}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> UpperBound:
        """From what `plain` gave."""
        quantile = values["quantile"]
        return cls(**{**values, "quantile": math.inf if quantile is None else float(quantile)})


def needed(level: float) -> int:
    """Fewest calibration examples from which a bound at this level exists: 19 for 95 %."""
    return math.ceil(_exact(_checked(level) / (1 - level)))


def conformal_quantile(scores: np.ndarray, level: float) -> float:
    """The `ceil((n + 1) level)`-th smallest of n scores: the finite-sample quantile; infinite where n is too small."""
    rank = math.ceil(_exact((len(scores) + 1) * _checked(level)))
    return math.inf if rank > len(scores) else float(np.sort(scores)[rank - 1])


def coverage(bounds: np.ndarray, errors: np.ndarray) -> dict[str, Any]:
    """Share of errors at or below their bounds, with its 95 % interval (Clopper and Pearson, 1934).

    Args:
        bounds: `(N,)`.
        errors: `(N,)`.

    Returns:
        `share`, `interval`, `examples` and `mean_bound`, plain values.

    Raises:
        MedsegError: the arrays do not fit, or there is no example.
    """
    bounds, errors = np.asarray(bounds, np.float64), np.asarray(errors, np.float64)
    if bounds.shape != errors.shape or not bounds.size:
        raise MedsegError(f"{bounds.shape} bounds and {errors.shape} errors; wanted equally many, at least one")
    n, inside = bounds.size, int((errors <= bounds).sum())
    low = float(beta.ppf(0.025, inside, n - inside + 1)) if inside else 0.0
    high = float(beta.ppf(0.975, inside + 1, n - inside)) if inside < n else 1.0
    return {"share": inside / n, "interval": [low, high], "examples": n, "mean_bound": float(bounds.mean())}


def _exact(value: float) -> float:
    """`0.95 / (1 - 0.95)` is 18.99999…; its ceiling must not be decided by the last bit."""
    return round(value, 9)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise MedsegError(f"the level of a bound is {level}; wanted a number between 0 and 1, such as 0.95")
    return level


def _shares(values: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if not ((array >= 0) & (array <= 1)).all():  # NaN fails too
        raise MedsegError(f"{name} must be shares from 0 to 1, found {array[~((array >= 0) & (array <= 1))].flat[0]}")
    return array
