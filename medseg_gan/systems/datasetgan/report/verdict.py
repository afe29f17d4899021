"""What the scores say, in words: who annotated, and whether the hybrid beats what needs no GAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medseg_gan.systems.datasetgan.report.tables import metric_name, number, score_of, signed, title_of
from medseg_gan.systems.datasetgan.rows import DECIDING

Scores = Mapping[str, Any]
Ordering = Literal["kept", "not kept", "undecided", "not measured", ""]

RIVALS = {"real30": "30 real only", "pseudo_label": "pseudo-label", "annotated_only": "30 annotated only"}
"""What the deciding rows are called where they were not trained."""
BESIDE = {
    "real30_spread": "30 real only, spread over all labelled patients",
    "annotated_real": "30 annotated + 30 real, no interpreter",
}
"""The other draw of `30 real`, and all labels without the interpreter: told beside the deciding rows, not counted."""


@dataclass(frozen=True)
class Verdict:
    """One sentence, the ordering it states (empty where it states none), and whether it sums up the others."""

    sentence: str
    ordering: Ordering
    lead: bool = False


def annotator_sentence(scores: Scores) -> str:
    """Who annotated, and how many real labelled slices stand behind that annotator."""
    annotator = scores.get("annotator")
    if not annotator:
        return "Who annotated is not recorded."
    who, kind = annotator.get("who") or "unnamed", annotator.get("kind")
    if kind == "person":
        told = f"Annotated by a person: {who}."
    elif kind == "lungs":
        told = f"No person annotated. The labels come from a rule on HU values: {who}."
    elif kind == "inversion":
        told = f"Nobody painted. The interpreter learnt from {who}, which count for every training set it labelled."
    else:
        slices, patients = number(annotator.get("real_slices")), number(annotator.get("real_patients"))
        trained = f"trained on {slices} real labelled slices of {patients} patients"
        told = f"No person annotated. A stand-in did: {who}, {trained}, which count for every training set it labelled."
    name = scores.get("score_name") or "mIoU"
    return told if name == "mIoU" else f"{told} Scores are {name}, not accuracy."


def verdicts(scores: Scores) -> list[Verdict]:
    """Whether the hybrid beats the deciding training sets, hybrid minus synthetic, and synthetic above the floors.

    Args:
        scores: as written by the evaluation (`scores.json`); comparisons may name a network.

    Returns:
        For each network compared: the overall verdict, one for each deciding row, and what lies beside them.
    """
    comparisons = scores.get("comparisons") or []
    networks = list(dict.fromkeys(comparison.get("network") for comparison in comparisons)) or [None]
    return [verdict for network in networks for verdict in _of_network(scores, network, named=len(networks) > 1)]


def steps_sentence(scores: Scores) -> str:
    """Whether the rows were trained equally long; a ranking of unequally trained rows says little."""
    steps = {row.get("steps") for row in scores.get("rows") or []}
    if len(steps) == 1 and None not in steps:
        return f"Every segmenter was trained for {number(steps.pop())} optimiser steps."
    if len(steps - {None}) > 1:
        return "The segmenters were trained for unequal numbers of optimiser steps, so their order also shows that."
    return ""


def find_comparison(scores: Scores, a: str, b: str, network: str | None = None) -> dict[str, Any] | None:
    """The paired comparison `a - b` on test-R, turned round where it was stored as `b - a`."""
    for found in scores.get("comparisons") or []:
        if found.get("test", "test_r") != "test_r" or found.get("network") != network:
            continue
        if (found["a"], found["b"]) == (a, b):
            return dict(found, ordering=_ordering(found))
        if (found["a"], found["b"]) == (b, a):
            turned = {"kept": "not kept", "not kept": "kept"}
            interval = found.get("interval")
            return dict(
                found,
                a=a,
                b=b,
                difference=-found["difference"],
                interval=[-interval[1], -interval[0]] if interval else None,
                ordering=turned.get(_ordering(found), "undecided"),
            )
    return None


def _ordering(comparison: Mapping[str, Any]) -> str:
    interval = comparison.get("interval")
    if not interval:
        return str(comparison.get("ordering", "undecided"))
    return "kept" if interval[0] > 0 else "not kept" if interval[1] < 0 else "undecided"


def _of_network(scores: Scores, network: str | None, named: bool) -> list[Verdict]:
    prefix = f"{network}: " if named and network else ""
    rows = {row["row"] for row in scores.get("rows") or []}
    told = RIVALS | {key: name for key, name in BESIDE.items() if key == "real30_spread" or key in rows}
    singles = {key: _against(scores, key, name, network) for key, name in told.items()}
    lines = [
        *_nothing_above_floor(scores, network),
        _overall(scores, {key: singles[key].ordering for key in DECIDING}),
        *singles.values(),
        _hybrid_minus_synthetic(scores, network),
        *_above_floor(scores, network),
    ]
    return [Verdict(prefix + line.sentence, line.ordering, lead=k == 0) for k, line in enumerate(lines)]


def _overall(scores: Scores, orderings: Mapping[str, str]) -> Verdict:
    """One sentence over the deciding rows: the worst of their orderings."""
    title = title_of(scores, "hybrid", "")
    hybrid = f"the hybrid (“{title}”)" if title else "the hybrid"

    def named(ordering: str) -> str:
        keys = [key for key, found in orderings.items() if found == ordering]
        return ", ".join(f"“{title_of(scores, key, RIVALS[key])}”" for key in keys)

    found = set(orderings.values())
    if found == {"kept"}:
        return Verdict(f"T{hybrid[1:]} beats all three deciding training sets on test-R: {named('kept')}.", "kept")
    if found == {"not measured"}:
        return Verdict(
            "Whether the hybrid beats the deciding training sets on test-R was not measured.", "not measured"
        )
    parts = {
        "not kept": "it falls behind ",
        "undecided": "no difference can be told from ",
        "not measured": "not compared with ",
        "kept": "it beats ",
    }
    told = "; ".join(words + named(ordering) for ordering, words in parts.items() if ordering in found)
    if "not kept" in found:
        return Verdict(f"T{hybrid[1:]} does not beat all three deciding training sets on test-R: {told}.", "not kept")
    if "undecided" in found:
        lead = "beats all three deciding training sets on test-R is undecided"
        return Verdict(f"Whether {hybrid} {lead}: {told}.", "undecided")
    return Verdict(
        f"T{hybrid[1:]} was not compared with all three deciding training sets on test-R: {told}.", "not measured"
    )


def _against(scores: Scores, key: str, name: str, network: str | None) -> Verdict:
    rival = title_of(scores, key, name)
    found = find_comparison(scores, "hybrid", key, network)
    if found is None:
        return _uncompared(scores, key, f"The hybrid against “{rival}”", network)
    words = {"kept": "beats", "not kept": "falls behind", "undecided": "cannot be told from"}[found["ordering"]]
    return Verdict(f"The hybrid {words} “{rival}”: {_difference(scores, found)}.", found["ordering"])


def _hybrid_minus_synthetic(scores: Scores, network: str | None) -> Verdict:
    names = f"The hybrid minus “{title_of(scores, 'synthetic', 'synthetic')}”"
    found = find_comparison(scores, "hybrid", "synthetic", network)
    if found is None:
        return _uncompared(scores, "synthetic", names, network)
    return Verdict(f"{names}: {_difference(scores, found)}.", found["ordering"])


def _uncompared(scores: Scores, key: str, names: str, network: str | None) -> Verdict:
    """Two scores side by side where no paired comparison was made: figures, but no claim."""
    first, second = (_miou_of(scores, row, network) for row in ("hybrid", key))
    if first is None or second is None:
        return Verdict(f"{names}: not measured.", "not measured")
    figures = f"{number(first)} and {number(second)} {metric_name(scores)} on test-R"
    return Verdict(f"{names}: {figures}, not compared in pairs.", "not measured")


def _miou_of(scores: Scores, key: str, network: str | None) -> float | None:
    rows = [row for row in scores.get("rows") or [] if row["row"] == key and network in (None, row.get("network"))]
    return score_of(rows[0], "test_r").get("miou") if rows else None


def _difference(scores: Scores, comparison: Mapping[str, Any]) -> str:
    """`+0.034 mIoU on test-R (mean of 3 segmenter seeds), 95 % interval +0.012 to +0.055: kept`."""
    interval, pairs = comparison.get("interval"), comparison.get("pairs")
    seeds = f" (mean of {pairs} segmenter seeds)" if pairs and pairs > 1 else " (one segmenter seed)" if pairs else ""
    bounds = f"95 % interval {signed(interval[0])} to {signed(interval[1])}" if interval else "no interval"
    contains = " (the interval contains 0)" if comparison["ordering"] == "undecided" and interval else ""
    difference = f"{signed(comparison['difference'])} {metric_name(scores)} on test-R{seeds}"
    return f"{difference}, {bounds}: {comparison['ordering']}{contains}"


def _above_floor(scores: Scores, network: str | None) -> list[Verdict]:
    """Where the synthetic row stands above the best trivial answer; nothing where either is missing."""
    best, score = best_floor(scores, "test_r"), _miou_of(scores, "synthetic", network)
    if best is None or score is None:
        return []
    name, floor = best
    side = "above" if score >= floor else "below"
    distance = f"{number(abs(score - floor))} {side} the best baseline ({name}, {number(floor)})"
    title = title_of(scores, "synthetic", "synthetic")
    return [Verdict(f"“{title}” reaches {number(score)} {metric_name(scores)} on test-R, {distance}.", "")]


def _nothing_above_floor(scores: Scores, network: str | None) -> list[Verdict]:
    """A warning to stand first where a trivial answer is at least as good as every row."""
    best = best_floor(scores, "test_r")
    reached = [_miou_of(scores, row["row"], network) for row in scores.get("rows") or []]
    measured = [score for score in reached if score is not None]
    if best is None or not measured or max(measured) > best[1]:
        return []
    name = f"{best[0]}, {number(best[1])}"
    text = f"No training set reaches the best trivial baseline on test-R ({name}): the orderings mean nothing."
    return [Verdict(text, "")]


def best_floor(scores: Scores, test: str) -> tuple[str, float] | None:
    """Name and height of the highest trivial answer on a test set; None when none was measured."""
    floors = (scores.get("floors") or {}).get(test) or {}
    heights = {name.replace("_", " "): floor["miou"] for name, floor in floors.items() if floor.get("miou") is not None}
    return max(heights.items(), key=lambda item: item[1]) if heights else None
