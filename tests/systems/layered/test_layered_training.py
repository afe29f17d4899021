"""Training of a layered GAN: exact resume in every phase, restarts and what survives of them, what is loaded back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layered_example import build, reals, small, squares, write_squares
from torch import Tensor

from medseg_gan.data.pictures import PictureRecord, PictureStore, write_picture_store
from medseg_gan.data.sampler import EndlessSampler
from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.systems.layered import step
from medseg_gan.systems.layered import training as module
from medseg_gan.systems.layered.composition import compose
from medseg_gan.systems.layered.ct import CT
from medseg_gan.systems.layered.step import LayeredStep
from medseg_gan.systems.layered.training import TrainedLayers, foreground_share, real_batches, train_layered
from medseg_gan.systems.layered.watchdog import Watchdog
from medseg_gan.training.augment import flip_and_crop
from medseg_gan.training.engine import read_stats

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 18  # iterations of `small`: 2 rounds of 6 GAN steps and 3 of F


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("store"))


def train(store: Path, folder: Path, seed: int = 3, precision: str = "fp32", **changes: Any) -> None:
    """Checkpoints after every second iteration; F knows too little to be judged where `restarts` is 0."""
    settings = small(**({"restarts": 0, "checkpoint_kimg": 0.008, "sample_kimg": 0.02} | changes))
    train_layered(store, folder, settings, name="test", seed=seed, precision=precision)


class Interrupted(Exception):  # noqa: N818
    """Stands for a kill between two iterations."""


def interrupt_at(patch: pytest.MonkeyPatch, iteration: int) -> None:
    """Every later training stops inside this iteration, when the networks have moved and nothing was saved."""
    call = LayeredStep.__call__

    def dies(self: LayeredStep, engine: Any, batch: Any) -> Any:
        terms = call(self, engine, batch)
        if engine.state.iteration == iteration:
            raise Interrupted
        return terms

    patch.setattr(LayeredStep, "__call__", dies)


def tensors(content: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a checkpoint by its path."""
    if isinstance(content, dict):
        return {k: v for key, item in content.items() for k, v in tensors(item, f"{path}.{key}").items()}
    if isinstance(content, list):
        return {k: v for key, item in enumerate(content) for k, v in tensors(item, f"{path}.{key}").items()}
    return {path: content}


def assert_bit_equal(one: Path, other: Path) -> None:
    """The results, and the last checkpoints with every optimiser's state."""
    for pattern in ("layered.pt", "attempt-*/checkpoint-*.pt"):
        (first,), (second,) = one.glob(pattern), other.glob(pattern)
        assert first.name == second.name
        a, b = tensors(load_checkpoint(first)), tensors(load_checkpoint(second))
        assert a.keys() == b.keys()
        same = {key: torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key] for key in a}
        assert all(same.values()), [key for key, value in same.items() if not value]


def assert_same_rows(one: Path, other: Path) -> None:
    first, second = (read_stats(folder / "attempt-1") for folder in (one, other))
    assert [{**row, "img_per_s": 0} for row in first] == [{**row, "img_per_s": 0} for row in second]


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    train(store, folder)
    return folder


def test_training_leaves_networks_rows_and_sheets(whole: Path) -> None:
    rows = read_stats(whole / "attempt-1")
    assert rows[-1]["iteration"] == LENGTH
    assert {"loss_G", "loss_D", "loss_mi_G", "loss_F", "F_synthetic_iou", "area", "D_accuracy"} <= set().union(*rows)
    assert [row["iteration"] for row in rows if "area" in row] == [*range(1, 7), *range(10, 16)]
    assert [row["iteration"] for row in rows if "loss_F" in row] == [7, 8, 9, 16, 17, 18]
    assert (whole / "attempt-1" / "samples" / "real.png").is_file()
    assert len(list((whole / "attempt-1" / "samples").iterdir())) == 1 + 4
    assert load_checkpoint(whole / "layered.pt")["attempts"][0]["iteration"] == LENGTH


def test_steps_of_the_segmenter_see_no_real_images(whole: Path) -> None:
    rows = read_stats(whole / "attempt-1")
    assert [row["images"] for row in rows] == [4 * k for k in (*range(1, 7), 6, 6, 6, *range(7, 13), 12, 12, 12)]
    assert all((row["img_per_s"] == 0) == ("loss_F" in row) for row in rows)


@pytest.mark.parametrize("iterations", [(5,), (8,), (12, 17), (1, 7, 11, 18)], ids=str)
def test_interrupted_training_ends_bit_equal(
    iterations: tuple[int, ...], store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in GAN steps, in F's, across rounds, and at the very last one."""
    for iteration in iterations:
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupt_at(patch, iteration)
            train(store, tmp_path)
    train(store, tmp_path)
    assert_bit_equal(whole, tmp_path)
    assert_same_rows(whole, tmp_path)


def test_an_interrupted_training_is_watched_with_the_same_means(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[dict[str, float]]] = []
    judge = Watchdog.judge

    def keeps(self: Watchdog, row: Any) -> str | None:
        found = judge(self, row)
        seen[-1].append({"iteration": row["iteration"], **self.means})
        return found

    monkeypatch.setattr(Watchdog, "judge", keeps)
    for name, iteration in (("whole", 0), ("broken", 6), ("broken", 0)):
        seen.append([])
        with monkeypatch.context() as patch, suppress(Interrupted):
            interrupt_at(patch, iteration)
            train(store, tmp_path / name)
    whole, _, rest = seen
    assert rest[0]["iteration"] == 5 and rest == whole[4:]


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "reuse_fakes": True},
        {"shift": 0.1, "degrees": 10, "shrink": -0.1, "contrast": (0.7, 1.3)},
        {"prior": "gaussian", "c_dim": 4, "d_norm": "sn_bn"},
        {"precision": "bf16", "segmenter": "basic_unet", "segmenter_width": 16},
    ],
    ids=["ema", "contrast", "gaussian", "bf16"],
)
def test_every_option_resumes_bit_equal(
    changes: dict[str, Any], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store, tmp_path / "whole", **changes)
    for iteration in (4, 9, 13):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupt_at(patch, iteration)
            train(store, tmp_path / "broken", **changes)
    train(store, tmp_path / "broken", **changes)
    assert_bit_equal(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("call", [11, 16])  # optimiser steps: two each GAN iteration, then F's
def test_killed_training_ends_bit_equal(call: int, store: Path, whole: Path, tmp_path: Path) -> None:
    """kill -9 inside an iteration, in the GAN's phase and in F's."""
    child = f"""
import os, signal, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(1)
from pathlib import Path
import test_layered_training as here
step, calls = torch.optim.Adam.step, []
def dies(self, *arguments):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)
torch.optim.Adam.step = dies
here.train(Path({str(store)!r}), Path({str(tmp_path)!r}))
"""
    result = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, env=os.environ)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not (tmp_path / "layered.pt").exists()
    train(store, tmp_path)
    assert_bit_equal(whole, tmp_path)


def test_a_finished_folder_is_left_as_it_is(store: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    interrupt_at(monkeypatch, 1)
    train(store, whole)
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_other_settings_do_not_continue_a_training(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, 5)
        train(store, tmp_path)
    with pytest.raises(MedsegError, match=r"gamma_b: 2\.0 -> 3\.0"):
        train(store, tmp_path, gamma_b=3.0)


def test_every_seed_trains_otherwise(store: Path, whole: Path, tmp_path: Path) -> None:
    train(store, tmp_path, seed=4)
    ours, theirs = (load_checkpoint(folder / "layered.pt") for folder in (tmp_path, whole))
    assert not torch.equal(ours["G"]["mask.weight"], theirs["G"]["mask.weight"])


def test_masks_are_not_looked_at(store: Path, whole: Path, tmp_path: Path) -> None:
    """A store whose masks are all wrong, with other test pictures, trains the same generator."""
    other = write_squares(tmp_path / "store", test=4)
    for name, change in (
        ("masks.npy", lambda a: 1 - a),
        ("images.npy", lambda a: np.concatenate([a[:12], 255 - a[12:]])),
    ):
        np.save(other / name, change(np.load(other / name)))
    train(other, tmp_path / "run")
    assert_bit_equal(whole, tmp_path / "run")


def test_fewer_pictures_than_a_batch_are_refused(tmp_path: Path) -> None:
    few = write_squares(tmp_path / "store", train=3)
    with pytest.raises(MedsegError, match="3 training pictures for batches of 4; give more or lower the batch_size"):
        train(few, tmp_path / "run")


def test_a_weight_that_is_not_finite_stops_before_a_checkpoint(store: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"training stopped: .* step \d+.*try a lower lr or lr_d, or precision fp32"):
        train(store, tmp_path, lr=1e38)
    assert not list(tmp_path.rglob("*.pt"))


# The order of real pictures.


def test_each_gan_step_takes_the_next_batch_whatever_comes_between(store: Path) -> None:
    settings, pictures = small(), PictureStore.open(store)
    chosen = pictures.indices("train")
    order = iter(EndlessSampler(len(chosen), mix_seed(7, "order")))
    wanted = [pictures.image_tensor(chosen[[next(order) for _ in range(4)]]) for _ in range(12)]
    batches = real_batches(pictures, settings, 7, 0, "cpu")
    found = [next(batches) for _ in range(LENGTH)]
    assert [k for k, batch in enumerate(found, 1) if not batch] == [7, 8, 9, 16, 17, 18]
    for batch, one in zip((batch for batch in found if batch), wanted, strict=True):
        assert torch.equal(batch["image"], one)


@pytest.mark.parametrize("done", range(LENGTH))
def test_batches_go_on_from_any_iteration(store: Path, done: int) -> None:
    settings, pictures = small(), PictureStore.open(store)
    whole, rest = real_batches(pictures, settings, 7, 0, "cpu"), real_batches(pictures, settings, 7, done, "cpu")
    for _ in range(done):
        next(whole)
    for _ in range(done, LENGTH):
        a, b = next(whole), next(rest)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# Restarts.

EMPTY = {"mask_bias": -30.0}  # masks that no short training brings up: all as background


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """F finds no foreground, as one trained for long on empty masks."""
    monkeypatch.setattr(module, "foreground_share", lambda step, real: 0.0)


def attempts_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "attempts.json").read_text())


@pytest.mark.usefixtures("blind")
def test_trivial_attempts_are_listed_and_the_last_is_carried_through(store: Path, tmp_path: Path) -> None:
    train(store, tmp_path, restarts=2, **EMPTY)
    before = attempts_of(tmp_path)
    assert [one["seed"] for one in before] == [mix_seed(3, "attempt", k) for k in range(2)]
    assert {one["iteration"] for one in before} == {3}  # half of round 1
    assert all("all as background" in one["trivial"] for one in before)
    kept = load_checkpoint(tmp_path / "layered.pt")["attempts"]
    assert kept[:2] == before
    assert kept[2]["seed"] == mix_seed(3, "attempt", 2) and kept[2]["iteration"] == LENGTH
    assert "F takes" in kept[2]["trivial"]
    assert read_stats(tmp_path / "attempt-3")[-1]["iteration"] == LENGTH


def test_attempts_begin_with_other_weights(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    init = LayeredStep.__init__

    def keeps(self: LayeredStep, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        found.append(next(self.G.parameters()).detach().clone())

    monkeypatch.setattr(LayeredStep, "__init__", keeps)
    train(store, tmp_path, restarts=2, **EMPTY)
    assert len({tuple(weight.flatten().tolist()) for weight in found}) == 3


def test_the_first_attempt_is_that_of_a_training_without_restarts(store: Path, tmp_path: Path) -> None:
    train(store, tmp_path / "none", restarts=0, **EMPTY)
    train(store, tmp_path / "one", restarts=1, **EMPTY)
    rows = [read_stats(tmp_path / name / "attempt-1") for name in ("none", "one")]
    for first, second in zip(*rows, strict=False):
        assert {**first, "img_per_s": 0} == {**second, "img_per_s": 0}


@pytest.mark.parametrize("iteration", [2, 5])
def test_restarts_survive_a_kill(iteration: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the first attempt before it is judged, or in the second, once the first has been given up."""
    train(store, tmp_path / "whole", restarts=1, **EMPTY)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, iteration)
        train(store, tmp_path / "broken", restarts=1, **EMPTY)
    train(store, tmp_path / "broken", restarts=1, **EMPTY)
    one, other = (load_checkpoint(tmp_path / name / "layered.pt") for name in ("whole", "broken"))
    assert one["attempts"] == other["attempts"] and len(one["attempts"]) == 2
    assert attempts_of(tmp_path / "whole") == attempts_of(tmp_path / "broken")
    for network in ("G", "D", "F"):
        assert all(torch.equal(one[network][key], other[network][key]) for key in one[network])


@pytest.mark.usefixtures("blind")
def test_a_trivial_end_is_told_after_a_kill_before_the_result(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint is written and the result is not: what F's last look found must not be lost."""
    train(store, tmp_path / "whole", **EMPTY)

    def dies(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(module, "save_layered", dies)
        train(store, tmp_path / "broken", **EMPTY)
    train(store, tmp_path / "broken", **EMPTY)
    one, other = (load_checkpoint(tmp_path / name / "layered.pt")["attempts"] for name in ("whole", "broken"))
    assert one == other and one[-1]["trivial"]


# What is loaded back.


def test_layers_are_a_function_of_their_index(whole: Path) -> None:
    layers = TrainedLayers.load(whole, seed=1)
    first = layers.render(range(4))
    again = layers.render(range(4))
    other = TrainedLayers.load(whole, seed=1)
    other.render(range(8, 12))
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, other.render(range(4)), strict=True))
    image, mask, background, foreground = first
    assert torch.equal(image, compose(background, foreground, mask))
    assert not torch.equal(image, TrainedLayers.load(whole, seed=2).render(range(4))[0])
    for a, b in zip(first, layers.render(range(2, 6)), strict=True):
        torch.testing.assert_close(a[2:], b[:2])  # alone up to the block's rounding


def test_loaded_networks_are_those_trained(store: Path, tmp_path: Path) -> None:
    train(store, tmp_path, ema=0.5)
    (checkpoint,) = (tmp_path / "attempt-1").glob("checkpoint-*.pt")
    state, layers = load_checkpoint(checkpoint), TrainedLayers.load(tmp_path)
    for network, name in ((layers.G, "G_ema"), (layers.D, "D"), (layers.F, "F")):
        assert not network.training
        assert all(torch.equal(value, state[name][key]) for key, value in network.state_dict().items())


def test_real_pictures_are_sorted_into_classes_of_the_code(whole: Path) -> None:
    layers = TrainedLayers.load(whole)
    found = layers.clusters(reals(6))
    assert found.shape == (6,) and set(found.tolist()) <= set(range(6))
    assert np.array_equal(found, layers.D(reals(6))[1].argmax(dim=1).numpy())


def test_an_unfinished_training_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="does not exist; run the stage"):
        TrainedLayers.load(tmp_path)


def test_share_taken_for_foreground() -> None:
    step = build()
    step.F = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        step.F.weight.zero_()
        step.F.weight[1, 0] = 1
        step.F.bias.zero_()
    real = torch.full((8, 3, 16, 16), -1.0)
    real[:, 0, :4] = 1
    assert foreground_share(step, real) == pytest.approx(0.25)


@pytest.mark.parametrize(("dataset", "mirrored"), [(CT, False), ("birds", True)])
def test_ct_is_never_mirrored(dataset: str, mirrored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left and right differ in a body: a mirrored heart would be taught as real."""
    images, masks = squares()
    records = [PictureRecord(str(k), "train", None, True) for k in range(len(images))]
    write_picture_store(tmp_path / "store", images, masks, records, dataset=dataset)
    asked: list[bool] = []

    def recorded(image: Tensor, smallest: float, mirror: bool = True) -> Tensor:
        asked.append(mirror)
        return flip_and_crop(image, smallest, mirror)

    monkeypatch.setattr(step, "flip_and_crop", recorded)
    train_layered(tmp_path / "store", tmp_path / "run", small(rounds=1), name="ct", seed=0)
    assert set(asked) == {mirrored}
