"""Predict how wrong a generated pair is: a small regression on its features, with a bound that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.conformal import UpperBound
from medseg_gan.evaluation.plausibility import Plausibility, areas, components
from medseg_gan.evaluation.realism import Realism
from medseg_gan.systems.datasetgan.factory import Pairs

GOOD, BAD = 0.01, 0.25
"""Shares of wrong pixels up to which a pair is good and from which it is bad (Fan, 2022); partial lies between."""

CLASSES = ("good", "partial", "bad")

LEVEL = 0.95
"""Of the bounds."""

FEATURES = ("doubt", "disagreement", "top_disagreement", "foreground", "unlike_real", "objections", "pieces")
"""Mean doubt, mean and top 10 % Jensen-Shannon divergence (nats), share of foreground, distance to the nearest real
slice, objections to the label map, components beyond one per class."""

ERRORS = ("wrong", "wrong_foreground")
"""What is predicted: the share of wrong pixels among all, and among those that are foreground in either map."""

LEAST = 1e-3
"""Share of pixels added before a logarithm: below a pixel in a thousand, errors count alike."""

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e9)
"""Ridge penalties tried; the last keeps the ensemble's own expectation, up to a factor."""

MIN_REGRESSION = 10
"""Examples from which features beyond the expectation are used."""


@dataclass(frozen=True)
class Seen:
    """What can be seen of pairs without an annotator.

    Attributes:
        values: `(N, F)` float64, a column for each of `FEATURES`.
        objections: to each label map, in words.
    """

    values: np.ndarray
    objections: list[list[str]]

    def column(self, name: str) -> np.ndarray:
        """One feature `(N,)`."""
        return self.values[:, FEATURES.index(name)]

    def expected(self, error: str) -> np.ndarray:
        """What the ensemble itself expects to be wrong, `(N,)` in [0, 1], for one of `ERRORS`."""
        doubt = self.column("doubt")
        if error == "wrong_foreground":
            doubt = doubt / np.maximum(self.column("foreground") + doubt, LEAST)
        return np.clip(doubt, 0, 1)


def look(pairs: Pairs, realism: Realism, plausible: Plausibility) -> Seen:
    """Measure pairs: what the ensemble, the real slices and the annotated label maps have to say about them."""
    labels = pairs.labels.numpy()
    count = len(plausible.classes)
    present = areas(labels, count)[:, 1:] > 0
    objections = [plausible.objections(label) for label in labels]
    columns = {
        "doubt": pairs.doubt.double().sum(1).numpy(),
        "disagreement": pairs.uncertainty.double().flatten(1).mean(1).numpy(),
        "top_disagreement": pairs.scores.double().numpy(),
        "foreground": 1 - areas(labels, 1)[:, 0],
        "unlike_real": realism.distances(pairs.images),
        "objections": np.array([len(found) for found in objections], np.float64),
        "pieces": (components(labels, count)[:, 1:] - present).sum(1).astype(np.float64),
    }
    return Seen(np.stack([columns[name] for name in FEATURES], axis=1), objections)


def errors_of(labels: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Shares of wrong pixels of label maps `(N, H, W)` against an annotator's, by `ERRORS`; 255 is left out."""
    asked = truth != 255
    wrong = (labels != truth) & asked
    foreground = ((labels > 0) | (truth > 0)) & asked

    def share(of: np.ndarray) -> np.ndarray:
        return np.asarray((wrong & of).sum((1, 2)) / np.maximum(of.sum((1, 2)), 1))

    return {"wrong": share(asked), "wrong_foreground": share(foreground)}


def class_of(wrong: np.ndarray) -> np.ndarray:
    """`good`, `partial` or `bad` of shares of wrong pixels `(N,)`."""
    return np.array(CLASSES)[np.where(wrong <= GOOD, 0, np.where(wrong >= BAD, 2, 1))]


@dataclass(frozen=True)
class Regression:
    """Ridge regression of the log ratio of true to expected errors; few examples leave the expectation as it is.

    Attributes:
        center: `(F,)` means of the log features.
        scale: `(F,)` their standard deviations.
        weights: `(F,)`.
        intercept: log of the factor by which the ensemble misjudges itself.
        penalty: the one of `PENALTIES` with the least leave-one-out error.
        examples: it learned from.
    """

    center: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    penalty: float
    examples: int

    @classmethod
    def fitted(cls, values: np.ndarray, expected: np.ndarray, errors: np.ndarray) -> Regression:
        """Fit.

        Args:
            values: `(n, F)` features; n may be 0.
            expected: `(n,)` errors that the ensemble expects.
            errors: `(n,)` true ones.
        """
        x, y = _log(values), _log(errors) - _log(expected)
        n, width = x.shape
        if n < MIN_REGRESSION:
            mean = float(y.mean()) if n else 0.0
            return cls(np.zeros(width), np.ones(width), np.zeros(width), mean, PENALTIES[-1], n)
        center, scale = x.mean(0), x.std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        z, mean = (x - center) / scale, float(y.mean())
        fits = [_ridge(z, y - mean, penalty) for penalty in PENALTIES]
        best = int(np.argmin([error for _, error in fits]))
        return cls(center, scale, fits[best][0], mean, PENALTIES[best], n)

    def predict(self, values: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Errors `(N,)` in [0, 1]; features far outside those learned from count as the outermost ones do."""
        z = np.clip((_log(values) - self.center) / self.scale, -4, 4)
        return np.clip(np.exp(_log(expected) + self.intercept + z @ self.weights) - LEAST, 0, 1)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Regression:
        """From what `plain` gave."""
        arrays = {
            name: np.array(values[name], np.float64).reshape(len(FEATURES)) for name in ("center", "scale", "weights")
        }
        return cls(**{**values, **arrays})


@dataclass(frozen=True)
class QualityModel:
    """Predicted errors of pairs and bounds on them, one regression and one bound for each of `ERRORS`."""

    regressions: dict[str, Regression]
    bounds: dict[str, UpperBound]

    @classmethod
    def split(cls, seen: Seen, errors: Mapping[str, np.ndarray], learns: np.ndarray) -> QualityModel:
        """Learn from some annotated pairs and calibrate on the others, which is what makes the bound hold.

        Args:
            seen: of the annotated pairs, which no interpreter learned from.
            errors: their true errors `(n,)`, by `ERRORS`.
            learns: `(n,)` bool, the pairs to learn from.
        """
        regressions, bounds = {}, {}
        for name in ERRORS:
            expected = seen.expected(name)
            one = Regression.fitted(seen.values[learns], expected[learns], errors[name][learns])
            predicted = one.predict(seen.values[~learns], expected[~learns])
            softening = float(np.median(expected[learns])) if learns.any() else LEAST
            regressions[name] = one
            bounds[name] = UpperBound.calibrated(predicted, errors[name][~learns], LEVEL, softening)
        return cls(regressions, bounds)

    @classmethod
    def cross_fitted(cls, seen: Seen, errors: Mapping[str, np.ndarray], folds: np.ndarray) -> QualityModel:
        """Learn from all annotated pairs; calibrate on each fold with what the others taught.

        The bound then comes from residuals of models (and interpreters) that differ a little from those used: it should
        hold about as often as it says, but nothing is proved, unlike after `split`.

        Args:
            seen: of the annotated pairs, each judged by an interpreter that did not learn from it.
            errors: their true errors `(n,)`, by `ERRORS`.
            folds: `(n,)` number of each pair's fold.
        """
        regressions, bounds = {}, {}
        for name in ERRORS:
            expected, predicted = seen.expected(name), np.zeros(len(folds))
            for fold in np.unique(folds):
                own = folds == fold
                one = Regression.fitted(seen.values[~own], expected[~own], errors[name][~own])
                predicted[own] = one.predict(seen.values[own], expected[own])
            regressions[name] = Regression.fitted(seen.values, expected, errors[name])
            softening = float(np.median(expected)) if len(folds) else LEAST
            bounds[name] = UpperBound.calibrated(predicted, errors[name], LEVEL, softening)
        return cls(regressions, bounds)

    def judge(self, seen: Seen) -> dict[str, np.ndarray]:
        """Columns for pairs: predicted errors and bounds by `ERRORS`, class, distance to real slices, objections."""
        columns: dict[str, np.ndarray] = {}
        for name in ERRORS:
            predicted = self.regressions[name].predict(seen.values, seen.expected(name))
            columns[f"predicted_{name}"], columns[f"bound_{name}"] = predicted, self.bounds[name].of(predicted)
        columns["class"] = class_of(columns["predicted_wrong"])
        columns["unlike_real"] = seen.column("unlike_real")
        columns["objections"] = np.array(["; ".join(found) for found in seen.objections], dtype=np.str_)
        return columns

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "features": list(FEATURES),
            "regressions": {name: one.plain() for name, one in self.regressions.items()},
            "bounds": {name: one.plain() for name, one in self.bounds.items()},
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> QualityModel:
        """From what `plain` gave.

        Raises:
            MedsegError: it was made with other features, or edited.
        """
        if not isinstance(values, Mapping):
            raise MedsegError("there is no quality model; use --rerun synthesize")
        if values.get("features") != list(FEATURES):
            raise MedsegError("the quality model was made with other features; use --rerun synthesize")
        try:
            return cls(
                {name: Regression.from_plain(values["regressions"][name]) for name in ERRORS},
                {name: UpperBound.from_plain(values["bounds"][name]) for name in ERRORS},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MedsegError("the quality model was cut off or edited; use --rerun synthesize") from error


def _log(shares: np.ndarray) -> np.ndarray:
    return np.log(np.asarray(shares, np.float64) + LEAST)


def _ridge(z: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weights, and the mean squared leave-one-out error; z and y are centred, the mean counts as one more weight."""
    gram = np.linalg.inv(z.T @ z + penalty * np.eye(z.shape[1]))
    hat = z @ gram @ z.T + 1 / len(z)
    weights = gram @ z.T @ y
    left_out = (y - z @ weights) / np.maximum(1 - np.diag(hat), 1e-9)
    return weights, float(np.square(left_out).mean())
