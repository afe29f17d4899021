"""The smoke profile end to end: every stage and training set of DatasetGAN, run once for all tests here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_gan.api import run_recipe
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint

STAGES = ["prepare", "train_gan", "annotate", "train_interpreter", "synthesize", "train_segmenters", "evaluate"]
ROWS = {"synthetic", "real", "hybrid", "real30", "real30_spread", "annotated_only", "annotated_real", "pseudo_label"}


@pytest.fixture(scope="module")
def run(smoke_run: Path) -> Path:
    return smoke_run


def folder(run: Path, stage: str) -> Path:
    return run / f"{STAGES.index(stage) + 1:02d}-{stage}"


def test_every_stage_finishes_and_the_report_is_written(run: Path) -> None:
    assert [name for name in STAGES if (folder(run, name) / "done.json").is_file()] == STAGES
    for name in ("index.html", "report.json", "rows.csv", "classes.csv", "floors.csv", "comparisons.csv", "stages.csv"):
        assert (run / "report" / name).stat().st_size > 0


def test_every_row_is_scored_on_every_test_set_beside_its_cost(run: Path) -> None:
    scores = json.loads((folder(run, "evaluate") / "scores.json").read_text())
    assert {row["row"] for row in scores["rows"]} == ROWS
    for row in scores["rows"]:
        assert set(row["scores"]) == {"test_r", "test_g[factory]", "test_g[annotator]"}
        assert row["steps"] == 6
    cost = {row["row"]: row["cost"] for row in scores["rows"]}
    assert cost["synthetic"]["real_slices"] == 0 and cost["synthetic"]["stand_in_patients"] == 2
    assert cost["hybrid"]["real_slices"] == 4 and cost["hybrid"]["real_patients"] == 2
    assert cost["annotated_only"]["annotated_synthetic"] == 4
    assert set(scores["floors"]["test_r"]) == {"all_background", "position", "intensity", "untrained"}
    assert scores["annotator"]["kind"] == "segmenter"


def test_patients_never_leak_between_pools(run: Path) -> None:
    store = SliceStore.open(folder(run, "prepare"))
    pools = {pool: set(store.patients(pool)) for pool in ("gan", "labelled", "test", "annotator")}
    assert all(pools.values())
    assert sum(len(patients) for patients in pools.values()) == len(set.union(*pools.values()))
    assert not store.indices("gan", labelled=True).size  # no label reaches the GAN's pool


def test_test_g_shares_no_sample_with_anything_trained_on(run: Path) -> None:
    names = {
        where: {record.case for record in SliceStore.open(folder(run, stage) / where).records}
        for stage, where in (
            ("annotate", "annotated"),
            ("annotate", "held_out"),
            ("synthesize", "train"),
            ("synthesize", "test_g"),
        )
    }
    assert sum(len(cases) for cases in names.values()) == len(set.union(*names.values()))


def test_the_same_command_keeps_everything(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("done.json")}
    said: list[str] = []
    run_recipe("segthor_datasetgan", profile="smoke", out=run, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("done.json")} == before
    assert sum("kept" in line for line in said) == 8


def test_changed_settings_are_refused_with_what_changed(run: Path) -> None:
    with pytest.raises(MedsegError, match=r"train_gan: settings changed .*lr: 0\.005 -> 0\.001.*--rerun train_gan"):
        run_recipe("segthor_datasetgan", profile="smoke", out=run, sets=["train_gan.lr=0.001"])


def test_killed_during_training_goes_on_to_the_same_weights(run: Path, tmp_path: Path) -> None:
    """kill -9 after the second checkpoint; the final generator is bit-equal to the uninterrupted run's."""
    command = [sys.executable, "-m", "medseg_gan", "recipe", "segthor_datasetgan", "--profile", "smoke"]
    command += ["--out", str(tmp_path / "run"), "--until", "train_gan"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    training = tmp_path / "run" / "02-train_gan"
    while not list(training.glob("checkpoint-*.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (training / "done.json").exists(), "it was to be killed before its end"
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    ours = load_checkpoint(training / "G_ema.pt")["state_dict"]
    theirs = load_checkpoint(folder(run, "train_gan") / "G_ema.pt")["state_dict"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_generated_labels_are_those_of_the_factory(run: Path) -> None:
    train = SliceStore.open(folder(run, "synthesize") / "train")
    assert len(train) == 16
    assert set(np.unique(train.labels)) <= set(range(6))
    assert np.load(folder(run, "synthesize") / "train" / "uncertainty.npy").min() >= 0


def test_torchrun_runs_the_whole_recipe(tmp_path: Path) -> None:
    """Two processes share the GAN's training; one of them does the rest, and a single process keeps all of it."""
    recipe = ["medseg_gan", "recipe", "segthor_datasetgan", "--profile", "smoke", "--out", str(tmp_path / "run")]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*start, *recipe], capture_output=True, text=True, timeout=600, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("report: ") == 1  # only the first process speaks
    again = subprocess.run([sys.executable, "-m", *recipe], capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and again.stdout.count("kept") == 8, again.stdout + again.stderr
