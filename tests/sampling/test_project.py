"""A given slice as a latent: the files, and the way back to the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import run_folder, weight_file
from typer.testing import CliRunner

from medseg_gan import api
from medseg_gan.cli import app
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.sampling.generate import generate_images
from medseg_gan.sampling.project import project_image
from medseg_gan.sampling.source import open_source
from medseg_gan.sampling.stored_latents import load_latents

FILES = ["projected.png", "projected.pt", "projection.json", "side_by_side.png", "target.png"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(float)


def volume(path: Path, seed: int = 0, depth: int = 3, side: int = 32) -> Path:
    """HU that differ from slice to slice."""
    hu = np.random.default_rng(seed).integers(-900, 300, (side, side, depth)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 3.0, 1.0])), path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_projection_is_drawn_again_from_its_file(tmp_path: Path, channels: int, space: Any) -> None:
    path = weight_file(tmp_path, channels)
    seeds = generate_images(path, "4", tmp_path / "seeds")
    folder = project_image(path, seeds / "seed0004.png", tmp_path / "p", space=space, steps=40)
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert (folder / "target.png").read_bytes() == (seeds / "seed0004.png").read_bytes()
    again = generate_images(path, latents=[folder / "projected.pt"], out=tmp_path / "again", grid=True)
    assert (again / "latents0000.png").read_bytes() == (folder / "projected.png").read_bytes()
    assert (again / "sheet.png").is_file()
    record = json.loads((folder / "projection.json").read_text())
    assert len(record["history"]["distance"]) == 40 and record["settings"]["space"] == space
    assert record["mae"] < record["mae_mean_image"]
    assert record["history"]["distance"][-1] < 0.5 * record["history"]["distance"][0]
    assert str(tmp_path) not in json.dumps(record), "the slice's file name may name a patient"
    wide = pixels(folder / "side_by_side.png")
    assert np.array_equal(wide[:, :16], pixels(folder / "target.png"))
    assert np.array_equal(wide[:, 16:32], pixels(folder / "projected.png"))


def test_a_slice_of_a_volume_is_prepared_as_the_run_s(tmp_path: Path) -> None:
    run, scan = run_folder(tmp_path / "run"), volume(tmp_path / "Meier_Hans.nii.gz")
    said: list[str] = []
    folder = project_image(run, scan, index=1, steps=3, say=said.append)
    assert folder.parent == run / "projected" and folder.name.endswith("-w")
    record = json.loads((folder / "projection.json").read_text())
    assert 0 < record["mae_hu"] == pytest.approx(record["mae"] * 700) and record["index"] == 1
    assert "HU" in said[0]
    assert not [file for file in folder.iterdir() if b"Meier" in file.read_bytes()]
    other = project_image(run, scan, index=2, steps=3, say=said.append)
    assert other != folder, "another slice does not replace this one"


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    run, scan = run_folder(tmp_path / "run"), volume(tmp_path / "v.nii.gz", depth=1)
    one, two, other = (
        project_image(run, scan, tmp_path / name, steps=5, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for name in ("projected.png", "projection.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    found = [load_checkpoint(folder / "projected.pt")["ws"] for folder in (one, two, other)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_weight_file_needs_the_window_of_a_volume(tmp_path: Path) -> None:
    path, scan = weight_file(tmp_path, 3), volume(tmp_path / "v.nii.gz", depth=1)
    with pytest.raises(UsageError, match="give --window LOW HIGH, or a run"):
        project_image(path, scan, steps=2)
    folder = project_image(path, scan, steps=2, window=(-1000, 400))
    target = pixels(folder / "target.png")  # grey in all three channels
    assert target.shape == (16, 16, 3) and np.array_equal(target[..., 0], target[..., 2])


def test_the_discriminator_compares_too(tmp_path: Path) -> None:
    path = weight_file(tmp_path, with_D=True)
    seeds = generate_images(path, "1", tmp_path / "seeds")
    folder = project_image(path, seeds / "seed0001.png", features="discriminator", steps=3)
    assert json.loads((folder / "projection.json").read_text())["features"] == "discriminator"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"steps": 0}, "--steps 0"),
        ({}, "has 3 slices; choose one with --index"),
        ({"index": 9}, "wanted 0 to 2"),
        ({"index": 0, "window": (400.0, -1000.0)}, "the lower one first"),
        ({"index": 0, "class_id": 1}, "has no classes"),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(tmp_path: Path, words: dict[str, Any], told: str) -> None:
    run, scan = run_folder(tmp_path / "run"), volume(tmp_path / "v.nii.gz")
    with pytest.raises(UsageError, match=told) as error:
        project_image(run, scan, tmp_path / "out", **{"steps": 2, **words})
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_an_index_of_a_picture_is_refused(tmp_path: Path) -> None:
    path = weight_file(tmp_path)
    Image.new("L", (20, 30)).save(tmp_path / "p.png")
    with pytest.raises(UsageError, match="is an image"):
        project_image(path, tmp_path / "p.png", index=1)
    with pytest.raises(MedsegError, match="does not exist"):
        project_image(path, tmp_path / "none.png")


def test_latents_of_another_generator_are_told_apart(tmp_path: Path) -> None:
    path = weight_file(tmp_path)
    seeds = generate_images(path, "1", tmp_path / "seeds")
    stored = project_image(path, seeds / "seed0001.png", tmp_path / "p", steps=2) / "projected.pt"
    assert load_latents(stored, open_source(path, "cpu")).same_source
    run = run_folder(tmp_path / "run")
    assert not load_latents(stored, open_source(run, "cpu")).same_source
    larger = run_folder(tmp_path / "larger", size=32)
    with pytest.raises(MedsegError, match=r"shape \(1, 6, 12\), wanted \(N, 8, 12\)"):
        generate_images(larger, latents=[stored])
    with pytest.raises(MedsegError, match="holds no latents"):
        generate_images(path, latents=[path])
    state = load_checkpoint(stored)
    save_checkpoint(tmp_path / "nan.pt", **{**state, "ws": state["ws"] * float("nan")})
    with pytest.raises(MedsegError, match="do not fit"):
        generate_images(path, latents=[tmp_path / "nan.pt"])
    with pytest.raises(UsageError, match="belong to seeds"):
        generate_images(path, latents=[stored], class_id=0)


def test_the_command_line_projects(tmp_path: Path) -> None:
    run, scan = run_folder(tmp_path / "run"), volume(tmp_path / "v.nii.gz")
    words = ["project", str(run), str(scan), "--index", "1", "--steps", "2", "--space", "w+", "--out", "p"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("p: mean difference ") and sorted(f.name for f in Path("p").iterdir()) == FILES
    result = CliRunner().invoke(app, ["project", str(run), str(scan), "--steps", "2"])
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert callable(api.project_image)
