"""The charts of a report, each drawn twice: for light and for dark pages."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from PIL import Image

from medseg_gan.report.pictures import Picture, png_uri
from medseg_gan.report.values import NOT_MEASURED, shown

DOTS_PER_INCH = 140
NAME_WIDTH = 38
"""Letters of a name before it goes on in a second line."""

THEMES = {
    "light": {"ink": "#1f2933", "muted": "#5b6770", "grid": "#dfe3e8", "paper": "#ffffff"},
    "dark": {"ink": "#e6e9ec", "muted": "#a3adb8", "grid": "#3a434d", "paper": "#1b2127"},
}
SERIES = ("#2f7ec4", "#e08a1e", "#3fa66b", "#b0569e", "#8c7a52", "#7a86d1")


class Chart(NamedTuple):
    """One chart in the colours of a light and of a dark page."""

    light: Picture
    dark: Picture
    caption: str


def chart(draw: Callable[[Figure], None], width: float, height: float, alt: str, caption: str) -> Chart:
    """Draw on a figure of `width` x `height` inches, once for each theme."""
    pictures = {}
    for name, theme in THEMES.items():
        with matplotlib.rc_context(_style(theme)):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=DOTS_PER_INCH)
        data.seek(0)
        # few colours, many flat areas: a palette takes a third of the space of full colour
        image = Image.open(data).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        pictures[name] = Picture(png_uri(image), alt, round(image.width / 1.4), round(image.height / 1.4))
    return Chart(pictures["light"], pictures["dark"], caption)


def _style(theme: Mapping[str, str]) -> Any:
    """Matplotlib settings of a theme; Any, because matplotlib types the keys one by one."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.parse_math": False,  # a `$` in a title is a dollar
        "text.color": theme["ink"],
        "axes.labelcolor": theme["ink"],
        "axes.edgecolor": theme["muted"],
        "axes.facecolor": theme["paper"],
        "figure.facecolor": theme["paper"],
        "xtick.color": theme["muted"],
        "ytick.color": theme["muted"],
        "ytick.labelcolor": theme["ink"],
        "grid.color": theme["grid"],
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.4,
    }


def legend(figure: Figure, axes: Axes) -> None:
    """One legend above the chart, each label once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=min(4, len(unique)))


def lines_chart(
    lines: Mapping[str, Sequence[tuple[Any, Any]]],
    x_label: str,
    y_label: str,
    alt: str,
    caption: str,
    log_y: bool = False,
) -> Chart | None:
    """Lines through their finite points, named at the side; None when there is no point to draw.

    Args:
        lines: for each name its points (x, y); what is None or not finite was not measured and is left out.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        alt: what the chart shows.
        caption: below it; points that a logarithm cannot show are counted there.
        log_y: logarithmic y; points at or below 0 are left out.
    """
    finite = {name: [(x, y) for x, y in points if is_finite(x) and is_finite(y)] for name, points in lines.items()}
    drawn = {name: [(x, y) for x, y in points if y > 0 or not log_y] for name, points in finite.items()}
    hidden = sum(map(len, finite.values())) - sum(map(len, drawn.values()))
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (name, points) in enumerate(drawn.items()):
            style = ("-", "--", ":")[index // len(SERIES) % 3]
            marker = "o" if len(points) == 1 else ""
            label, colour = textwrap.fill(name, NAME_WIDTH), SERIES[index % len(SERIES)]
            axes.plot(*zip(*points, strict=True), linestyle=style, marker=marker, color=colour, label=label)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if log_y:
            _log_scale(axes, [y for points in drawn.values() for _, y in points])
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    if hidden:
        caption = f"{caption} Left out because a logarithm cannot show them: {shown(hidden)} points at or below 0."
    return chart(draw, 11.0, max(3.2, 0.6 + 0.2 * len(drawn)), alt, caption.strip())


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic y with plain numbers: matplotlib's 10^k is mathematics, which is switched off."""
    axes.set_yscale("log")
    if max(values) < 20 * min(values):  # one power of ten at most: too few marks
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def bars_chart(
    bars: Mapping[str, tuple[float | None, tuple[float, float] | None]],
    floors: Mapping[str, float | None],
    x_label: str,
    alt: str,
    caption: str,
) -> Chart | None:
    """Bars from 0, one below the other, with their intervals, and baselines as dashed lines; None without a value.

    Args:
        bars: for each name its value and, where there is one, the interval around it.
        floors: what trivial answers reach, by name.
        x_label: what the values are, with their unit.
        alt: what the chart shows.
        caption: below it.
    """
    heights = {name: value for name, value in floors.items() if is_finite(value)}
    if not any(is_finite(value) for value, _ in bars.values()):
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ink = axes.yaxis.label.get_color()
        for y, (value, interval) in enumerate(bars.values()):
            if not is_finite(value):
                axes.annotate(NOT_MEASURED, (0, y), (4, 0), textcoords="offset points", va="center", style="italic")
                continue
            axes.barh(y, value, height=0.62, color=SERIES[0], alpha=0.75)
            ends = [value, *(interval if interval and all(map(is_finite, interval)) else ())]
            if len(ends) > 1:
                axes.plot(ends[1:], [y, y], color=ink, linewidth=1.6, marker="|", markersize=7)
            end, side = (max(0, *ends), 1) if value >= 0 else (min(0, *ends), -1)
            align = "left" if side > 0 else "right"
            axes.annotate(
                shown(value), (end, y), (5 * side, 0), textcoords="offset points", va="center", ha=align, fontsize=8
            )
        for index, (name, value) in enumerate(heights.items()):
            style = ("--", ":", "-.")[index % 3]
            colour = SERIES[1 + index % (len(SERIES) - 1)]
            label = f"baseline: {name}, {shown(value)}"
            axes.axvline(value, color=colour, linestyle=style, linewidth=1.4, label=label)
        axes.axvline(0, color=axes.spines["left"].get_edgecolor(), linewidth=0.8)
        axes.set_yticks(range(len(bars)), [textwrap.fill(name, NAME_WIDTH) for name in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(False, axis="y")
        axes.set_xlabel(x_label)
        legend(figure, axes)

    return chart(draw, 11.0, 1.0 + 0.36 * len(bars), alt, caption)


def histograms_chart(
    panels: Mapping[str, Mapping[str, Any]],
    *,
    marks: Mapping[str, Any],
    limits: Mapping[str, float],
    x_label: str,
    limit_label: str,
    mark_label: str,
    alt: str,
    caption: str,
    bins: int = 40,
) -> Chart | None:
    """Outlines of histograms side by side, each of area 1, with a limit and marks on the axis; None without values.

    Args:
        panels: for each panel's title the values of every group; what is not finite is left out.
        marks: for each panel single values, drawn on its axis.
        limits: for each panel a value at a dashed line.
        x_label: what the values are.
        limit_label: name of the dashed line.
        mark_label: name of the marks.
        alt: what the chart shows.
        caption: below it.
        bins: of all groups of a panel together.
    """
    drawn = {
        title: {name: [value for value in values if is_finite(value)] for name, values in groups.items()}
        for title, groups in panels.items()
    }
    drawn = {title: {name: values for name, values in groups.items() if values} for title, groups in drawn.items()}
    drawn = {title: groups for title, groups in drawn.items() if groups}
    if not drawn:
        return None

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axes, (title, groups) in zip(row, drawn.items(), strict=True):
            spread = [*(value for values in groups.values() for value in values), *marks[title], limits[title]]
            span = (min(spread), max(spread) if max(spread) > min(spread) else min(spread) + 1)
            for index, (name, values) in enumerate(groups.items()):
                axes.hist(values, bins, span, density=True, histtype="step", color=SERIES[index], label=name, lw=1.4)
            axes.plot(marks[title], [0] * len(marks[title]), "|", color=SERIES[3], markersize=14, label=mark_label)
            axes.axvline(limits[title], color=axes.yaxis.label.get_color(), linestyle="--", lw=1, label=limit_label)
            axes.set_title(title, loc="left")
            axes.set_xlabel(x_label)
            axes.set_yticks([])
        legend(figure, row[0])

    return chart(draw, 11.0, 3.4, alt, caption)


def is_finite(value: Any) -> TypeGuard[float]:
    """True for a number that was measured."""
    return value is not None and math.isfinite(value)
