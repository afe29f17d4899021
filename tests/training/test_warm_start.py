"""Training that begins with given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_stylegan2_training import GROUPS, LOG_KIMG, StopsAt, blobs, section

from medseg_gan.errors import MedsegError
from medseg_gan.training.stylegan2 import load_generator, train_stylegan2
from medseg_gan.training.stylegan2_step import StyleGAN2Step
from medseg_gan.training.warm_start import start_from
from medseg_gan.weights.files import load_network_pkl, save_networks
from medseg_gan.weights.grey import to_grey
from stylegan2_ada_pytorch import Discriminator, Generator

SIZES = {"channel_base": 256, "channel_max": 16}


def build(seed: int = 0, channels: int = 1, resolution: int = 16, **changes: Any) -> StyleGAN2Step:
    return StyleGAN2Step(
        section(**changes), resolution=resolution, channels=channels, seed=seed, device="cpu", precision="fp32"
    )


def start(step: StyleGAN2Step, path: Path) -> list[str]:
    said: list[str] = []
    start_from(path, step.G, step.D, step.G_ema, said.append)
    return said


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of untrained networks with the sizes of `SMALL`, by the channels of their images; none are alike."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for channels in (1, 3):
        paths[channels] = folder / f"{channels}.pt"
        step, other = build(7, channels), build(8, channels)
        other.G.mapping.w_avg.fill_(0.5)
        save_networks(paths[channels], {"G": step.G, "D": step.D, "G_ema": other.G})
    return paths


def assert_equal(network: Any, other: Any) -> None:
    one, two = network.state_dict(), other.state_dict()
    assert one.keys() == two.keys()
    assert not [name for name in one if not torch.equal(one[name], two[name])]


def test_all_three_networks_begin_with_the_weights(weights: dict[int, Path]) -> None:
    step, found = build(), load_network_pkl(weights[1])
    assert start(step, weights[1]) == [f"init_from: G, D, G_ema of {weights[1]}"]
    for name in ("G", "D", "G_ema"):
        assert_equal(getattr(step, name), found[name])


def test_colour_weights_become_grey_ones(weights: dict[int, Path]) -> None:
    step, found = build(), load_network_pkl(weights[3])
    assert start(step, weights[3]) == [f"init_from: G, D, G_ema of {weights[3]}, turned from colour to grey"]
    for name in ("G", "D", "G_ema"):
        assert_equal(getattr(step, name), to_grey(found[name]))


def test_an_average_alone_is_enough_and_said(weights: dict[int, Path], tmp_path: Path) -> None:
    G = load_network_pkl(weights[1])["G_ema"]
    save_networks(tmp_path / "G.pt", {"G_ema": G})
    step, untouched = build(), build()
    (line,) = start(step, tmp_path / "G.pt")
    assert line.endswith("; it has no G, both begin alike; it has no D, which begins with random weights")
    assert_equal(step.G, G)
    assert_equal(step.G_ema, G)
    assert_equal(step.D, untouched.D)
    with pytest.raises(MedsegError, match="would freeze random weights"):
        start(build(freeze_d=1, init_from="weights.pt"), tmp_path / "G.pt")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"resolution": 32}, "the image size: 16, wanted 32"),
        ({"z_dim": 8}, "z_dim: 16, wanted 8"),
        ({"w_dim": 8}, "w_dim: 16, wanted 8"),
        ({"mapping_layers": 3}, "mapping_layers: 2, wanted 3"),
        ({"channel_base": 128}, "channel_base and channel_max: {4: 16, 8: 16, 16: 16}, wanted {4: 16, 8: 16, 16: 8}"),
        ({"architecture": "resnet"}, "architecture: skip, wanted resnet"),
        ({"channels": 3}, "the images' channels: 1, wanted 3"),
    ],
)
def test_other_networks_are_refused_by_setting(weights: dict[int, Path], changes: Any, match: str) -> None:
    step, untouched = build(**changes), build(**changes)
    with pytest.raises(MedsegError, match=match) as caught:
        start(step, weights[1])
    assert "\n" not in str(caught.value)
    for name in ("G", "D", "G_ema"):
        assert_equal(getattr(step, name), getattr(untouched, name))


def test_other_discriminators_labels_and_rates_are_refused(weights: dict[int, Path], tmp_path: Path) -> None:
    found: dict[str, Any] = dict(load_network_pkl(weights[1]))
    made: dict[str, tuple[dict[str, Any], str]] = {
        "D": ({**found, "D": Discriminator(0, 16, 1, "skip", **SIZES)}, "discriminator .*architecture: skip"),
        "c": ({"G_ema": Generator(16, 3, 16, 16, 1, {"num_layers": 2}, SIZES)}, r"labels \(c_dim\): 3, wanted 0"),
        "m": ({"G": Generator(16, 0, 16, 16, 1, {"num_layers": 2, "lr_multiplier": 0.1}, SIZES)}, "lr_multiplier 0.1"),
        "n": ({"D": found["D"]}, "has no generator, only D"),
    }
    for name, (networks, match) in made.items():
        save_networks(tmp_path / f"{name}.pt", networks)
        with pytest.raises(MedsegError, match=match):
            start(build(), tmp_path / f"{name}.pt")


def train(folder: Path, images: Any = None, **changes: Any) -> Any:
    images = blobs() if images is None else images
    train_stylegan2(section(**({"total_kimg": 0.04} | changes)), images, GROUPS, folder, seed=3, log_kimg=LOG_KIMG)
    return load_generator(folder / "G_ema.pt").state_dict()


def test_training_goes_on_from_them_and_resumes_without_them(
    weights: dict[int, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "weights.pt"
    copy.write_bytes(weights[3].read_bytes())
    whole, fresh = train(tmp_path / "whole", init_from=str(copy)), train(tmp_path / "fresh")
    assert any(not torch.equal(whole[name], fresh[name]) for name in whole)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", StopsAt(32 + 26), init_from=str(copy))
    assert capfd.readouterr().err.count("turned from colour to grey") == 2
    copy.unlink()  # a checkpoint is there
    broken = train(tmp_path / "broken", init_from=str(copy))
    assert "colour" not in capfd.readouterr().err
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_other_weights_in_the_same_folder_are_refused(weights: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, StopsAt(32 + 26))
    with pytest.raises(MedsegError, match="init_from: None -> "):
        train(tmp_path, init_from=str(weights[1]))


@pytest.mark.parametrize("frozen", [0, 1, 3, 5])
def test_frozen_layers_keep_their_weights_and_the_others_learn(weights: dict[int, Path], frozen: int) -> None:
    step = build(freeze_d=frozen, init_from="weights.pt", ada="fixed")
    start(step, weights[1])
    before = {name: tensor.clone() for name, tensor in step.D.state_dict().items()}
    for phase in (step.d_main, step.d_reg):
        step.update(step.D_optimizer, phase, blobs()[:4])
    names = ["b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip", "b4.conv"]
    moved = [not torch.equal(before[f"{name}.weight"], step.D.state_dict()[f"{name}.weight"]) for name in names]
    assert moved == [False] * frozen + [True] * (len(names) - frozen)


def test_a_generator_trained_elsewhere_is_taken_as_it_is(weights: dict[int, Path], tmp_path: Path) -> None:
    for channels in (1, 3):  # colour becomes grey
        settings = section(total_kimg=0, init_from=str(weights[channels]), channel_base=512)  # its own sizes count
        train_stylegan2(settings, blobs(), GROUPS, tmp_path / str(channels), seed=0)
        assert [path.name for path in (tmp_path / str(channels)).iterdir()] == ["G_ema.pt"]
        found = load_network_pkl(weights[channels])["G_ema"]
        assert isinstance(found, Generator)
        assert_equal(load_generator(tmp_path / str(channels) / "G_ema.pt"), to_grey(found) if channels == 3 else found)


def test_a_generator_of_other_images_is_not_taken(weights: dict[int, Path], tmp_path: Path) -> None:
    settings = section(total_kimg=0, init_from=str(weights[1]))
    with pytest.raises(MedsegError, match=r"the image size: 16, wanted 32"):
        train_stylegan2(settings, torch.zeros(8, 1, 32, 32), None, tmp_path, seed=0)
    assert not list(tmp_path.iterdir())
    for changes, told in (({}, "give init_from"), ({"init_from": "x", "freeze_d": 1}, "leave freeze_d")):
        with pytest.raises(ValueError, match=told):
            section(total_kimg=0, **changes)
