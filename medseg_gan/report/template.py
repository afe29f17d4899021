"""Pages from templates: all values are escaped, and a missing value is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from medseg_gan.report.values import NOT_MEASURED, number


def fill(template: str, **values: Any) -> str:
    """A template of this folder filled with `values`; all of them also know how numbers are shown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(number=number, not_measured=NOT_MEASURED)
    return environment.get_template(template).render(**values)
