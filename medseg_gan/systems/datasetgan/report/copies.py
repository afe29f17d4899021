"""What a report tells of an audit for copies: its verdict, its nearest pairs as images, its distances as a chart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_gan.evaluation.memorisation import Audit
from medseg_gan.report.charts import Chart, histograms_chart
from medseg_gan.report.document import DataTable, Stacks
from medseg_gan.report.values import number
from medseg_gan.systems.datasetgan.report.tables import interval_text

SHOWN = 8
"""Pairs of each measure on the page."""


@dataclass(frozen=True)
class Copies:
    """An audit as the page needs it.

    Attributes:
        verdict: in a few words.
        sentences: the verdict, the first with its numbers.
        facts: everything that was counted.
        pairs: the nearest pair of every generated slice looked at, flagged ones first, then by nearness.
        generated: by measure `(N, H, W)` uint8, the generated slices of its first pairs.
        nearest: the same, their nearest training slices.
        distances: by measure and group the distances to the nearest training slice.
    """

    verdict: str
    sentences: tuple[str, ...]
    facts: dict[str, Any]
    pairs: list[dict[str, Any]]
    generated: dict[str, np.ndarray] = field(repr=False)
    nearest: dict[str, np.ndarray] = field(repr=False)
    distances: dict[str, dict[str, np.ndarray]] = field(repr=False)


def copies_of(
    audit: Audit,
    generated: Callable[[np.ndarray], np.ndarray],
    training: Callable[[np.ndarray], np.ndarray],
    name_generated: Callable[[int], Mapping[str, Any]],
    name_training: Callable[[int], Mapping[str, Any]],
) -> Copies:
    """An audit with the images of its nearest pairs.

    Args:
        audit: what was found.
        generated: positions in the generated set to grey `(N, H, W)` uint8.
        training: the same of the training set.
        name_generated: position to what a table says of a generated slice.
        name_training: the same of a training slice; pseudonyms only.
    """
    pairs = [_pair(audit, k, name_generated, name_training) for k in range(len(audit.generated))]
    order = sorted(range(len(pairs)), key=lambda k: (not pairs[k]["flagged"], pairs[k]["nearness"]))
    shown = {name: _first(audit, name) for name in audit.measures}
    return Copies(
        audit.verdict,
        audit.sentences,
        audit.facts,
        [pairs[k] for k in order],
        {name: generated(audit.generated[first]) for name, first in shown.items()},
        {name: training(audit.measures[name].neighbours["generated"].position[first]) for name, first in shown.items()},
        {
            name: {group: found.distance for group, found in one.neighbours.items() if group in GROUP_NAMES}
            for name, one in audit.measures.items()
        },
    )


def _pair(
    audit: Audit,
    k: int,
    name_generated: Callable[[int], Mapping[str, Any]],
    name_training: Callable[[int], Mapping[str, Any]],
) -> dict[str, Any]:
    row = {**name_generated(int(audit.generated[k])), "flagged": bool(audit.flagged[k])}
    row["nearness"] = min(float(_nearness(audit, name)[k]) for name in audit.measures)
    for name, one in audit.measures.items():
        found = one.neighbours["generated"]
        row |= {f"{name}_{key}": value for key, value in name_training(int(found.position[k])).items()}
        row |= {f"{name}_distance": float(found.distance[k]), f"{name}_ratio": float(found.ratio[k])}
        row[f"{name}_flagged"] = bool(one.flags["generated"][k])
    return row


def _nearness(audit: Audit, name: str) -> np.ndarray:
    """Distances of generated slices by the distance from which one counts as near."""
    one = audit.measures[name]
    return one.neighbours["generated"].distance / max(one.near, 1e-12)


def _first(audit: Audit, name: str) -> np.ndarray:
    """Which generated slices the page shows for a measure: those it flags, then the nearest."""
    flagged = audit.measures[name].flags["generated"]
    return np.lexsort((_nearness(audit, name), ~flagged))[:SHOWN]


GROUP_NAMES = {
    "generated": "generated slices",
    "unseen": "real slices of unseen patients",
    "training": "training slices, to other patients",
    "canaries": "planted copies",
}
"""Groups on the chart; planted copies as marks on its axis."""


def pair_stacks(copies: Copies) -> list[Stacks]:
    """For each measure its generated slices above their nearest training slices."""
    return [
        Stacks(
            "",
            {f"generated, nearest by {name}": images, f"nearest training slice by {name}": copies.nearest[name]},
            heading=f"Nearest pairs by {name}",
        )
        for name, images in copies.generated.items()
        if len(images)
    ]


def distances_chart(copies: Copies) -> Chart | None:
    """Distances to the nearest training slice, generated beside real, one panel for each measure."""
    return histograms_chart(
        {
            f"By {name}": {GROUP_NAMES[group]: values for group, values in groups.items() if group != "canaries"}
            for name, groups in copies.distances.items()
        },
        marks={f"By {name}": groups["canaries"] for name, groups in copies.distances.items()},
        limits={f"By {name}": one["near"] for name, one in copies.facts["measures"].items()},
        x_label="distance to the nearest training slice",
        limit_label="near: 1 % of the unseen real slices",
        mark_label=GROUP_NAMES["canaries"],
        alt="histograms of the distance to the nearest training slice, of generated and of real slices",
        caption="Where a generator copies, its slices lie left of the dashed line, where the planted copies are.",
    )


def measure_table(copies: Copies) -> DataTable:
    """Thresholds, flags, medians, and the two comparisons of whole sets: a line for each, a column for each measure."""
    measures = copies.facts["measures"]

    def line(name: str, figure: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
        return {"figure": name, **{key: figure(one) for key, one in measures.items()}}

    def median(one: Mapping[str, Any], group: str) -> str:
        return number((one["distance"].get(group) or {}).get("median"))

    def nearer(one: Mapping[str, Any]) -> str:
        share = one["nearer_to_training"]
        interval = f"\n{interval_text(share['interval'])}" if share["interval"] else ""
        return number(share["share"]) + interval

    lines = [
        line("near, below", lambda one: number(one["near"])),
        line("alone, ratio below", lambda one: number(one["alone"])),
        line("flagged generated slices", lambda one: number(one["flagged"]["generated"])),
        line("flagged unseen real slices", lambda one: number(one["flagged"]["unseen"])),
        line("planted copies found", lambda one: number(one["flagged"]["canaries"])),
        line("decoys flagged", lambda one: number(one["flagged"]["decoys"])),
        line("median distance, generated", lambda one: median(one, "generated")),
        line("median distance, unseen real", lambda one: median(one, "unseen")),
        line("z (Meehan)", lambda one: number(one["z"], 1)),
        line("z of the ratio", lambda one: number(one["z_ratio"], 1)),
        line("nearer to training patients than to unseen ones, 95 % interval", nearer),
    ]
    return DataTable("", [("figure", "distance by"), *((name, name) for name in measures)], lines)
