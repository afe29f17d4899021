"""Folders of generated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import WINDOW, run_folder, weight_file
from typer.testing import CliRunner

from medseg_gan import api
from medseg_gan.cli import app
from medseg_gan.data.pixels import to_uint8
from medseg_gan.data.slices import to_hu
from medseg_gan.errors import UsageError
from medseg_gan.sampling.drawing import draw
from medseg_gan.sampling.generate import generate_images
from medseg_gan.sampling.latents import Drawing, seed_to_ws
from medseg_gan.sampling.source import open_source


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", ["const", "random", "none"])
def test_a_picture_does_not_depend_on_what_else_is_asked_for(tmp_path: Path, channels: int, noise: Any) -> None:
    path = weight_file(tmp_path, channels)
    many = generate_images(path, "0-4,70", tmp_path / "many", noise=noise, psi=0.7)
    alone = generate_images(path, [3], tmp_path / "alone", noise=noise, psi=0.7)
    assert (many / "seed0003.png").read_bytes() == (alone / "seed0003.png").read_bytes()
    assert sorted(file.name for file in many.glob("*.png"))[-1] == "seed0070.png"
    assert pixels(many / "seed0003.png").shape == ((16, 16) if channels == 1 else (16, 16, 3))
    assert len({file.read_bytes() for file in many.glob("*.png")}) == 6
    if noise == "random":  # the noise is the seed's own too, so even the mean picture differs
        mean = generate_images(path, "0-2", tmp_path / "mean", noise=noise, psi=0)
        assert len({file.read_bytes() for file in mean.glob("*.png")}) == 3


def test_pictures_are_those_of_the_generator(tmp_path: Path) -> None:
    path = weight_file(tmp_path, 3)
    folder = generate_images(path, "5", tmp_path / "out")
    G = open_source(path, "cpu").G
    z = torch.from_numpy(np.random.RandomState(5).randn(1, G.z_dim)).float()
    wanted = to_uint8(G(z, noise_mode="const"))[0].permute(1, 2, 0)  # type: ignore[arg-type]
    assert np.array_equal(pixels(folder / "seed0005.png"), wanted.numpy())


def test_the_sheet_holds_all_pictures_in_order(tmp_path: Path) -> None:
    folder = generate_images(weight_file(tmp_path), "0-4", tmp_path / "out", grid=True)
    sheet = pixels(folder / "sheet.png")
    assert sheet.shape == (32, 48)
    for k in range(5):
        tile = sheet[k // 3 * 16 : k // 3 * 16 + 16, k % 3 * 16 : k % 3 * 16 + 16]
        assert np.array_equal(tile, pixels(folder / f"seed{k:04d}.png"))


def test_the_manifest_says_what_is_there_and_is_joined_by_more(tmp_path: Path) -> None:
    path = weight_file(tmp_path)
    generate_images(path, "0,2", tmp_path / "out", psi=0.7, psi_layers=3)
    folder = generate_images(path, "1,2", tmp_path / "out", psi=0.7, psi_layers=3)
    found = manifest(folder)
    assert [entry["seed"] for entry in found["files"]] == [0, 1, 2]
    assert found["synthetic"] and found["kind"] == "seeds" and found["medseg_gan"]
    assert found["settings"]["psi"] == 0.7 and found["settings"]["seed_convention"] == "nvidia"
    assert found["source"]["sha256"] == open_source(path, "cpu").sha256
    assert str(tmp_path) not in json.dumps(found)


def test_pictures_of_other_settings_do_not_join(tmp_path: Path) -> None:
    path = weight_file(tmp_path)
    folder = generate_images(path, "0", tmp_path / "out")
    before = (folder / "seed0000.png").read_bytes()
    with pytest.raises(UsageError, match=r"holds other images \(settings.psi: 1.0 -> 0.5\); choose another --out"):
        generate_images(path, "0", tmp_path / "out", psi=0.5)
    with pytest.raises(UsageError, match="kind: seeds -> mixing"):
        generate_images(path, mix=("0", "1"), out=tmp_path / "out")
    assert (folder / "seed0000.png").read_bytes() == before


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": [3]}'])
def test_a_folder_with_another_manifest_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="does not describe generated images"):
        generate_images(weight_file(tmp_path), "0", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_nifti_holds_hu_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    folder = generate_images(run, "3", format="nii")
    assert folder == run / "generated" / "seeds"
    volume: Any = nib.load(folder / "seed0003.nii.gz")
    source = open_source(run, "cpu")
    image = draw(source, seed_to_ws(source, 3, Drawing()))
    assert np.array_equal(np.asarray(volume.dataobj)[..., 0].T, to_hu(image[0, 0].numpy(), WINDOW))
    assert bytes(volume.header["descrip"].item()).startswith(b"synthetic: drawn by a GAN, no patient; seed 3")
    assert nib.orientations.aff2axcodes(volume.affine) == ("L", "P", "S")
    np.testing.assert_allclose(volume.header.get_zooms(), (2.25, 2.5, 3.0))


@pytest.mark.parametrize(("layers", "like"), [("", "row"), ("0-5", "column")])
def test_mixing_ends_are_row_and_column(tmp_path: Path, layers: str, like: str) -> None:
    folder = generate_images(weight_file(tmp_path), mix=("1,2", "3-5"), layers=layers, out=tmp_path / "out")
    for row in (1, 2):
        for column in (3, 4, 5):
            mixed = pixels(folder / f"row{row:04d}-column{column:04d}.png")
            seed = row if like == "row" else column
            assert np.array_equal(mixed, pixels(folder / f"seed{seed:04d}.png"))
    sheet = pixels(folder / "mixing.png")
    assert sheet.shape == (3 * 16, 4 * 16) and not sheet[:16, :16].any()
    assert np.array_equal(sheet[:16, 16:32], pixels(folder / "seed0003.png"))
    assert np.array_equal(sheet[16:32, :16], pixels(folder / "seed0001.png"))
    assert np.array_equal(sheet[32:, 48:], pixels(folder / "row0002-column0005.png"))


def test_frames_begin_and_end_with_the_seeds_pictures(tmp_path: Path) -> None:
    path = weight_file(tmp_path)
    seeds = generate_images(path, "2,7", tmp_path / "seeds")
    folder = generate_images(path, interpolate="2,7", frames=4, format="png", out=tmp_path / "way")
    frames = sorted(folder.glob("frame*.png"))
    assert len(frames) == 5
    assert frames[0].read_bytes() == (seeds / "seed0002.png").read_bytes()
    assert frames[-1].read_bytes() == (seeds / "seed0007.png").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gif_holds_every_frame(tmp_path: Path, channels: int) -> None:
    path = weight_file(tmp_path, channels)
    folder = generate_images(path, interpolate="2,7,4", frames=3, loop=True, fps=20, out=tmp_path / "gif")
    film = Image.open(folder / "interpolation.gif")
    assert film.n_frames == 9 and film.info["loop"] == 0 and film.info["duration"] == 50  # type: ignore[attr-defined]
    assert manifest(folder)["files"] == [{"file": "interpolation.gif", "frames": 9}]
    seeds = generate_images(path, "2", tmp_path / "seeds")
    first = np.asarray(film.convert("L" if channels == 1 else "RGB")).astype(int)
    off = np.abs(first - pixels(seeds / "seed0002.png"))
    assert off.max() == 0 if channels == 1 else off.mean() < 4  # colours are reduced to 256


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"seeds": "0", "mix": ("1", "2")}, "--seeds and --mix exclude each other"),
        ({"seeds": "x"}, "--seeds x: 'x' is no number"),
        ({"layers": "1"}, "give --mix ROWS COLS"),
        ({"mix": ("1", "2"), "layers": "6"}, "--layers 6: 6 is too large; wanted 0 to 5"),
        ({"format": "gif"}, "--format gif belongs to --interpolate"),
        ({"loop": True}, "--loop belongs to --interpolate"),
        ({"interpolate": "1,2", "noise": "random"}, "would flicker"),
        ({"interpolate": "1,1"}, "at least two different seeds"),
        ({"interpolate": "1,2", "frames": 0}, "--frames 0"),
        ({"interpolate": "1,2", "grid": True}, "--grid is for"),
        ({"format": "nii"}, "needs the window and spacing of a run folder"),
        ({"class_id": 1}, "has no classes"),
        ({"out": ""}, "--out is empty"),
    ],
)
def test_contradictions_are_one_line_and_write_nothing(tmp_path: Path, words: dict[str, Any], told: str) -> None:
    path = weight_file(tmp_path)
    with pytest.raises(UsageError, match=told) as error:
        generate_images(path, **{"out": tmp_path / "out", **words})
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["G.pt"]


def test_a_conditional_generator_wants_a_class(tmp_path: Path) -> None:
    path = weight_file(tmp_path, 3, c_dim=3)
    with pytest.raises(UsageError, match="choose one with --class, 0 to 2"):
        generate_images(path, "0", tmp_path / "out")
    one, other = (generate_images(path, "0", tmp_path / f"class{k}", class_id=k) for k in (0, 2))
    assert (one / "seed0000.png").read_bytes() != (other / "seed0000.png").read_bytes()


def test_the_command_line_draws_what_the_function_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = weight_file(tmp_path)
    words = ["generate", str(path), "--seeds", "0-1", "--psi", "0.7", "--grid", "--device", "cpu"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout == "images: generated/seeds\n"
    folder = api.generate_images(path, "0-1", tmp_path / "api", psi=0.7, grid=True)
    for name in ("seed0000.png", "seed0001.png", "sheet.png", "manifest.json"):
        assert (folder / name).read_bytes() == (tmp_path / "generated" / "seeds" / name).read_bytes()
    result = CliRunner().invoke(app, ["generate", str(path), "--mix", "0", "1,2", "--layers", "1-2", "--out", "mixed"])
    assert result.exit_code == 0 and (tmp_path / "mixed" / "mixing.png").is_file()
    result = CliRunner().invoke(app, ["generate", str(path), "--seeds", "5-2"])
    assert (result.exit_code, result.stderr) == (2, "error: --seeds 5-2: 5-2 runs backwards; wanted 2-5\n")
