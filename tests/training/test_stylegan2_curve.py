"""The Fréchet distance in the course of a training, and the best weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_stylegan2_training import GROUPS, StopsAt, assert_bit_equal, blobs, build, train, weights
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json
from medseg_gan.training.engine import read_stats
from medseg_gan.training.stylegan2 import load_generator
from medseg_gan.training.stylegan2_curve import FrechetCurve, real_images

NAME = "frechet_distance[random-conv-v1]"
METRIC: dict[str, Any] = {"metric_kimg": 0.016, "metric_images": 20}
BEFORE = 1 + 32 + 1 + 12  # reads of the first image, the sheet of real ones, and for their features


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training of 18 steps, measured every 4 and at the end."""
    folder = tmp_path_factory.mktemp("measured")
    torch.set_num_threads(1)
    train(folder, StopsAt(0), **METRIC)
    return folder


def distances(folder: Path) -> dict[int, float]:
    return {row["images"]: row[NAME] for row in read_stats(folder) if NAME in row}


def test_the_curve_has_rows_of_its_own(measured: Path) -> None:
    found = distances(measured)
    assert list(found) == [16, 32, 48, 64, 72]
    assert len(set(found.values())) == 5 and min(found.values()) > 0


def test_the_best_lies_beside_the_latest(measured: Path) -> None:
    found = distances(measured)
    about = read_json(measured / "metric.json")
    best = min(found, key=lambda images: found[images])
    assert about["best"] == {"images": best, "distance": found[best]}
    assert (about["name"], about["n_real"], about["n_fake"]) == (NAME, 12, 20)
    assert torch.load(measured / "best.pt", weights_only=True)["images_seen"] == best
    assert torch.load(measured / "G_ema.pt", weights_only=True)["images_seen"] == 72


def test_measuring_does_not_touch_the_training(measured: Path, tmp_path: Path) -> None:
    train(tmp_path)
    assert_bit_equal(measured, tmp_path)


def test_an_interrupted_training_has_the_same_curve_and_best(measured: Path, tmp_path: Path) -> None:
    for reads in (BEFORE + 34, BEFORE + 26):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, StopsAt(reads), **METRIC)
    train(tmp_path, StopsAt(0), **METRIC)
    assert_bit_equal(measured, tmp_path)
    assert distances(measured) == distances(tmp_path)
    assert read_json(measured / "metric.json") == read_json(tmp_path / "metric.json")
    first, second = (load_generator(folder / "best.pt").state_dict() for folder in (measured, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_best_past_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    step = build()
    curve = FrechetCurve(step, blobs(), number=20, folder=tmp_path)
    curve.measure(8)
    saved = {"distance": curve.distance, "images_seen": 8, "weights": curve.weights}
    curve.distance, curve.images_seen = 0.0, 16
    curve.write_best()
    FrechetCurve(step, blobs(), number=20, folder=tmp_path).load_state_dict(saved)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["images_seen"] == 8


def test_the_best_can_be_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve that rises from its first value: the best is then not the latest."""
    monkeypatch.setattr("medseg_gan.evaluation.frechet.FrechetDistance.compute", lambda self: next(rising))
    rising = iter(range(1, 100))
    train(tmp_path, StopsAt(0), use="best", **METRIC)
    used = torch.load(tmp_path / "G_ema.pt", weights_only=True)
    assert used["images_seen"] == 16
    assert torch.load(tmp_path / "latest.pt", weights_only=True)["images_seen"] == 72
    best, latest = (load_generator(tmp_path / name).state_dict() for name in ("best.pt", "latest.pt"))
    assert all(torch.equal(best[name], weights(tmp_path)[name]) for name in best)
    assert not all(torch.equal(best[name], latest[name]) for name in best)


def test_a_measurement_can_begin_in_mid_training(measured: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, StopsAt(1 + 32 + 50))
    train(tmp_path, StopsAt(0), **METRIC)
    assert_bit_equal(measured, tmp_path)
    later = distances(tmp_path)
    assert later == {images: distances(measured)[images] for images in later} and 72 in later


def test_equal_sets_are_nearer_than_others(tmp_path: Path) -> None:
    step = build(batch_size=100, batch_gpu=50, mbstd_group=1, total_kimg=1)
    step.G_ema.forward = lambda z, c=None, noise_mode="": blobs(len(z))  # type: ignore[method-assign,assignment,misc]
    near = FrechetCurve(step, blobs(50), number=50, folder=tmp_path).measure(1)[NAME]
    far = FrechetCurve(step, -blobs(50), number=50, folder=tmp_path).measure(1)[NAME]
    assert near == pytest.approx(0, abs=1e-6) and far > 1


@pytest.mark.parametrize("images", [blobs(size=8), blobs().expand(-1, 2, -1, -1), blobs()[:3]])
def test_images_that_cannot_be_measured_are_one_line(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="set metric_kimg to 0"):
        FrechetCurve(build(), images, number=20, folder=tmp_path)


def test_use_best_wants_a_metric(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give metric_kimg"):
        train(tmp_path, use="best")


def test_real_images_are_spread_evenly_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg_gan.training.stylegan2_curve.MOST_REAL", 4)
    chosen = real_images(torch.arange(len(GROUPS)).reshape(-1, 1, 1, 1).float())
    assert chosen.flatten().tolist() == [0, 3, 7, 11]
