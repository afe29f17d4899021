"""The notebook runs from top to bottom on the smoke profile, and is kept without outputs."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import medseg_gan

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "label_factory.ipynb"
PROMISED = ("run_recipe", "load_volume", "FeatureExtractor", "LabelFactory")


def cells() -> list[dict[str, object]]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    found: list[dict[str, object]] = document["cells"]
    return found


def test_cells_are_well_formed_and_have_no_outputs() -> None:
    names = [cell["id"] for cell in cells()]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", str(name)) for name in names)
    for cell in cells():
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_it_runs_from_top_to_bottom(smoke_run: Path, tmp_path: Path) -> None:
    """In a process of its own; its run is the finished one that other tests look at, which it keeps."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "notebook").symlink_to(smoke_run)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    words = [sys.executable, str(Path(__file__).with_name("notebook_cells.py")), str(NOTEBOOK)]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("kept") == 8 and "16 pairs; index" in result.stdout
    with open(tmp_path / "runs" / "notebook-pairs" / "manifest.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 16


def test_it_shows_what_the_package_promises_and_all_of_that_is_documented() -> None:
    code = "".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code")  # type: ignore[arg-type]
    for name in PROMISED:
        assert re.search(rf"\b{name}\(|\b{name}\.", code), f"the notebook does not use {name}"
    for name in medseg_gan._EXPORTS:
        text = getattr(medseg_gan, name).__doc__
        assert text and "Example" in text, f"{name} has no example in its docstring"


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, medseg_gan; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
