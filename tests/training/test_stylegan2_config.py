"""The published configurations, and how a recipe takes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from medseg_gan.errors import UsageError
from medseg_gan.running.recipe import load_recipe, resolved_text
from medseg_gan.systems.plan import plan_recipe
from medseg_gan.training.cadence import steps_of
from medseg_gan.training.stylegan2 import check_processes
from medseg_gan.training.stylegan2_config import ConfigName, Pipe, StyleGAN2Training, published_config
from stylegan2_ada_pytorch import AUGMENT_PIPES

SYSTEM = {"datasetgan": "medseg_gan.systems.datasetgan.recipe:DatasetGanRecipe"}
BARE = "recipe: bare\nsystem: datasetgan\ndataset: none\nsource: nobody\nhours: 1\n"


def train_gan(tmp_path: Path, *sets: str, text: str = BARE) -> Any:
    (tmp_path / "bare.yaml").write_text(text)
    return load_recipe(str(tmp_path / "bare.yaml"), SYSTEM, sets=sets).settings.train_gan


@pytest.mark.parametrize(
    ("gpus", "batch", "gamma", "ema"), [(1, 16, 0.8192, 5.0), (2, 32, 0.4096, 10.0), (8, 64, 0.2048, 20.0)]
)
def test_auto_goes_by_size_and_gpus(gpus: int, batch: int, gamma: float, ema: float) -> None:
    found = published_config("auto", 256, gpus)
    assert (found["batch_size"], found["mbstd_group"], found["mapping_layers"]) == (batch, 4, 2)
    assert (found["r1_gamma"], found["ema_kimg"], found["ema_rampup"]) == (pytest.approx(gamma), ema, 0.05)
    assert (found["channel_base"], found["lr"]) == (16_384, 0.0025)


def test_auto_grows_with_the_images() -> None:
    assert published_config("auto", 512)["channel_base"] == 32_768
    assert published_config("auto", 1024)["lr"] == 0.002


def test_auto_at_256_on_one_gpu_is_the_default_training() -> None:
    """All but the weight of R1, which the demo's images want a little larger."""
    auto = StyleGAN2Training(**published_config("auto", 256))
    assert auto.r1_gamma == pytest.approx(0.8192)
    assert auto.model_copy(update={"r1_gamma": 1.0}) == StyleGAN2Training()


def test_every_set_of_augmentations_has_its_name_and_no_other() -> None:
    assert set(get_args(Pipe)) == set(AUGMENT_PIPES)


def test_steps_are_the_nearest_whole_number_and_at_least_one() -> None:
    assert [steps_of(kimg, 32) for kimg in (0.001, 0.032, 0.047, 0.049, 1000)] == [1, 1, 1, 2, 31_250]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4, "batch_gpu": 3}, "batch_gpu 3 must divide batch_size 4"),
        ({"batch_size": 6}, "batch_size 6 is not a multiple of mbstd_group 4"),
        ({"batch_size": 12, "batch_gpu": 6}, "batch_gpu 6 is not a multiple of mbstd_group 4"),
        ({"freeze_d": 2}, "would freeze random weights"),
        ({"total_kimg": 0.004}, "ends before one step"),
    ],
)
def test_a_section_that_cannot_be_trained_with_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StyleGAN2Training(**changes)


def test_parts_smaller_than_a_group_are_groups_of_their_own() -> None:
    assert StyleGAN2Training(batch_size=6, batch_gpu=2).mbstd_group == 4


def test_what_only_observes_a_training_is_not_its_identity() -> None:
    other = StyleGAN2Training(checkpoint_kimg=1, sample_kimg=1, metric_kimg=1, metric_images=2, use="best")
    assert other.identity() == StyleGAN2Training().identity() != StyleGAN2Training(lr=1).identity()


@pytest.mark.parametrize("name", get_args(ConfigName))
def test_every_configuration_can_be_trained_with(name: str, tmp_path: Path) -> None:
    check_processes(StyleGAN2Training(**published_config(name, 256)))
    gan = train_gan(tmp_path, f"train_gan.config={name}")
    for setting, value in published_config(name, 256).items():
        assert getattr(gan, setting) == value


def test_cifar_has_no_path_length_no_mixing_and_a_plain_discriminator() -> None:
    found = published_config("cifar", 32)
    assert (found["pl_weight"], found["style_mixing_prob"], found["d_architecture"]) == (0, 0, "orig")


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(UsageError, match="did you mean paper512"):
        published_config("paper521", 512)


def test_what_was_written_wins(tmp_path: Path) -> None:
    written = BARE + "prepare: {size: 512}\ntrain_gan: {config: paper512, lr: 0.001}\n"
    gan = train_gan(tmp_path, "train_gan.batch_size=8", text=written)
    assert (gan.lr, gan.batch_size) == (0.001, 8)
    assert (gan.mbstd_group, gan.channel_base, gan.ema_rampup) == (8, 32_768, None)


def test_resolved_settings_are_stored_and_read_back(tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text(BARE)
    recipe = load_recipe(str(tmp_path / "bare.yaml"), SYSTEM, sets=["train_gan.config=paper256"])
    (tmp_path / "stored.yaml").write_text(resolved_text(recipe))
    assert "batch_size: 64" in (tmp_path / "stored.yaml").read_text()
    stored = load_recipe(str(tmp_path / "stored.yaml"), SYSTEM)
    assert stored.settings.train_gan == recipe.settings.train_gan


def test_a_dry_run_shows_what_the_configuration_fills(tmp_path: Path) -> None:
    words = ["-m", "medseg_gan", "recipe", "segthor_datasetgan", "--profile", "gpu30", "--dry-run", "--out", "run"]
    command = [sys.executable, *words, "--set", "train_gan.config=auto", "--set", "train_gan.gpus=2"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert "batch_size 32" in shown and "ema_kimg 10.0" in shown and "r1_gamma 1.0" in shown


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["config=papr256"], "did you mean paper256"),
        (["gpus=3"], "batch_size 16 cannot be shared by gpus 3"),
        (["gpus=8", "mbstd_group=4", "batch_size=48"], "batch_size 6 in each of gpus 8 is not a multiple"),
        (["use=best"], "give metric_kimg"),
        (["ada_pipe=medcal"], "did you mean medical"),
        (["config=auto", "gpus=none"], "gpus"),
    ],
)
def test_settings_that_cannot_be_are_one_line(sets: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train_gan(tmp_path, *(f"train_gan.{text}" for text in sets))


def test_new_settings_leave_the_fingerprints_of_older_runs(tmp_path: Path) -> None:
    """A measured curve only observes; the choice of the best weights is another result."""

    def fingerprint(*sets: str) -> str:
        plan = plan_recipe("segthor_datasetgan", profile="demo", out=tmp_path / "none", sets=sets)
        return str(plan.steps()[1].record["fingerprint"])

    now = fingerprint()
    assert fingerprint("train_gan.metric_kimg=0") == now == fingerprint("train_gan.metric_images=9")
    best = fingerprint("train_gan.use=best")
    assert now != best != fingerprint("train_gan.use=best", "train_gan.metric_images=9")
