"""The tables of a report as the page shows them: every value already a short text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medseg_gan.report.values import NOT_MEASURED, Record, number, signed
from medseg_gan.systems.datasetgan.rows import DECIDING

Scores = Mapping[str, Any]

TESTS = {"test_r": "test-R", "test_g[factory]": "test-G[factory]", "test_g[annotator]": "test-G[annotator]"}
"""Test sets in the order of the page; the two test-G hold the same images under two labels."""
COSTS = (
    "real_slices",
    "real_patients",
    "stand_in_slices",
    "stand_in_patients",
    "annotated_synthetic",
    "synthetic_pairs",
    "pseudo_slices",
)


def metric_name(scores: Scores) -> str:
    """`mIoU`, or the name the score goes by when its truth is itself a rule."""
    name = scores.get("score_name") or "mIoU"
    return name if "mIoU" in name else f"{name} (mIoU)"


def mean_sd(score: Mapping[str, Any]) -> str:
    """`0.847 ± 0.006`; without the ± where one training alone gives no spread."""
    single = "per_seed" in score and len(score["per_seed"]) < 2
    spread = "" if single or score.get("sd") is None else f" ± {number(score['sd'])}"
    return number(score.get("miou")) + (spread if score.get("miou") is not None else "")


def interval_text(interval: Sequence[float] | None) -> str:
    """`0.83 to 0.86`, three digits each."""
    return f"{number(interval[0])} to {number(interval[1])}" if interval else NOT_MEASURED


def score_of(row: Mapping[str, Any], test: str, protocol: str = "clean") -> Mapping[str, Any]:
    """Score of a row on a test set under a protocol; empty when it was not measured."""
    return ((row.get("scores") or {}).get(test) or {}).get(protocol) or {}


def title_of(scores: Scores, key: str, default: str) -> str:
    """Title of the first row of that key, or `default` when it was not trained."""
    return next((row["title"] for row in scores.get("rows") or [] if row["row"] == key), default)


def several_networks(scores: Scores) -> bool:
    """True when rows must be told apart by their network."""
    return len({row.get("network") for row in scores.get("rows") or []}) > 1


def row_name(scores: Scores, row: Mapping[str, Any]) -> str:
    """Title of a row, with its network where there are several."""
    return f"{row['title']} ({row['network']})" if several_networks(scores) else str(row["title"])


def cost_lines(scores: Scores) -> list[Record]:
    """What each training set cost in labels: one line for each row key, whatever the network.

    Real labelled slices used directly and through the stand-in annotator add up: their patients never overlap.
    """
    lines: dict[str, Record] = {}
    for row in scores.get("rows") or []:
        cost = row.get("cost") or {}
        line = {"title": row["title"], "deciding": row["row"] in DECIDING}
        for name in COSTS:
            line[name] = number(cost.get(name))
        line |= {f"all_{what}": _behind(cost, what) for what in ("slices", "patients")}
        lines.setdefault(row["row"], line)
    return list(lines.values())


def _behind(cost: Mapping[str, Any], what: str) -> str:
    """Real labelled slices (or patients) behind a row: its own and those of the stand-in that labelled for it."""
    parts = cost.get(f"real_{what}"), cost.get(f"stand_in_{what}")
    return NOT_MEASURED if None in parts else number(sum(part for part in parts if part))


def _training(row: Mapping[str, Any]) -> str:
    """`3 seeds × 1200 steps`, as far as it is known."""
    seeds = len(row.get("segmenter_seeds") or [])
    parts = [f"{seeds} seed{'s' if seeds > 1 else ''}" if seeds else ""]
    parts.append(f"{number(row['steps'])} steps" if row.get("steps") is not None else "")
    return " × ".join(part for part in parts if part)


def score_lines(scores: Scores, paper_rows: Iterable[Mapping[str, str]] = ()) -> list[Record]:
    """The main table: one line for each row and network, with the paper's own figure for the row beside it."""
    paper = list(paper_rows)
    lines = []
    for row in scores.get("rows") or []:
        real, cost = score_of(row, "test_r"), row.get("cost") or {}
        published = _paper_line(paper, row)
        lines.append(
            {
                "name": row_name(scores, row),
                "deciding": row["row"] in DECIDING,
                "training": _training(row),
                "real_labels": f"{_behind(cost, 'slices')} / {_behind(cost, 'patients')}",
                "annotated": number(cost.get("annotated_synthetic")),
                "test_r": mean_sd(real),
                "interval": interval_text(real.get("interval")),
                "foreground": number(real.get("foreground_miou")),
                "seed_protocol": mean_sd(score_of(row, "test_r", "seed")),
                "test_g_factory": mean_sd(score_of(row, "test_g[factory]")),
                "test_g_annotator": mean_sd(score_of(row, "test_g[annotator]")),
                "paper_g": published.get("test_g", ""),
                "paper_r": published.get("test_r", ""),
            }
        )
    return lines


def _paper_line(paper_rows: Iterable[Mapping[str, str]], row: Mapping[str, Any]) -> Mapping[str, str]:
    """The paper's line for this row; one that names a network belongs to that network only."""
    for line in paper_rows:
        if line.get("row") == row["row"] and line.get("network") in (None, row.get("network")):
            return line
    return {}


def unmatched_paper_rows(scores: Scores, paper_rows: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The paper's lines that stand beside no row of ours."""
    paper = list(paper_rows)
    used = [id(_paper_line(paper, row)) for row in scores.get("rows") or []]
    return [line for line in paper if id(line) not in used]


def floor_lines(scores: Scores) -> list[Record]:
    """Trivial answers, one line each, over all test sets they were measured on."""
    floors = scores.get("floors") or {}
    names = list(dict.fromkeys(name for test in floors.values() for name in test or {}))

    def of(name: str, test: str, key: str = "miou") -> str:
        return number(((floors.get(test) or {}).get(name) or {}).get(key))

    return [
        {
            "name": name.replace("_", " "),
            "test_r": of(name, "test_r"),
            "foreground": of(name, "test_r", "foreground_miou"),
            "test_g_factory": of(name, "test_g[factory]"),
            "test_g_annotator": of(name, "test_g[annotator]"),
        }
        for name in names
    ]


def class_lines(scores: Scores, test: str, measure: str) -> list[Record]:
    """Per-class values of every row that has them, keyed by class, baselines after them.

    Args:
        scores: the scores.
        test: one of `TESTS`.
        measure: `iou` or `dice`; baselines have no Dice.
    """
    baselines = (scores.get("floors") or {}).get(test) or {}
    found = [(row_name(scores, row), score_of(row, test)) for row in scores.get("rows") or []]
    found += [(f"baseline: {name.replace('_', ' ')}", floor) for name, floor in baselines.items()]
    classes = scores.get("classes") or []
    return [
        {"name": name, **{key: number(value) for key, value in zip(classes, values, strict=False)}}
        for name, score in found
        if (values := score.get(f"{measure}_per_class"))
    ]


def short_lines(scores: Scores) -> list[Record]:
    """The small table that opens the page: test-R with its interval, test-G, and the labels each row cost."""
    return [
        {
            "name": line["name"],
            "deciding": line["deciding"],
            "test_r": line["test_r"] + (f"\n{line['interval']}" if line["interval"] != NOT_MEASURED else ""),
            "test_g": line["test_g_annotator"],
            "cost": line["real_labels"],
        }
        for line in score_lines(scores)
    ]


def volume_lines(scores: Scores) -> list[Record]:
    """Dice and HD95 of every row's first segmenter on the volumes' own grids, by class."""
    rows = (scores.get("volumes") or {}).get("rows") or []
    titles = {row["row"]: row["title"] for row in scores.get("rows") or []}
    several = several_networks(scores)
    return [
        {
            "name": titles.get(row["row"], row["row"]) + (f" ({row['network']})" if several else ""),
            "class": name.replace("_", " "),
            "volumes": number(found.get("volumes")),
            "missed": number(found.get("missed")),
            "dice": number(found.get("dice")),
            "hd95": number(found.get("hd95_mm"), 1),
        }
        for row in rows
        for name, found in row["classes"].items()
    ]


def other_readings(scores: Scores) -> list[Record]:
    """The same predictions on test-R read in other ways: per image, absent classes left out, Dice."""
    lines = []
    for row in scores.get("rows") or []:
        score = score_of(row, "test_r")
        dice = [value for value in score.get("dice_per_class") or [] if value is not None and math.isfinite(value)]
        lines.append(
            {
                "name": row_name(scores, row),
                "per_seed": ", ".join(number(value) for value in score.get("per_seed") or []) or NOT_MEASURED,
                "nanmean": number(score.get("nanmean_miou")),
                "per_image": number(score.get("per_image_miou")),
                "dice": number(sum(dice) / len(dice) if dice else None),
            }
        )
    return lines


def comparison_lines(scores: Scores) -> list[Record]:
    """Every paired comparison, in the order it was made."""
    return [
        {
            "a": title_of(scores, comparison["a"], comparison["a"]),
            "b": title_of(scores, comparison["b"], comparison["b"]),
            "network": (several_networks(scores) and comparison.get("network")) or "",
            "test": TESTS.get(comparison.get("test", ""), comparison.get("test", "")),
            "difference": signed(comparison["difference"]),
            "interval": (
                f"{signed(comparison['interval'][0])} to {signed(comparison['interval'][1])}"
                if comparison.get("interval")
                else NOT_MEASURED
            ),
            "ordering": comparison.get("ordering", "undecided"),
            "pairs": number(comparison.get("pairs")),
        }
        for comparison in scores.get("comparisons") or []
    ]


def rejected_lines(interpreter: Mapping[str, Any]) -> list[Record]:
    """Generated slices without a plausible answer: all of them, then by reason where reasons are given."""
    rejected = interpreter.get("rejected")
    if not isinstance(rejected, Mapping):
        return [{"reason": "all", "count": number(rejected)}]
    reasons = [{"reason": reason, "count": number(count)} for reason, count in rejected.items()]
    return [{"reason": "all", "count": number(sum(rejected.values()))}, *reasons]
