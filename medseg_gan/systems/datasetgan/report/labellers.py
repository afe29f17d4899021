"""The report on the labeller: how it was chosen, and how well its probabilities are calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg_gan.report.document import DataTable
from medseg_gan.report.values import Record, number


def selection_lines(interpreter: Mapping[str, Any]) -> list[Record]:
    """A line for each labeller that cross-validation tried: figures, distance from the best, and what was decided."""
    selection = interpreter.get("selection") or {}
    lines = []
    for name, found in (selection.get("candidates") or {}).items():
        verdict = "taken" if name == selection.get("chosen") else "tie" if found.get("tie") else "behind"
        best = name == selection.get("best")
        behind = "best" if best else f"{number(found.get('behind'))} ± {number(found.get('standard_error'))}"
        lines.append(
            {
                "labeller": name.replace("_", " "),
                "miou": number(found.get("miou")),
                "behind": behind,
                "verdict": verdict,
                "held_out": number(found.get("held_out_mean_of_folds")),
            }
        )
    return lines


def selection_table(interpreter: Mapping[str, Any], metric: str) -> list[DataTable]:
    """How the labeller was chosen; none where there was no choice."""
    columns = [
        ("labeller", "labeller"),
        ("miou", "left-out slices"),
        ("behind", "behind the best"),
        ("verdict", "verdict"),
        ("held_out", "held-out slices"),
    ]
    note = (
        "Chosen by cross-validation on the annotated slices: a labeller ties with the best where the mean difference "
        "over "
        "folds is within its standard error; of those the simplest is taken. Held-out slices: mean "
        f"{metric} of the folds’ networks."
    )
    lines = selection_lines(interpreter)
    return [DataTable("", columns, lines, note, heading="Choice of the labeller")] if lines else []


def calibration_sentence(interpreter: Mapping[str, Any]) -> str:
    """The expected calibration error before and after; empty where it was not measured."""
    before, after = interpreter.get("calibration_error"), interpreter.get("calibrated_error")
    if not before:
        return ""
    text = f"Expected calibration error on the held-out slices: {number(before['given'])} of the class given"
    text += f", {number(before['mean_of_classes'])} in the mean of the classes' own probabilities"
    if not after:
        return f"{text}; the probabilities are not calibrated."
    return f"{text}; after calibration {number(after['given'])} and {number(after['mean_of_classes'])}."
