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
from medseg_gan.report.pictures import enlarged
from medseg_gan.report.template import fill
from medseg_gan.report.values import NOT_MEASURED, csv_text, plain, shown, stage_lines

DOCUMENT_VERSION = 1
STAGES = "stages"
"""Name of the table that every document with stages has."""
CONTENTS_FROM = 6
"""So many sections need a table of contents."""

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
class Text:
    """Paragraphs, then bullet items."""

    title: str
    paragraphs: Sequence[str] = ()
    items: Sequence[str] = ()


Section = DataTable | PictureStrip | Curves | Bars | Text
NAMES = {DataTable: "table", PictureStrip: "pictures", Curves: "curves", Bars: "bars", Text: "text"}


@dataclass
class Document:
    """All that a report tells, in the order of the page; a section without a title goes on under the one before.

    Example:
        lead = [Sentence("It beats the best floor.", "good")]
        write_document(folder, Document("GANSeg on birds", lead, sections=[scores, samples]))
    """

    title: str
    lead: Sequence[Sentence] = ()
    """What the reader must know first."""
    sections: Sequence[Section] = ()
    recipe: str = ""
    profile: str = ""
    command: str = ""
    machine: str = ""
    precision: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] = ()
    """`name`, `seconds`, `peak_mb` (largest memory of the process by the end of the stage)."""
    settings: str = ""
    """The resolved recipe, YAML."""
    warnings: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that a program may want to read; not on the page."""


def write_document(folder: Path, document: Document) -> Path:
    """Write `index.html`, `report.json` and a CSV for each named table; each appears whole or not at all.

    Args:
        folder: where the report goes.
        document: what it tells.

    Returns:
        Path of the page, the last file written.

    Raises:
        MedsegError: a section cannot be shown (nothing is written then), or the disk is full.
    """
    document = dataclasses.replace(document, sections=[_checked(section) for section in document.sections])
    tables = csv_tables(document)
    page = render(document, [f"{name}.csv" for name in tables])
    for name, text in tables.items():
        write_text(folder / f"{name}.csv", text)
    write_json(folder / "report.json", document_data(document))
    write_text(folder / "index.html", page)
    return folder / "index.html"


def document_data(document: Document) -> dict[str, Any]:
    """Everything on the page and the caller's `data` as plain values; of the pictures their shapes."""
    data: dict[str, Any] = {"version": DOCUMENT_VERSION}
    for item in dataclasses.fields(document):
        data[item.name] = plain(getattr(document, item.name))
    data["lead"] = [dataclasses.asdict(sentence) for sentence in document.lead]
    data["sections"] = []
    for section in document.sections:
        told = {item.name: getattr(section, item.name) for item in dataclasses.fields(section)}
        if isinstance(section, PictureStrip):
            told["images"] = [{"shape": image.shape, "dtype": str(image.dtype)} for image in section.images]
        if isinstance(section, Bars):
            told["groups"] = {name: bar._asdict() for name, bar in section.groups.items()}
        data["sections"].append({"kind": NAMES[type(section)], **plain(told)})
    return data


def csv_tables(document: Document) -> dict[str, str]:
    """Name and text of every CSV file, `stages` last.

    Raises:
        MedsegError: a name is taken (`stages` always is) or no plain file name.
    """
    made: dict[str, str] = {}
    for section in document.sections:
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
    cards = list(_cards(document.sections))
    return fill(
        "document.html.j2",
        content=document,
        badges={kind: (word, word.replace(" ", "-")) for kind, word in BADGES.items()},
        cards=cards,
        contents=sum(bool(title) for title, _ in cards) >= CONTENTS_FROM,
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
            alts = [label or f"{title}, picture {k}" for k, label in enumerate(labels, 1)]
            pictures = [enlarged(image, alt, section.zoom) for image, alt in zip(section.images, alts, strict=True)]
            sharp = [picture.width >= image.shape[1] for picture, image in zip(pictures, section.images, strict=True)]
            return {"pictures": list(zip(pictures, labels, sharp, strict=True))}
        case Curves():
            return {"chart": _curves_chart(section, title)}
        case Bars():
            return {"chart": _bars_chart(section, title)}
    return {}


def _table(table: DataTable) -> dict[str, Any]:
    keys = [key for key, _ in table.columns]
    longest = {
        key: max((len(row[key]) for row in table.rows if isinstance(row.get(key), str)), default=0) for key in keys
    }
    text = {key: "text long" if letters > 40 else "text" if letters else "" for key, letters in longest.items()}
    lines = [
        {
            "bold": bool(table.highlight and row.get(table.highlight)),
            "cells": [(shown(row.get(key)), text[key]) for key in keys],
        }
        for row in table.rows
    ]
    return {"head": [(heading, text[key]) for key, heading in table.columns], "lines": lines}


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
    told += [f"floor {name} {shown(value)}" for name, value in bars.floors.items()]
    alt = f"{title}: {bars.x_label}; {'; '.join(told)}"
    return bars_chart(bars.groups, bars.floors, bars.x_label, alt, bars.caption)


def _checked(section: Section) -> Section:
    """The section with plain numbers.

    Raises:
        MedsegError: it cannot be shown as it is.
    """
    where = f"report: “{section.title}”"
    match section:
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
                    f"{where} has {len(section.images)} pictures and {len(section.labels)} labels; "
                    "pass one for each or none"
                )
            for image in section.images:
                if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2 or not image.size:
                    raise MedsegError(
                        f"{where} has a picture {image.shape} of {image.dtype}; pass (H, W) or (H, W, 3) uint8"
                    )
        case Curves():
            section = dataclasses.replace(section, series=plain(section.series))
        case Bars():
            groups = {name: Bar(*plain(bar)) for name, bar in section.groups.items()}
            section = dataclasses.replace(section, groups=groups, floors=plain(section.floors))
    return section
