"""Weight files of every kind are told apart, converted without loss, and anything else is refused in one line."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from official_pickles import discriminator, dumps, generator, snapshot
from typer.testing import CliRunner

from medseg_gan import api
from medseg_gan.cli import app
from medseg_gan.errors import MedsegError
from medseg_gan.training.stylegan2 import load_generator, save_generator
from medseg_gan.weights.files import convert_weights, describe_networks, load_network_pkl


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "network.pkl"
    path.write_bytes(dumps(snapshot({"G": generator(), "D": discriminator(), "G_ema": generator()})))
    return path


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(one) == list(other)
    for name in one:
        first, second = one[name].state_dict(), other[name].state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert one[name].init_kwargs == other[name].init_kwargs


def test_a_converted_file_holds_the_same_networks(official: Path, tmp_path: Path) -> None:
    networks = load_network_pkl(official)
    assert_same(convert_weights(official, tmp_path / "a.pt"), networks)
    assert_same(load_network_pkl(tmp_path / "a.pt"), networks)
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(saved) == ["networks", "images_seen"]
    convert_weights(tmp_path / "a.pt", tmp_path / "b.pt")
    assert_same(load_network_pkl(tmp_path / "b.pt"), networks)


def test_the_generator_of_a_converted_file_loads_as_one_of_a_run(official: Path, tmp_path: Path) -> None:
    convert_weights(official, tmp_path / "a.pt")
    G: Any = load_network_pkl(official)["G_ema"]
    z = torch.randn(2, 8)
    assert torch.equal(load_generator(tmp_path / "a.pt")(z, noise_mode="const"), G(z, noise_mode="const"))
    save_generator(tmp_path / "G_ema.pt", G, images_seen=7)
    assert_same(load_network_pkl(tmp_path / "G_ema.pt"), {"G_ema": G})


def test_a_file_without_average_is_no_generator(tmp_path: Path) -> None:
    (tmp_path / "d.pkl").write_bytes(dumps(snapshot({"D": discriminator()})))
    assert list(convert_weights(tmp_path / "d.pkl", tmp_path / "d.pt")) == ["D"]
    with pytest.raises(MedsegError, match="is no generator"):
        load_generator(tmp_path / "d.pt")


def test_the_api_offers_it() -> None:
    assert api.load_network_pkl is load_network_pkl and api.convert_weights is convert_weights


def test_one_line_says_what_was_found(official: Path) -> None:
    networks = load_network_pkl(official)
    assert describe_networks(networks) == (
        "G, D, G_ema; 16 x 16, 3 channels; z 8, w 12, c 0, 2 mapping layers; generator skip; "
        "channel_base 128, channel_max 16; conv_clamp 256; discriminator resnet"
    )
    assert describe_networks({"D": networks["D"]}) == "D; 16 x 16, 3 channels; c 0; discriminator resnet"


def test_the_command_converts_and_says_one_line(official: Path, tmp_path: Path) -> None:
    target = tmp_path / "G.pt"
    result = CliRunner().invoke(app, ["import-weights", str(official), str(target)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}: {describe_networks(load_network_pkl(official))}\n"
    result = CliRunner().invoke(app, ["import-weights", str(official), str(target), "--grey"])
    assert result.exit_code == 0 and "16 x 16, 1 channel;" in result.stdout
    assert {n.img_channels for n in load_network_pkl(target).values()} == {1}
    result = CliRunner().invoke(app, ["import-weights", str(tmp_path / "none.pkl"), str(target)])
    assert result.exit_code == 1 and result.stderr == f"error: {tmp_path / 'none.pkl'} does not exist; check the path\n"


def test_a_target_that_would_do_harm_is_refused(official: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="is the file to read"):
        convert_weights(official, official)
    with pytest.raises(MedsegError, match="is a folder"):
        convert_weights(official, tmp_path)
    assert load_network_pkl(official)


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it is empty"),
        (b"\x80", "has 1 bytes only"),
        (b"network weights, not really\n" * 10, "a text file"),
        ("größe\n".encode() * 900, "a text file"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (safetensors(), "a safetensors file"),
        (b"\x1f\x8b" + bytes(30), "compressed"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(255)), "no pickle"),
        (bytes(100), "text file|no pickle"),
        (b"\x80\x02" + bytes(range(200, 255)), "damaged|instruction"),
        (b"PK\x03\x04" + bytes(100), "archive"),
        (b"(dp0\nS'a'\np1\nI1\ns." + b" " * 10, "a text file"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(MedsegError, match=match) as caught:
        load_network_pkl(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="it is a folder"):
        load_network_pkl(tmp_path)
    with pytest.raises(MedsegError, match="does not exist"):
        load_network_pkl(tmp_path / "none.pkl")


def test_cut_off_files_are_refused(official: Path, tmp_path: Path) -> None:
    convert_weights(official, tmp_path / "a.pt")
    for source in (official, tmp_path / "a.pt"):
        whole = source.read_bytes()
        for share in (0.01, 0.3, 0.9, 0.999):
            (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(MedsegError, match=r"cut off|cut-off|damaged"):
                load_network_pkl(tmp_path / "cut")


def test_an_archive_that_announces_more_than_it_has_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"}.")
        archive.writestr("archive/data/0", bytes(20_000_000))
    with pytest.raises(MedsegError, match="announces 200000"):
        load_network_pkl(tmp_path / "bomb.pt")


def test_a_giant_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "giant.pkl").open("wb") as file:
        os.truncate(file.fileno(), 5 << 30)  # takes no room
    with pytest.raises(MedsegError, match=r"5\.0 GB"):
        load_network_pkl(tmp_path / "giant.pkl")


def test_settings_of_our_own_format_are_checked_too(official: Path, tmp_path: Path) -> None:
    convert_weights(official, tmp_path / "a.pt")
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    saved["networks"]["G_ema"]["init_kwargs"]["mapping_kwargs"]["num_layers"] = 10**9
    torch.save(saved, tmp_path / "b.pt")
    with pytest.raises(MedsegError, match="num_layers 1000000000, its tensors 2"):
        load_network_pkl(tmp_path / "b.pt")
    torch.save({"weights": torch.zeros(2), "epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(MedsegError, match="it holds weights, epoch; wanted"):
        load_network_pkl(tmp_path / "c.pt")
    torch.save({"networks": {"G": 3}}, tmp_path / "d.pt")
    with pytest.raises(MedsegError, match="G lacks its tensors"):
        load_network_pkl(tmp_path / "d.pt")
