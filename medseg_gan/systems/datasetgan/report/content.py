"""All that the page of a DatasetGAN run tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.labels import LabelTable
from medseg_gan.systems.datasetgan.report import copies, trust


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
    """PNG grids in the order of training, named by images seen."""

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
    """`name`, `seconds`, `peak_mb`: see `run_facts`."""
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
