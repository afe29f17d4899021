"""How values read: numbers, times and memory as text for a page, records as CSV, anything as plain JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Record = dict[str, Any]

NOT_MEASURED = "not measured"


def number(value: Any, digits: int = 3) -> str:
    """A number as the page shows it; what is missing or not finite was not measured."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_MEASURED
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:.{digits}f}"  # narrow space


def shown(value: Any) -> str:
    """A cell of unknown kind as the page shows it: text as it is, numbers of any size with 3 digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value) and value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("-", "−")
    return number(value).replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign, `+0.034` or `−0.034`."""
    return f"{value:+.3f}".replace("-", "−")


def stage_lines(stages: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Time and memory of each stage, with its share of the whole for a bar, and a total at the end."""
    found = list(stages)
    seconds = [stage.get("seconds") for stage in found]
    total = sum(second for second in seconds if second is not None)
    lines = [
        {
            "name": stage.get("name", ""),
            "time": duration(second),
            "share": 100 * second / total if second is not None and total else 0.0,
            "memory": memory(stage.get("peak_mb")),
        }
        for stage, second in zip(found, seconds, strict=True)
    ]
    peaks = [stage["peak_mb"] for stage in found if stage.get("peak_mb") is not None]
    whole = {"name": "all stages", "time": duration(total), "share": 0.0, "memory": memory(max(peaks, default=None))}
    return [*lines, whole] if lines else []


def duration(seconds: float | None) -> str:
    """`45.2 s`, `8 min 05 s`, `2 h 04 min`."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def memory(megabytes: float | None) -> str:
    """`850 MB`, `2.41 GB`."""
    if megabytes is None:
        return NOT_MEASURED
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2f} GB"


def csv_text(records: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> str:
    """Records as CSV with a header of the keys `first`, then every other that occurs; missing values are empty."""
    columns = list(dict.fromkeys([*first, *(key for record in records for key in record)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in record.items()} for record in records)
    return text.getvalue()


def plain(value: Any) -> Any:
    """Values as JSON has them: numpy numbers as numbers, tuples as lists, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
