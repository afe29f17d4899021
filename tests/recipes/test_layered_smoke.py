"""The smoke profile of the layered GAN end to end: every stage, arm and training, run once for all tests here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg_gan.api import run_recipe
from medseg_gan.data.pictures import PictureStore
from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.systems.plan import plan_recipe

STAGES = ["prepare", "train_gan", "synthesize", "train_segmenters", "evaluate"]
RECIPE = plan_recipe("cub_layered", profile="smoke").recipe.settings.sections
ARMS = list(RECIPE["train_gan"].arms)
TRAININGS = [f"{arm}-{seed}" for seed in range(RECIPE["train_gan"].seeds) for arm in ARMS]
COMMAND = [sys.executable, "-m", "medseg_gan", "recipe", "cub_layered", "--profile", "smoke"]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by the command itself."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    ended = call("--out", str(out))
    assert ended.returncode == 0, ended.stderr
    return out


def folder(run: Path, stage: str) -> Path:
    return run / f"{STAGES.index(stage) + 1:02d}-{stage}"


@pytest.fixture(scope="module")
def scores(run: Path) -> dict[str, Any]:
    return json.loads((folder(run, "evaluate") / "scores.json").read_text())


def test_every_stage_finishes_and_the_report_is_written(run: Path) -> None:
    assert [name for name in STAGES if (folder(run, name) / "done.json").is_file()] == STAGES
    for name in ("index.html", "report.json", "scores.csv", "trainings.csv", "distances.csv", "stages.csv"):
        assert (run / "report" / name).stat().st_size > 0


def test_the_report_holds_every_arm_training_floor_and_the_ceiling(run: Path, scores: dict[str, Any]) -> None:
    report = json.loads((run / "report" / "report.json").read_text())
    assert report["data"]["scores"] == scores
    assert list(scores["arms"]) == ARMS
    assert [f"{one['arm']}-{one['seed']}" for one in scores["trainings"]] == TRAININGS
    assert set(scores["floors"]) == {"all_foreground", "all_background", "centred_disc", "grabcut"}
    assert scores["floors"]["all_background"]["iou"] == 0
    for one in [*scores["trainings"], scores["ceiling"], *scores["floors"].values()]:
        assert all(0 <= one[name] <= 1 for name in ("acc", "iou", "iou_img", "miou"))
    for one in scores["trainings"]:
        assert one["interval"][0] <= one["interval"][1]
        assert one["attempts"][-1]["iteration"] == RECIPE["train_gan"].of_arm(one["arm"]).iterations


def test_distances_stand_beside_their_floor(scores: dict[str, Any]) -> None:
    assert scores["distance_floor"] >= 0
    assert (scores["distance"]["n_real"], scores["distance"]["n_fake"]) == (64 + 12 + 12, 100)
    for one in scores["trainings"]:
        assert one["image_distance"] > 0 and one["background_distance"] > 0
        assert one["gap"] == pytest.approx(one["background_distance"] - one["image_distance"])


def test_categorical_codes_are_compared_with_classes_and_gaussian_ones_are_not(scores: dict[str, Any]) -> None:
    nmi = {one["arm"]: one["nmi"] for one in scores["trainings"]}
    assert nmi["gaussian"] is None
    assert all(0 <= nmi[arm] <= 1 for arm in ARMS if arm != "gaussian")


def test_the_page_shows_the_papers_own_tables_marked_as_such(run: Path) -> None:
    page = (run / "report" / "index.html").read_text()
    for words in ("table 2", "table 3", "table 4", "table 5"):
        assert f"The paper&#39;s {words}" in page or f"The paper's {words}" in page
    assert "not run here" in page
    assert "no photograph was seen" in page


def test_page_names_what_each_arm_changes(run: Path) -> None:
    text = (run / "report" / "distances.csv").read_text()
    assert "gamma_mi 0" in text and "size_weight 2" in text


def test_nothing_real_reaches_a_final_segmenter_but_the_ceilings(run: Path) -> None:
    for training in TRAININGS:
        store = PictureStore.open(folder(run, "synthesize") / training)
        assert store.dataset == "generated" and len(store) == 60
        about = json.loads((folder(run, "train_segmenters") / training / "training.json").read_text())
        assert about["slices"] == [54] and about["loss"] == "soft_ce"
    about = json.loads((folder(run, "train_segmenters") / "supervised" / "training.json").read_text())
    assert about["slices"] == [64] and about["loss"] == "ce"


def test_predictions_are_kept_of_every_training(run: Path) -> None:
    for training in TRAININGS:
        pred = np.load(folder(run, "evaluate") / "predictions" / f"{training}.npy")
        assert pred.shape == (12, 16, 16) and set(np.unique(pred)) <= {0, 1}


def test_arms_of_a_seed_begin_alike(run: Path) -> None:
    for arm in ARMS:
        attempts = load_checkpoint(folder(run, "train_gan") / f"{arm}-0" / "layered.pt")["attempts"]
        first = load_checkpoint(folder(run, "train_gan") / "main-0" / "layered.pt")["attempts"]
        assert attempts[0]["seed"] == first[0]["seed"]


def test_the_same_command_keeps_everything(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("done.json")}
    said: list[str] = []
    run_recipe("cub_layered", profile="smoke", out=run, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("done.json")} == before
    assert sum("kept" in line for line in said) == len(STAGES) + 1


def test_changed_arms_are_refused_with_what_changed(run: Path) -> None:
    with pytest.raises(MedsegError, match=r"train_gan: settings changed .*arms.*--rerun train_gan"):
        run_recipe("cub_layered", profile="smoke", out=run, sets=["train_gan.arms={main: {}}"])


def test_killed_during_training_goes_on_to_the_same_weights(run: Path, tmp_path: Path) -> None:
    """kill -9 once a training has a checkpoint; all trainings then end bit-equal to the uninterrupted run's."""
    words = ["--out", str(tmp_path / "run"), "--until", "train_gan"]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    stage = tmp_path / "run" / "02-train_gan"
    while not list(stage.glob("no_mi-0/attempt-*/*.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (stage / "done.json").exists(), "it was to be killed before its end"
    assert call(*words).returncode == 0
    for training in TRAININGS:
        ours, theirs = (load_checkpoint(at / training / "layered.pt") for at in (stage, folder(run, "train_gan")))
        assert ours["attempts"] == theirs["attempts"]
        for network in ("G", "D", "F"):
            assert ours[network].keys() == theirs[network].keys()
            assert all(torch.equal(ours[network][name], theirs[network][name]) for name in ours[network])
