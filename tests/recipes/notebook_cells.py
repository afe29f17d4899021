"""Execute the code cells of a notebook in order, as its kernel would: `notebook_cells.py NOTEBOOK`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

names: dict[str, Any] = {"__name__": "__main__"}
for number, cell in enumerate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
