"""The report of a run: one offline HTML page, the same as data, and CSV tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.labels import LabelTable
from medseg_gan.machine.atomic import write_json, write_text
from medseg_gan.report import pictures, values
from medseg_gan.report.template import fill
from medseg_gan.report.values import plain, stage_lines
from medseg_gan.systems.datasetgan.report import copies, figures, labellers, records, tables, trust
from medseg_gan.systems.datasetgan.report.verdict import annotator_sentence, steps_sentence, verdicts

REPORT_VERSION = 1


@dataclass
class ReportContent:
    """All that a report tells. What is left empty is shown as not measured or not shown at all.

    Example:
        write_report(folder, ReportContent(title="DatasetGAN on SegTHOR", table=lookup_table("paper"), scores=scores))
    """

    title: str
    table: LabelTable
    scores: dict[str, Any] = field(default_factory=dict)
    """As the evaluation writes it to `scores.json`."""
    recipe: str = ""
    profile: str = ""
    command: str = ""
    headlines: list[str] = field(default_factory=list)
    """Sentences of the caller's, shown after the verdict."""
    paper_rows: list[dict[str, str]] = field(default_factory=list)
    """The source's own figures: `row`, `test_g`, `test_r`, if need be `title` and `network`."""
    paper_notes: list[str] = field(default_factory=list)

    real_images: np.ndarray | None = None
    """`(N, H, W)` uint8 grey."""
    real_labels: np.ndarray | None = None
    """`(N, H, W)` class ids, 255 where nobody labelled."""
    generated_images: np.ndarray | None = None
    generated_labels: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    """`(N, H, W)` Jensen-Shannon divergence of the generated slices' labels, nats."""
    sample_grids: list[Path] = field(default_factory=list)
    """PNG sheets in the order of training, named by images seen."""

    training_stats: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the GAN's `stats.jsonl`."""
    segmenter_stats: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """For each segmenter rows with `iteration` and `loss`."""

    pools: list[dict[str, Any]] = field(default_factory=list)
    """`pool`, `patients`, `slices`, `labelled_slices`."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> number of slices or volumes."""
    phantom: str = ""
    """Edition of the phantom; empty on real data."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    """`name`, `seconds`, `peak_mb` (largest memory of the process by the end of the stage)."""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    precision: str = ""
    settings: str = ""
    """The resolved recipe, YAML."""
    warnings: list[str] = field(default_factory=list)

    copies: copies.Copies | None = None
    """The audit for copies of training slices; None: not looked for."""
    trust: trust.Trust | None = None
    """Quality control of the generated pairs; None: there was none."""


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
    page = render(content)
    scores = content.scores
    csv_files = {
        "rows.csv": records.row_records(scores),
        "classes.csv": records.class_records(scores),
        "floors.csv": records.floor_records(scores),
        "comparisons.csv": records.comparison_records(scores),
        "stages.csv": [dict(stage) for stage in content.stages],
    }
    if content.trust:
        csv_files["quality.csv"] = content.trust.pairs
    for name, lines in csv_files.items():
        write_text(folder / name, values.csv_text(lines))
    write_json(folder / "report.json", report_data(content))
    write_text(folder / "index.html", page)
    return folder / "index.html"


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


def render(content: ReportContent) -> str:
    """The page as HTML, every picture inside it, nothing fetched from elsewhere."""
    return fill(
        "page.html.j2",
        Path(__file__).parent,
        content=content,
        **_words(content),
        **_tables(content),
        **_pictures(content),
        **_trust(content),
    )


def _words(content: ReportContent) -> dict[str, Any]:
    scores = content.scores
    return {
        "metric": tables.metric_name(scores),
        "annotator": annotator_sentence(scores),
        "verdicts": verdicts(scores),
        "steps_sentence": steps_sentence(scores),
        "interpreter": scores.get("interpreter") or {},
        "rejected": tables.rejected_lines(scores.get("interpreter") or {}),
        "selection": labellers.selection_lines(scores.get("interpreter") or {}),
        "calibration": labellers.calibration_sentence(scores.get("interpreter") or {}),
        "classes": [name.replace("_", " ") for name in scores.get("classes") or []],
        "tests": tables.TESTS,
    }


def _tables(content: ReportContent) -> dict[str, Any]:
    scores = content.scores
    per_class = {
        (test, measure): tables.class_lines(scores, test, measure)
        for test in tables.TESTS
        for measure in ("iou", "dice")
    }
    return {
        "cost_lines": tables.cost_lines(scores),
        "score_lines": tables.score_lines(scores, content.paper_rows),
        "floor_lines": tables.floor_lines(scores),
        "comparison_lines": tables.comparison_lines(scores),
        "other_readings": tables.other_readings(scores),
        "class_tables": {key: lines for key, lines in per_class.items() if lines},
        "other_paper_rows": tables.unmatched_paper_rows(scores, content.paper_rows),
        "stage_lines": stage_lines(content.stages),
        "colours": _colours(content.table),
    }


def _colours(table: LabelTable) -> dict[str, str]:
    """CSS colour of every class but the background, by its name in words."""
    pairs = zip(table.classes[1:], table.palette[1:], strict=True)
    return {name.replace("_", " "): f"rgb({red} {green} {blue})" for name, (red, green, blue) in pairs}


def _pictures(content: ReportContent) -> dict[str, Any]:
    scores, table, uncertainty = content.scores, content.table, content.uncertainty
    return {
        "real_strips": pictures.strips(content.real_images, content.real_labels, None, table, "real"),
        "generated_strips": pictures.strips(
            content.generated_images, content.generated_labels, uncertainty, table, "generated"
        ),
        "uncertainty_top": None
        if uncertainty is None or not uncertainty.size
        else pictures.uncertainty_top(uncertainty),
        "uncertainty_gradient": pictures.gradient(),
        "development": pictures.development(content.sample_grids),
        "rows_chart": figures.rows_chart(scores),
        "comparisons_chart": figures.comparisons_chart(scores),
        "classes_chart": figures.classes_chart(scores, table),
        "training_chart": figures.training_chart(content.training_stats),
        "segmenter_chart": figures.segmenter_chart(content.segmenter_stats),
        "copies_chart": content.copies and copies.distances_chart(content.copies),
        "copies_lines": copies.measure_lines(content.copies) if content.copies else [],
        "copies_strips": copies.pair_strips(content.copies) if content.copies else {},
    }


def _trust(content: ReportContent) -> dict[str, Any]:
    found = content.trust
    return {
        "trust_sentences": trust.sentences(found) if found else [],
        "trust_classes": trust.class_lines(found) if found else [],
        "trust_errors": trust.error_lines(found) if found else [],
        "trust_bounded": found is not None and trust.bounded(found),
        "trust_scatter": found and trust.scatter(found),
        "trust_strips": trust.pair_strips(found, content.table) if found else {},
    }
