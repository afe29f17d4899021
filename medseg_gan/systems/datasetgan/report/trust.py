"""The report on quality control: which generated pairs to trust, and how well it predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medseg_gan.labels import LabelTable
from medseg_gan.report.charts import SERIES, Chart, chart, is_finite, legend
from medseg_gan.report.document import Stacks
from medseg_gan.report.pictures import overlay
from medseg_gan.report.values import NOT_MEASURED, number, shown

CLASSES = ("good", "partial", "bad")

SHOWN = 8
"""Best and worst pairs on the page, each."""

REJECTED = "rejected by the annotator"

SETS = {
    "train": "training pairs, kept",
    "dropped": "training pairs, left out",
    "test_g": "test-G (unfiltered)",
}


@dataclass(frozen=True)
class Trust:
    """Quality control as the page needs it.

    Attributes:
        facts: who annotated, the model, counts and scores, as `quality.json` has them.
        pairs: of test-G: `predicted_wrong`, `bound_wrong`, `class`, `objections` and more, with `wrong`, what the
            annotator found, None where it was not asked or rejected the image.
        images: `(M, H, W)` uint8 grey, the best pairs of test-G by prediction, then as many of the worst.
        labels: the same, the factory's class ids.
        truth: the annotator's, 255 where there is none; None where nobody was asked.
        rows: their positions in `pairs`.
    """

    facts: dict[str, Any]
    pairs: list[dict[str, Any]]
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    truth: np.ndarray | None = field(repr=False)
    rows: np.ndarray = field(repr=False)


def best_and_worst(predicted: np.ndarray) -> np.ndarray:
    """Positions of the pairs shown: the best by prediction, then as many of the worst, none of them twice."""
    order = np.argsort(predicted, kind="stable")
    count = min(SHOWN, len(order) // 2)
    return np.concatenate([order[:count], order[len(order) - count :]])


def bounded(trust: Trust) -> bool:
    """Whether the annotated pairs sufficed for a bound; where they did not, 1 stands in its column."""
    return bool(trust.facts["model"]["bounds"]["wrong"]["quantile"] is not None)


def sentences(trust: Trust) -> list[str]:
    """Who said what is wrong, what the predictions learned from, and what the bounds promise, if there are any."""
    facts, bound = trust.facts, bounded(trust)
    who = "a person" if facts["annotator"]["kind"] == "person" else facts["annotator"]["who"]
    learned = {
        "held_out": f"Predictions learned from {facts['learned_from']} held-out generated slices that the annotator "
        f"labelled and no interpreter saw{'; as many others calibrate the bounds' if bound else ''}.",
        "cross_validated": f"Predictions learned from the {facts['learned_from']} painted slices, each judged by an "
        f"interpreter trained without it.{' Bounds from that are approximate: nothing proves them.' if bound else ''}",
        "none": "No annotated pairs were left to learn from: predictions are what the ensemble itself expects.",
    }[facts["kind"]]
    promise = f"{facts['sentence'][0].upper()}{facts['sentence'][1:]}."
    if bound:
        promise += (
            " They speak of pairs as they are drawn, not of those that a filter chose, and of images that the "
            "annotator accepts."
        )
    return [
        f"“Wrong” means: other than {who} would have it; “good” is at most 1 % of the pixels wrong, “bad” 25 % or "
        "more. Background counts too, and most of it is easily right; wrong foreground is the second figure.",
        learned,
        promise,
        *_measured_sentences(facts.get("measured"), bound),
    ]


def _measured_sentences(measured: Mapping[str, Any] | None, bound: bool) -> list[str]:
    if not measured:
        return ["How well the predictions rank pairs is not measured: nobody labelled test-G."]
    one = measured["wrong"]
    covered, (low, high) = one["coverage"]["share"], one["coverage"]["interval"]
    rejected = f" The annotator rejected {measured['rejected']} further ones." if measured["rejected"] else ""
    held = (
        f" The bound held for {100 * covered:.1f} % ({100 * low:.1f} to {100 * high:.1f}); it is "
        f"{100 * one['coverage']['mean_bound']:.1f} % on average."
        if bound
        else ""
    )
    return [
        f"On {measured['pairs']} pairs of test-G labelled by the annotator the rank correlation of predicted with true "
        f"wrong pixels is {shown_or(one['rank_correlation'])} (uncertainty alone: "
        f"{shown_or(one['rank_correlation_of_uncertainty'])}); the mean is {100 * one['mean']:.1f} % wrong, predicted "
        f"{100 * one['mean_predicted']:.1f} %.{held}{rejected}"
    ]


def shown_or(value: float | None) -> str:
    """A number, or that it was not measured."""
    return shown(value) if is_finite(value) else NOT_MEASURED


def class_lines(trust: Trust) -> list[dict[str, Any]]:
    """Counts of each class by set of pairs."""
    return [
        {
            "name": name,
            "pairs": found["pairs"],
            "counts": [found[one] for one in CLASSES],
            "mean": f"{100 * found['mean_predicted_wrong']:.1f} %" if found["pairs"] else NOT_MEASURED,
            "with_objections": found["with_objections"],
        }
        for key, name in SETS.items()
        if (found := (trust.facts.get("classes") or {}).get(key))
    ]


def error_lines(trust: Trust) -> list[dict[str, Any]]:
    """Scores of the predictions on test-G, for wrong pixels and wrong foreground."""
    measured = trust.facts.get("measured") or {}
    names = {"wrong": "wrong pixels", "wrong_foreground": "wrong foreground"}
    return [
        {
            "name": name,
            "rank": number(one["rank_correlation"]),
            "rank_of_uncertainty": number(one["rank_correlation_of_uncertainty"]),
            "mean": _percent(one["mean"]),
            "predicted": _percent(one["mean_predicted"]),
            "absolute_error": _percent(one["absolute_error"]),
            "constant": _percent(one["absolute_error_of_constant"]),
            "coverage": _percent(one["coverage"]["share"]),
            "interval": " to ".join(_percent(end) for end in one["coverage"]["interval"]),
            "bound": _percent(one["coverage"]["mean_bound"]),
        }
        for key, name in names.items()
        if (one := measured.get(key))
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def pair_stacks(trust: Trust, table: LabelTable) -> list[Stacks]:
    """The best and the worst pairs of test-G, with a word under each slice where one is needed, and their numbers."""
    half = len(trust.rows) // 2
    parts = {"Most trusted": slice(0, half), "Least trusted": slice(half, None)}
    return [
        Stacks(
            "",
            _layers(trust, part, table),
            _under(trust, part),
            _caption(trust, part),
            heading=f"{name} pairs of test-G",
        )
        for name, part in parts.items()
        if half
    ]


def _layers(trust: Trust, part: slice, table: LabelTable) -> dict[str, np.ndarray]:
    images = trust.images[part]
    layers = {"generated slice": images, "the factory's labels": overlay(images, trust.labels[part], table)}
    if trust.truth is not None:
        layers["the annotator's labels"] = overlay(images, trust.truth[part], table)
    return layers


def _under(trust: Trust, part: slice) -> list[str]:
    """What stands under each slice: a bare image in the annotator's line would look like an empty label map."""
    wrong = [trust.pairs[row]["wrong"] for row in trust.rows[part].tolist()]
    return [REJECTED if trust.truth is not None and one is None else "" for one in wrong]


def _caption(trust: Trust, part: slice) -> str:
    pairs = [trust.pairs[row] for row in trust.rows[part].tolist()]
    predicted = ", ".join(_percent(pair["predicted_wrong"]) for pair in pairs)
    found = ", ".join("rejected" if pair["wrong"] is None else _percent(pair["wrong"]) for pair in pairs)
    objections = sorted({text for pair in pairs for text in pair["objections"].split("; ") if text})
    told = f" Objections: {', '.join(objections)}." if objections else ""
    measured = "" if trust.truth is None else f" The annotator found: {found}."
    return f"Predicted wrong: {predicted}.{measured}{told}"


def scatter(trust: Trust) -> Chart | None:
    """Predicted against true shares of wrong pixels on test-G, with the bound; None where nobody labelled it."""
    pairs = [pair for pair in trust.pairs if is_finite(pair["wrong"])]
    if not pairs:
        return None
    predicted = [100 * pair["predicted_wrong"] for pair in pairs]
    found = [100 * pair["wrong"] for pair in pairs]
    bounds = sorted((x, 100 * pair["bound_wrong"]) for x, pair in zip(predicted, pairs, strict=True))
    informative = any(y < 100 for _, y in bounds)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        top = 1.05 * max(*predicted, *found, 0.1)
        ink = axes.yaxis.label.get_color()
        axes.plot([0, top], [0, top], color=ink, linewidth=0.8, linestyle=":", label="predicted = found")
        if informative:
            axes.plot(*zip(*bounds, strict=True), color=SERIES[1], linewidth=1.4, label="bound")
        _dots(figure, predicted, found, [pair["class"] for pair in pairs])
        axes.axhline(1, color=ink, linestyle="--", linewidth=0.8, label="1 % wrong: good up to here")
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("predicted wrong pixels, %")
        axes.set_ylabel("wrong by the annotator, %")
        legend(figure, axes)

    caption = "Pairs of test-G, one dot each" + ("; dots above the line of the bound break it." if informative else ".")
    return chart(draw, 7.5, 4.2, "predicted against true shares of wrong pixels", caption)


def _dots(figure: Figure, x: Sequence[float], y: Sequence[float], classes: Sequence[str]) -> None:
    """Dots in the colour of the class predicted."""
    for name, colour in zip(CLASSES, (SERIES[2], SERIES[0], "#cc4b4b"), strict=True):
        own = [k for k, one in enumerate(classes) if one == name]
        if own:
            label = f"predicted {name}"
            figure.axes[0].plot([x[k] for k in own], [y[k] for k in own], "o", color=colour, markersize=4, label=label)
