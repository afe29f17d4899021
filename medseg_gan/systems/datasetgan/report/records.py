"""The tables of a report as data: unrounded scores as records for CSV and JSON."""

from __future__ import annotations

from medseg_gan.report.values import Record
from medseg_gan.systems.datasetgan.report.tables import COSTS, Scores, metric_name, score_of

PROTOCOLS = ("clean", "seed")


def row_records(scores: Scores) -> list[Record]:
    """`rows.csv`: one record for each row, test set and protocol that was measured."""
    records = []
    for row in scores.get("rows") or []:
        for test in row.get("scores") or {}:
            for protocol in PROTOCOLS:
                score = score_of(row, test, protocol)
                if not score:
                    continue
                low, high = score.get("interval") or (None, None)
                records.append(
                    {
                        "row": row["row"],
                        "title": row["title"],
                        "network": row.get("network"),
                        "test": test,
                        "protocol": protocol,
                        "score_name": metric_name(scores),
                        "miou": score.get("miou"),
                        "sd": score.get("sd"),
                        "interval_low": low,
                        "interval_high": high,
                        "foreground_miou": score.get("foreground_miou"),
                        "per_image_miou": score.get("per_image_miou"),
                        "nanmean_miou": score.get("nanmean_miou"),
                        "segmenter_seeds": len(row.get("segmenter_seeds") or []),
                        "steps": row.get("steps"),
                        **{name: (row.get("cost") or {}).get(name) for name in COSTS},
                    }
                )
    return records


def class_records(scores: Scores) -> list[Record]:
    """`classes.csv`: IoU and Dice of every class, for each row and test set, protocol `clean`."""
    records = []
    for row in scores.get("rows") or []:
        for test in row.get("scores") or {}:
            score = score_of(row, test)
            ious, dices = score.get("iou_per_class") or [], score.get("dice_per_class") or []
            for k, name in enumerate(scores.get("classes") or []):
                records.append(
                    {
                        "row": row["row"],
                        "network": row.get("network"),
                        "test": test,
                        "class": name,
                        "iou": ious[k] if k < len(ious) else None,
                        "dice": dices[k] if k < len(dices) else None,
                    }
                )
    return records


def floor_records(scores: Scores) -> list[Record]:
    """`floors.csv`: every trivial answer on every test set, with its IoU by class."""
    classes = scores.get("classes") or []
    return [
        {
            "test": test,
            "floor": name,
            "miou": floor.get("miou"),
            "foreground_miou": floor.get("foreground_miou"),
            **{f"iou_{label}": iou for label, iou in zip(classes, floor.get("iou_per_class") or [], strict=False)},
        }
        for test, floors in (scores.get("floors") or {}).items()
        for name, floor in (floors or {}).items()
    ]


def comparison_records(scores: Scores) -> list[Record]:
    """`comparisons.csv`: paired differences with their interval and what follows for the ordering."""
    return [
        {
            "a": comparison["a"],
            "b": comparison["b"],
            "network": comparison.get("network"),
            "test": comparison.get("test"),
            "difference": comparison["difference"],
            "interval_low": (comparison.get("interval") or (None, None))[0],
            "interval_high": (comparison.get("interval") or (None, None))[1],
            "ordering": comparison.get("ordering"),
            "pairs": comparison.get("pairs"),
        }
        for comparison in scores.get("comparisons") or []
    ]
