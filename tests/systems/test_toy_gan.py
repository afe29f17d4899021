"""A third system is one folder and one line in `SYSTEMS`; all it shares, it gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medseg_gan.api import run_recipe
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.systems import SYSTEMS, System

FOLDER = Path(__file__).with_name("toy_gan")
TOY = System(recipe="toy_gan.recipe:ToyRecipe", stages="toy_gan:STAGES")
RUN = f"""
import sys
sys.path.insert(0, {str(FOLDER.parent)!r})
from medseg_gan.systems import SYSTEMS, System
SYSTEMS["toy_gan"] = System(recipe="toy_gan.recipe:ToyRecipe", stages="toy_gan:STAGES")
from medseg_gan.api import run_recipe
run_recipe({str(FOLDER / "toy_gan.yaml")!r}, out=sys.argv[1], sets=["train_gan.kimg=4"])
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "toy_gan", TOY)


def run(out: Path, *sets: str) -> Path:
    return run_recipe(str(FOLDER / "toy_gan.yaml"), out=out, sets=sets, say=lambda line: None)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out / "02-train_gan" / "main-0" / "G.pt")["G"]


def test_a_system_is_at_most_two_hundred_lines_and_leaves_all_that_systems_leave(tmp_path: Path) -> None:
    lines = sum(len(path.read_text().splitlines()) for path in FOLDER.glob("*.py"))
    assert lines <= 200
    out = run(tmp_path / "run")
    for arm in ("main", "free"):
        attempt = out / "02-train_gan" / f"{arm}-0" / "attempt-1"
        assert (attempt / "stats.jsonl").is_file() and list((attempt / "samples").glob("*.png"))
        assert (out / "03-synthesize" / f"{arm}-0" / "pictures.json").is_file()
        assert list((out / "04-train_segmenters" / f"{arm}-0").glob("weights-*.pt"))
    assert (out / "report" / "index.html").is_file()
    assert len(json.loads((out / "report" / "report.json").read_text())["sections"]) == 1


def test_arms_differ_and_a_trivial_solution_begins_anew(tmp_path: Path) -> None:
    out = run(tmp_path / "run", "train_gan.least_area=0.9")
    folder = out / "02-train_gan" / "main-0"
    assert [one["trivial"] for one in json.loads((folder / "attempts.json").read_text())] == ["all as background"]
    assert load_checkpoint(folder / "G.pt")["attempts"] == 2
    free = load_checkpoint(folder.with_name("free-0") / "G.pt")["G"]
    assert any(not torch.equal(free[name], value) for name, value in weights(out).items())


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    script = [sys.executable, "-c", RUN, str(tmp_path / "killed")]
    process = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    training = tmp_path / "killed" / "02-train_gan" / "main-0"
    deadline = time.monotonic() + 240
    while not list(training.glob("attempt-1/checkpoint-*.pt")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (training / "G.pt").is_file(), "killed too late to show anything"
    killed, whole = (run(tmp_path / name, "train_gan.kimg=4") for name in ("killed", "whole"))
    for name, value in weights(whole).items():
        assert torch.equal(weights(killed)[name], value), name
