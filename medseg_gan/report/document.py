"""A report of any system: tables, images, curves and bars on one offline HTML page, also as data and CSV."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import write_json, write_text
from medseg_gan.report.charts import Chart, bars_chart, lines_chart
from medseg_gan.report.pictures import enlarged, tile
from medseg_gan.report.template import fill
from medseg_gan.report.values import NOT_MEASURED, csv_text, plain, shown, stage_lines

DOCUMENT_VERSION = 1
STAGES = "stages"
"""Name of the table that every document with stages has."""

FIGURES = re.compile(rf"[-−+±.]?\d|{NOT_MEASURED}|no interval|best$|$")
"""Begins a text that stands in a column of numbers."""

Kind = Literal["good", "bad", "undecided", "not measured", ""]
BADGES: dict[str, str] = {"good": "kept", "bad": "not kept", "undecided": "undecided", "not measured": NOT_MEASURED}


@dataclass(frozen=True)
class Sentence:
    """A sentence of the lead; its badge says the kind in a word: `word`, else kept, not kept, undecided."""

    text: str
    kind: Kind = ""
    word: str = ""


@dataclass
class DataTable:
    """Rows under headings. The page shows the columns, CSV and JSON hold every key of the rows, unrounded.

    Example:
        DataTable("Scores", [("row", "training set"), ("miou", "mIoU")], [{"row": "ours", "miou": 0.81}], name="scores")
    """

    title: str
    columns: Sequence[tuple[str, str]]
    """Key and heading; the first column names the rows."""
    rows: Sequence[Mapping[str, Any]]
    """Text, number, bool or None by key; None, NaN and infinity were not measured."""
    note: str = ""
    name: str = ""
    """Stem of the CSV file; without one there is none."""
    highlight: str = ""
    """Key whose rows are set in bold where it is true; it needs no column."""
    heading: str = ""
    """Smaller heading above it, inside its part of the page."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What a text begins with in CSV and JSON, and with what on the page."""


@dataclass
class PictureStrip:
    """Pictures side by side, with their own pixels: the page grows by the PNG of each."""

    title: str
    images: Sequence[np.ndarray]
    """`(H, W)` or `(H, W, 3)` uint8, also of different sizes."""
    labels: Sequence[str] = ()
    """A short label below each picture, or none at all."""
    caption: str = ""
    columns: int = 0
    """Pictures in a row; 0: as many as there is room for."""
    zoom: float = 0.0
    """Screen pixels for one of a picture's own; 0: about 128 for its larger side."""


@dataclass
class Stacks:
    """Slices side by side, under each what belongs to it; as many beside each other as the screen has room for."""

    title: str
    lines: Mapping[str, np.ndarray]
    """For each line, top first, its name and `(N, H, W)` or `(N, H, W, 3)` uint8, equally many in all."""
    labels: Sequence[str] = ()
    """A short label below each stack, or none at all."""
    caption: str = ""
    legend: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Names of the colours in them, red, green, blue."""
    heading: str = ""
    """Smaller heading above them, inside their part of the page."""


@dataclass
class Curves:
    """Lines over x. Points that were not measured are left out of the picture and null in the data."""

    title: str
    series: Mapping[str, Sequence[tuple[float, float | None]]]
    """For each name its points (x, y)."""
    x_label: str
    y_label: str
    caption: str = ""
    log_y: bool = False


class Bar(NamedTuple):
    """A value and, where there is one, the interval around it."""

    value: float | None
    interval: tuple[float, float] | None = None


@dataclass
class Bars:
    """One bar for each group, and what trivial answers reach as dashed lines."""

    title: str
    groups: Mapping[str, Bar]
    x_label: str
    floors: Mapping[str, float | None] = field(default_factory=dict)
    caption: str = ""


@dataclass
class Drawing:
    """A chart that a system draws itself; None: there was nothing to draw."""

    title: str
    chart: Chart | None


@dataclass
class Text:
    """Paragraphs, then bullet items."""

    title: str
    paragraphs: Sequence[str] = ()
    items: Sequence[str] = ()


Section = DataTable | PictureStrip | Stacks | Curves | Bars | Drawing | Text
NAMES = {
    DataTable: "table",
    PictureStrip: "pictures",
    Stacks: "stacks",
    Curves: "curves",
    Bars: "bars",
    Drawing: "drawing",
    Text: "text",
}


@dataclass
class Document:
    """All that a report tells, in the order of the page: verdict, opening, and the sections, which fold open.

    A section without a title goes on under the one before.

    Example:
        lead = [Sentence("It beats the best baseline.", "good")]
        write_document(folder, Document("GANSeg on birds", lead, sections=[scores, samples]))
    """

    title: str
    lead: Sequence[Sentence] = ()
    """What the reader must know; the first sentence is the verdict and stands first, the others fold open."""
    opening: Sequence[Section] = ()
    """What stands open below the verdict: a strip of images, a small table."""
    sections: Sequence[Section] = ()
    recipe: str = ""
    profile: str = ""
    command: str = ""
    machine: str = ""
    precision: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] = ()
    """`name`, `seconds`, `peak_mb`: see `run_facts`."""
    settings: str = ""
    """The resolved recipe, YAML."""
    warnings: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that a program may want to read; not on the page."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Further CSV files, by name; not on the page."""


def write_document(folder: Path, document: Document, data: Mapping[str, Any] | None = None) -> Path:
    """Write `index.html`, `report.json` and a CSV for each named table; each appears whole or not at all.

    Args:
        folder: where the report goes.
        document: what it tells.
        data: content of `report.json`; None: the document's own.

    Returns:
        Path of the page, the last file written.

    Raises:
        MedsegError: a section cannot be shown (nothing is written then), or the disk is full.
    """
    document = dataclasses.replace(
        document,
        opening=[_checked(section) for section in document.opening],
        sections=[_checked(section) for section in document.sections],
    )
    tables = csv_tables(document)
    page = render(document, [f"{name}.csv" for name in tables])
    for name, text in tables.items():
        write_text(folder / f"{name}.csv", text)
    write_json(folder / "report.json", document_data(document) if data is None else data)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def document_data(document: Document) -> dict[str, Any]:
    """Everything on the page and the caller's `data` as plain values; of the pictures their shapes."""
    data: dict[str, Any] = {"version": DOCUMENT_VERSION}
    for item in dataclasses.fields(document):
        data[item.name] = plain(getattr(document, item.name))
    data["lead"] = [dataclasses.asdict(sentence) for sentence in document.lead]
    del data["tables"]
    for place in ("opening", "sections"):
        data[place] = [_section_data(section) for section in getattr(document, place)]
    return data


def _section_data(section: Section) -> dict[str, Any]:
    told = {item.name: getattr(section, item.name) for item in dataclasses.fields(section)}
    match section:
        case PictureStrip():
            told["images"] = [{"shape": image.shape, "dtype": str(image.dtype)} for image in section.images]
        case Stacks():
            told["lines"] = {name: {"shape": images.shape} for name, images in section.lines.items()}
        case Drawing():
            told["chart"] = section.chart and section.chart.light.alt
        case Bars():
            told["groups"] = {name: bar._asdict() for name, bar in section.groups.items()}
    return {"kind": NAMES[type(section)], **plain(told)}


def csv_tables(document: Document) -> dict[str, str]:
    """Name and text of every CSV file, `stages` last.

    Raises:
        MedsegError: a name is taken (`stages` always is) or no plain file name.
    """
    made = {name: csv_text(rows) for name, rows in document.tables.items()}
    for section in (*document.opening, *document.sections):
        if not isinstance(section, DataTable) or not section.name:
            continue
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", section.name):
            raise MedsegError(
                f"report: table name {section.name!r} is no plain file name; use small letters, digits, _ and -"
            )
        if section.name in made or section.name == STAGES:
            raise MedsegError(f"report: the table name {section.name} is taken; give each table its own")
        made[section.name] = csv_text(section.rows, [key for key, _ in section.columns])
    return made | ({STAGES: csv_text(plain(document.stages))} if document.stages else {})


def render(document: Document, files: Sequence[str]) -> str:
    """The page as HTML, every picture inside it, nothing fetched from elsewhere."""
    return fill(
        "document.html.j2",
        content=document,
        badges={kind: (word, word.replace(" ", "-")) for kind, word in BADGES.items()},
        opening=[part for _, parts in _cards(document.opening) for part in parts],
        cards=list(_cards(document.sections)),
        stage_lines=stage_lines(plain(document.stages)),
        files=["report.json", *files],
    )


def _cards(sections: Sequence[Section]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Sections as the page has them: a title and the parts under it."""
    title = ""
    parts: list[dict[str, Any]] = []
    for section in sections:
        if section.title and parts:
            yield title, parts
            parts = []
        title = section.title if section.title else title
        parts.append({"kind": NAMES[type(section)], "title": title, "section": section, **_view(section, title)})
    if parts:
        yield title, parts


def _view(section: Section, title: str) -> dict[str, Any]:
    """What the template needs beside the section itself."""
    match section:
        case DataTable():
            return _table(section)
        case PictureStrip():
            labels = section.labels or [""] * len(section.images)
            alts = [label or f"{title}, image {k}" for k, label in enumerate(labels, 1)]
            pictures = [enlarged(image, alt, section.zoom) for image, alt in zip(section.images, alts, strict=True)]
            sharp = [picture.width >= image.shape[1] for picture, image in zip(pictures, section.images, strict=True)]
            return {"pictures": list(zip(pictures, labels, sharp, strict=True))}
        case Stacks():
            names, count = list(section.lines), len(next(iter(section.lines.values()), ()))
            stacks = [[tile(section.lines[name][k], f"{name} {k + 1}") for name in names] for k in range(count)]
            order = f"From top to bottom: {', '.join(names)}." if len(names) > 1 else ""
            return {"stacks": list(zip(stacks, section.labels or [""] * count, strict=True)), "order": order}
        case Drawing():
            return {"chart": section.chart}
        case Curves():
            return {"chart": _curves_chart(section, title)}
        case Bars():
            return {"chart": _bars_chart(section, title)}
    return {}


def _table(table: DataTable) -> dict[str, Any]:
    keys = [key for key, _ in table.columns]
    words = {key: [row[key] for row in table.rows if isinstance(row.get(key), str)] for key in keys}
    text = {key: "" if all(map(FIGURES.match, found)) else "text" for key, found in words.items()}
    lines = [
        {
            "bold": bool(table.highlight and row.get(table.highlight)),
            "cells": [(_worded(shown(row.get(key)), table.words), text[key]) for key in keys],
        }
        for row in table.rows
    ]
    return {"head": [(heading, text[key]) for key, heading in table.columns], "lines": lines}


def _worded(text: str, words: Mapping[str, str]) -> str:
    return next((new + text.removeprefix(old) for old, new in words.items() if text.startswith(old)), text)


def _curves_chart(curves: Curves, title: str) -> Chart | None:
    told = []
    for name, points in curves.series.items():
        ends = [f"{shown(y)} at {shown(x)}" for x, y in (points[0], points[-1])] if points else [NOT_MEASURED]
        told.append(f"{name} {' to '.join(ends)}")
    alt = f"{title}: {curves.y_label} over {curves.x_label}; {'; '.join(told)}"
    return lines_chart(curves.series, curves.x_label, curves.y_label, alt, curves.caption, curves.log_y)


def _bars_chart(bars: Bars, title: str) -> Chart | None:
    told = [
        f"{name} {shown(value)}" + (f" ({shown(interval[0])} to {shown(interval[1])})" if interval else "")
        for name, (value, interval) in bars.groups.items()
    ]
    told += [f"baseline {name} {shown(value)}" for name, value in bars.floors.items()]
    alt = f"{title}: {bars.x_label}; {'; '.join(told)}"
    return bars_chart(bars.groups, bars.floors, bars.x_label, alt, bars.caption)


def _checked(section: Section) -> Section:
    """The section with plain numbers.

    Raises:
        MedsegError: it cannot be shown as it is.
    """
    where = f"report: “{section.title}”"
    match section:
        case Stacks():
            if len({len(images) for images in section.lines.values()}) > 1:
                shapes = ", ".join(f"{name} {images.shape}" for name, images in section.lines.items())
                raise MedsegError(f"{where} has lines of different shapes ({shapes}); pass equally many images in each")
        case DataTable():
            section = dataclasses.replace(section, rows=plain(section.rows))
            for key, _ in section.columns:
                if section.rows and not any(key in row for row in section.rows):
                    raise MedsegError(f"{where} has a column {key!r} that no row has; correct the key")
            for key, value in (item for row in section.rows for item in row.items()):
                if not isinstance(value, str | int | float | None):
                    raise MedsegError(
                        f"{where} has a {type(value).__name__} under {key!r}; pass text, a number or None"
                    )
        case PictureStrip():
            if section.labels and len(section.labels) != len(section.images):
                raise MedsegError(
                    f"{where} has {len(section.images)} images and {len(section.labels)} labels; "
                    "pass one for each or none"
                )
            for image in section.images:
                if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2 or not image.size:
                    raise MedsegError(
                        f"{where} has an image {image.shape} of {image.dtype}; pass (H, W) or (H, W, 3) uint8"
                    )
        case Curves():
            section = dataclasses.replace(section, series=plain(section.series))
        case Bars():
            groups = {name: Bar(*plain(bar)) for name, bar in section.groups.items()}
            section = dataclasses.replace(section, groups=groups, floors=plain(section.floors))
    return section
