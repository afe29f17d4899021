"""A generator is found in a run or in a file of any kind we read; anything else is one line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WINDOW, generator, run_folder, weight_file

from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.sampling.source import discriminator_of, open_source
from stylegan2_ada_pytorch import Discriminator


def test_a_run_tells_what_its_pixels_mean(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", prepare="{crop: 0.8, spacing: 1.5}")
    source = open_source(run, "cpu")
    assert source.path == run / "02-train_gan" / "G_ema.pt" and source.run_seed == 7
    assert source.slices is not None
    assert (source.slices.window, source.slices.crop, source.slices.resampled) == (WINDOW, 0.8, 1.5)
    assert source.slices.spacing == (2.5, 2.25, 3.0)  # the median
    wanted = generator().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in source.G.state_dict().items())


def test_a_run_without_its_slices_still_draws(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (run / "01-prepare" / "cases.json").unlink()
    assert open_source(run, "cpu").slices is None


@pytest.mark.parametrize("kind", ["ours", "converted"])
def test_a_file_on_its_own_has_no_geometry(tmp_path: Path, kind: str) -> None:
    ours = run_folder(tmp_path / "run") / "02-train_gan" / "G_ema.pt"
    path = ours if kind == "ours" else weight_file(tmp_path)
    source = open_source(path, "cpu")
    assert source.slices is None and source.latent_seed != open_source(tmp_path / "run", "cpu").latent_seed
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(tmp_path) not in str(source.identity()), "a folder may name a person"


def test_the_discriminator_comes_from_the_file_or_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="without a discriminator"):
        discriminator_of(open_source(weight_file(tmp_path), "cpu"))
    assert discriminator_of(open_source(weight_file(tmp_path, with_D=True), "cpu")).img_channels == 1
    run = run_folder(tmp_path / "run")
    D: Any = Discriminator(0, 16, 1, channel_base=256, channel_max=16)
    save_checkpoint(run / "02-train_gan" / "checkpoint-000000002.pt", D=D)
    found = discriminator_of(open_source(run, "cpu"))
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(found(image), D(image))


def test_what_holds_no_generator_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run folder|not a run folder"):
        open_source(tmp_path, "cpu")
    with pytest.raises(MedsegError, match="does not exist"):
        open_source(tmp_path / "none.pt", "cpu")
    run = run_folder(tmp_path / "run")
    (run / "02-train_gan" / "G_ema.pt").unlink()
    with pytest.raises(UsageError, match="until train_gan is done"):
        open_source(run, "cpu")
    D = Discriminator(0, 16, 1, channel_base=256, channel_max=16)
    part = {"init_kwargs": D.init_kwargs, "state_dict": D.state_dict()}
    save_checkpoint(tmp_path / "D.pt", networks={"D": part}, images_seen=None)
    with pytest.raises(MedsegError, match="has no generator, only D"):
        open_source(tmp_path / "D.pt", "cpu")
