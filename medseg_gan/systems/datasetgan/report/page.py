"""The report of a run: one offline HTML page, the same as data, and CSV tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.labels import LabelTable
from medseg_gan.report.document import Document, Kind, Sentence, write_document
from medseg_gan.report.values import plain
from medseg_gan.systems.datasetgan.report import copies, records, sections, tables, trust
from medseg_gan.systems.datasetgan.report.content import ReportContent
from medseg_gan.systems.datasetgan.report.verdict import annotator_sentence, verdicts

REPORT_VERSION = 1
KINDS: dict[str, Kind] = {"kept": "good", "not kept": "bad", "undecided": "undecided", "not measured": "not measured"}
KINDS[""] = ""


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write `index.html`, `report.json` and the CSV tables; each appears whole or not at all.

    Args:
        folder: where the report goes.
        content: what it tells.

    Returns:
        Path of the page, the last file written.

    Raises:
        MedsegError: pictures and their labels differ in shape, or the disk is full.
    """
    content = dataclasses.replace(
        content, **{name: plain(getattr(content, name)) for name in ("scores", "training_stats", "segmenter_stats")}
    )
    return write_document(folder, document_of(content), report_data(content))


def document_of(content: ReportContent) -> Document:
    """The page: verdict, images and small table, then everything else to fold open."""
    scores = content.scores
    csv_files = {
        "rows": records.row_records(scores),
        "classes": records.class_records(scores),
        "floors": records.floor_records(scores),
        "comparisons": records.comparison_records(scores),
    }
    run = ("recipe", "profile", "command", "machine", "precision", "versions", "stages", "settings")
    return Document(
        title=content.title,
        lead=[Sentence(one.sentence, KINDS[one.ordering], one.ordering) for one in verdicts(scores)],
        opening=sections.opening(content),
        sections=[
            *sections.labels(content),
            *sections.orderings(content),
            *sections.scores(content),
            *sections.classes(content),
            *sections.images(content),
            *sections.quality(content),
            *sections.audit(content),
            *sections.curves(content),
            *sections.interpreter(content),
            *sections.data(content),
        ],
        warnings=[*content.warnings, *_alarms(content)],
        tables=csv_files | ({"quality": content.trust.pairs} if content.trust else {}),
        **{name: getattr(content, name) for name in run},
    )


def _alarms(content: ReportContent) -> list[str]:
    """What no reader may overlook: that the generator copies."""
    found = content.copies
    return list(found.sentences[:1]) if found and found.verdict != "no sign of copying" else []


def report_data(content: ReportContent) -> dict[str, Any]:
    """Everything on the page as plain values; of the pictures their number and size."""
    data: dict[str, Any] = {"version": REPORT_VERSION, "metric": tables.metric_name(content.scores)}
    data["annotator"] = annotator_sentence(content.scores)
    data["verdicts"] = [dataclasses.asdict(verdict) for verdict in verdicts(content.scores)]
    for item in dataclasses.fields(content):
        value = getattr(content, item.name)
        if isinstance(value, LabelTable):
            value = {"name": value.name, "classes": list(value.classes), "palette": [list(c) for c in value.palette]}
        elif isinstance(value, np.ndarray):
            value = {"shape": list(value.shape), "dtype": str(value.dtype)}
        elif item.name == "sample_grids":
            value = [path.name for path in value]
        elif isinstance(value, copies.Copies):
            value = {"verdict": value.verdict, "sentences": value.sentences, **value.facts}
        elif isinstance(value, trust.Trust):
            value = {"sentences": trust.sentences(value), **value.facts}
        data[item.name] = plain(value)
    return data
