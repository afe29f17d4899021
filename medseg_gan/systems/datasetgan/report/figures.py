"""The charts of the DatasetGAN report: training sets, comparisons, classes, training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg_gan.labels import LabelTable
from medseg_gan.report.charts import SERIES, Chart, chart, legend, lines_chart
from medseg_gan.systems.datasetgan.report.tables import (
    Scores,
    metric_name,
    row_name,
    score_of,
    several_networks,
    title_of,
)
from medseg_gan.systems.datasetgan.report.verdict import best_floor

Stats = Sequence[Mapping[str, Any]]

TEST_STYLES: dict[str, dict[str, Any]] = {
    "test_r": {"label": "test-R", "color": SERIES[0], "marker": "o", "markersize": 7},
    "test_g[annotator]": {"label": "test-G[annotator]", "color": SERIES[1], "marker": "D", "markersize": 5},
    "test_g[factory]": {"label": "test-G[factory]", "color": SERIES[2], "marker": "s", "markersize": 5},
}


def rows_chart(scores: Scores) -> Chart | None:
    """Every row on its test sets, above the baselines; None without rows."""
    rows = scores.get("rows") or []
    floors = scores.get("floors") or {}
    names = list(dict.fromkeys(name for test in floors.values() for name in test or {}))
    labels = [row_name(scores, row) for row in rows] + [f"baseline: {name.replace('_', ' ')}" for name in names]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, row in enumerate(rows):
            for test in TEST_STYLES:
                _dot(axes, y, score_of(row, test), test)
        for y, name in enumerate(names, len(rows)):
            for test in TEST_STYLES:
                _dot(axes, y, (floors.get(test) or {}).get(name) or {}, test)
        best = best_floor(scores, "test_r")
        if best:
            axes.axvline(
                best[1], color=SERIES[0], linestyle="--", linewidth=1, label=f"best baseline on test-R: {best[0]}"
            )
        if names:
            axes.axhline(len(rows) - 0.5, color=axes.spines["left"].get_edgecolor(), linewidth=0.8)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(f"{metric_name(scores)}, background included")
        legend(figure, axes)

    alt = f"{metric_name(scores)} of every training set on test-R and test-G, beside the baselines"
    caption = "Mean over segmenter seeds, protocol clean; the line through a test-R dot is its 95 % interval."
    return chart(draw, 11.0, 1.2 + 0.34 * len(labels), alt, caption)


def _dot(axes: Axes, y: float, score: Mapping[str, Any], test: str) -> None:
    value = score.get("miou")
    if value is None or not math.isfinite(value):
        return
    interval = score.get("interval")
    if interval and test == "test_r":
        axes.plot(interval, [y, y], color=TEST_STYLES[test]["color"], linewidth=2, alpha=0.6)
    axes.plot([value], [y], linestyle="none", **TEST_STYLES[test])


def comparisons_chart(scores: Scores) -> Chart | None:
    """Paired differences on test-R with their intervals around zero; None when none has an interval."""
    found = [one for one in scores.get("comparisons") or [] if one.get("interval") and one.get("test") == "test_r"]
    if not found:
        return None
    colours = {"kept": SERIES[2], "not kept": "#cc4b4b", "undecided": SERIES[1]}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=axes.spines["left"].get_edgecolor(), linewidth=1)
        for y, one in enumerate(found):
            ordering = one.get("ordering", "undecided")
            colour = colours.get(ordering, SERIES[1])
            axes.plot(one["interval"], [y, y], color=colour, linewidth=2.2)
            axes.plot([one["difference"]], [y], "o", color=colour, markersize=6, label=ordering)
        names = [_comparison_name(scores, one) for one in found]
        axes.set_yticks(range(len(found)), names)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel(f"difference in {metric_name(scores)} on test-R")
        legend(figure, axes)

    alt = "paired differences between training sets on test-R with intervals"
    caption = (
        "Paired difference and its 95 % interval over test patients and, where there are several, segmenter seeds; "
        "an interval that contains 0 decides nothing."
    )
    return chart(draw, 11.0, 1.2 + 0.34 * len(found), alt, caption)


def _comparison_name(scores: Scores, one: Mapping[str, Any]) -> str:
    network = f" ({one['network']})" if several_networks(scores) and one.get("network") else ""
    return f"{title_of(scores, one['a'], one['a'])} − {title_of(scores, one['b'], one['b'])}{network}"


def classes_chart(scores: Scores, table: LabelTable) -> Chart | None:
    """IoU of every class: each row's test-R, test-G by the annotator, and the gap between them."""
    rows = [row for row in scores.get("rows") or [] if score_of(row, "test_r").get("iou_per_class")]
    classes = scores.get("classes") or []
    if not rows or not classes:
        return None
    columns = min(3, len(classes))
    lines = math.ceil(len(classes) / columns)
    colours = dict(zip(table.classes, table.palette, strict=True))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for k, axes in enumerate(panels.flat):
            axes.set_visible(k < len(classes))
            if k < len(classes):
                axes.set_title(classes[k].replace("_", " "), loc="left")
                _class_panel(axes, rows, k, colours.get(classes[k], (128, 128, 128)))
                axes.set_yticks(range(len(rows)), [row_name(scores, row) for row in rows])
                axes.set_ylim(len(rows) - 0.5, -0.5)
                axes.set_xlim(-0.03, 1.03)
                axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        figure.supxlabel("IoU", fontsize=9)
        legend(figure, panels[0, 0])

    alt = "IoU by class of every training set on test-R and on test-G labelled by the annotator"
    caption = "IoU by class. The line between two marks is the gap between generated and real slices."
    return chart(draw, 11.0, 0.9 + lines * (0.5 + 0.24 * len(rows)), alt, caption)


def _class_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], k: int, colour: tuple[int, int, int]) -> None:
    shade = tuple(part / 255 for part in colour) if any(colour) else (0.5, 0.5, 0.5)  # background: black is no colour
    for y, row in enumerate(rows):
        points = {}
        for test in ("test_r", "test_g[annotator]"):
            values = score_of(row, test).get("iou_per_class") or []
            if k < len(values) and values[k] is not None:
                points[test] = values[k]
        if len(points) == 2:
            axes.plot(list(points.values()), [y, y], color=shade, linewidth=1.6, alpha=0.8)
        for test, value in points.items():
            label = TEST_STYLES[test]["label"]
            marker = TEST_STYLES[test]["marker"]
            filled = shade if test == "test_r" else "none"
            axes.plot([value], [y], marker, color=shade, markerfacecolor=filled, markersize=6, label=label)


TRAINING_PANELS: tuple[tuple[str, str, tuple[tuple[tuple[str, ...], str], ...]], ...] = (
    ("Losses", "loss", ((("loss_G",), "generator"), (("loss_D",), "discriminator"))),
    (
        "How sure D is of real slices, and augmentation",
        "share",
        ((("r_t", "D_sign", "sign_real"), "r_t = mean sign of D on reals"), (("p",), "augmentation p")),
    ),
    ("R1 penalty", "penalty", ((("r1",), "R1"),)),
    (
        "Distance of generated slices from real ones",
        "Fréchet distance",
        ((("frechet_distance[random-conv-v1]",), "random-conv-v1"), (("FID",), "FID")),
    ),
    ("Diversity of the sample grid", "share of the real slices'", ((("diversity",), "diversity"),)),
    ("Speed", "images / s", ((("img_per_s", "images_per_s"), "training"),)),
)
"""Title, unit, and for each curve the keys it may have in the statistics with its name."""


def training_chart(stats: Stats) -> Chart | None:
    """Curves of the GAN's training over thousands of real images; panels without data are left out."""
    found = []
    for title, unit, curves in TRAINING_PANELS:
        drawn = [(name, _curve(stats, keys)) for keys, name in curves]
        drawn = [(name, curve) for name, curve in drawn if curve[0]]
        if drawn:
            found.append((title, unit, drawn))
    if not found:
        return None
    columns = min(2, len(found))
    lines = math.ceil(len(found) / columns)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, squeeze=False)
        for axes, panel in zip(panels.flat, [*found, None], strict=False):
            axes.set_visible(panel is not None)
            if panel is None:
                continue
            for colour, (name, (xs, ys)) in zip(SERIES, panel[2], strict=False):
                axes.plot(xs, ys, color=colour, label=name, marker="" if len(xs) > 1 else "o")
            axes.set_title(panel[0], loc="left")
            axes.set_ylabel(panel[1])
            axes.set_xlabel("thousands of real images (kimg)")
            if len(panel[2]) > 1:
                axes.legend(loc="best")

    alt = "training curves of the GAN: losses, sign of D on reals, augmentation, speed"
    return chart(draw, 11.0, 2.5 * lines, alt, "Training of the GAN; losses are means since the point before.")


def _curve(stats: Stats, keys: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """Finite points of the first key that occurs: thousands of images, value."""
    for key in keys:
        rows = [(row["images"] / 1000, row[key]) for row in stats if row.get(key) is not None and "images" in row]
        rows = [(x, y) for x, y in rows if math.isfinite(y)]
        if rows:
            return [x for x, _ in rows], [y for _, y in rows]
    return [], []


def segmenter_chart(curves: Mapping[str, Stats]) -> Chart | None:
    """Losses of the segmenters over steps, one line each.

    Args:
        curves: for each segmenter rows with `iteration` (or `step`) and `loss`.
    """
    lines = {
        name: [(row.get("iteration", row.get("step")), row.get("loss")) for row in rows]
        for name, rows in curves.items()
    }
    return lines_chart(
        lines, "optimiser steps", "training loss", "training losses of the segmenters", "Training of the segmenters."
    )
