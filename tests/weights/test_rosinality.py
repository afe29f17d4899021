"""Weights in stylegan2-pytorch's layout make the same images and logits after conversion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from rosinality_reference import generate, judge, make_discriminator, make_generator
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.weights.files import load_network_pkl
from medseg_gan.weights.pickles import RefusedError
from medseg_gan.weights.rosinality import convert_rosinality

CHANNELS = {4: 8, 8: 8, 16: 6, 32: 3}
SIZES = [8, 16, 32]


def channels_up_to(resolution: int) -> dict[int, int]:
    return {r: count for r, count in CHANNELS.items() if r <= resolution}


def generator_state(resolution: int = 16) -> dict[str, Tensor]:
    return make_generator(resolution, channels_up_to(resolution))


@pytest.mark.parametrize("resolution", SIZES)
def test_the_generator_makes_the_same_images(resolution: int) -> None:
    state = generator_state(resolution)
    G: Any = convert_rosinality({"g_ema": state, "latent_avg": torch.zeros(12)})["G_ema"]
    z = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    expected = generate(state, z)
    assert G.img_resolution == resolution and G.num_ws == len([n for n in state if n.startswith("noises.")]) + 1
    torch.testing.assert_close(G(z, noise_mode="const"), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("resolution", SIZES)
def test_the_discriminator_gives_the_same_logits(resolution: int) -> None:
    state = make_discriminator(resolution, channels_up_to(resolution))
    D: Any = convert_rosinality({"d": state})["D"]
    image = torch.randn(8, 3, resolution, resolution, generator=torch.Generator().manual_seed(3))
    image = image * torch.linspace(0.5, 10, 8)[:, None, None, None]  # judged differently
    expected = judge(state, image)
    assert expected.std() > 0.5
    torch.testing.assert_close(D(image), expected, rtol=1e-4, atol=1e-4)


def test_stored_weights_keep_their_numbers() -> None:
    state = generator_state()
    new = convert_rosinality({"g_ema": state})["G_ema"].state_dict()
    assert torch.equal(new["synthesis.b16.conv0.weight"], state["convs.2.conv.weight"][0])
    assert torch.equal(new["synthesis.b8.torgb.weight"], state["to_rgbs.0.conv.weight"][0])
    assert torch.equal(new["mapping.fc2.weight"], state["style.3.weight"])


def test_the_mean_w_is_taken_over_or_measured() -> None:
    state = generator_state()
    mean = torch.arange(12.0)
    known: Any = convert_rosinality({"g_ema": state, "latent_avg": mean})["G_ema"]
    assert torch.equal(known.mapping.w_avg, mean)
    measured: Any = convert_rosinality({"g_ema": state})["G_ema"]
    w = known.mapping(torch.randn(20_000, 12, generator=torch.Generator().manual_seed(4)))[:, 0]
    torch.testing.assert_close(measured.mapping.w_avg, w.mean(0), rtol=0, atol=6 * float(w.std()) / 20_000**0.5)
    again: Any = convert_rosinality({"g_ema": state})["G_ema"]
    assert torch.equal(measured.mapping.w_avg, again.mapping.w_avg)


def test_a_whole_checkpoint_is_read_with_its_options_and_optimisers(tmp_path: Path) -> None:
    g, d = generator_state(), make_discriminator(16, channels_up_to(16))
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    saved = {"g": g, "d": d, "g_ema": g, "g_optim": optimiser.state_dict(), "args": argparse.Namespace(size=16)}
    for new_format in (True, False):
        torch.save(saved, tmp_path / "w.pt", _use_new_zipfile_serialization=new_format)
        assert list(load_network_pkl(tmp_path / "w.pt")) == ["G", "D", "G_ema"]
    torch.save(g, tmp_path / "state.pt")
    assert list(load_network_pkl(tmp_path / "state.pt")) == ["G_ema"]


def test_biases_of_either_shape_are_read() -> None:
    state = generator_state()
    new = convert_rosinality({"g_ema": state})["G_ema"].state_dict()
    old = {n: t.reshape(1, -1, 1, 1) if n.endswith("activate.bias") else t for n, t in state.items()}
    found = convert_rosinality({"g_ema": old})["G_ema"].state_dict()
    assert all(torch.equal(new[name], found[name]) for name in new)


def without(name: str) -> dict[str, Tensor]:
    state = generator_state()
    del state[name]
    return state


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (without("style.2.weight"), "g_ema: .*style.2.weight|g_ema: .*style.3"),
        (without("conv1.noise.weight"), "lacks conv1.noise.weight"),
        (without("noises.noise_3"), "lacks noises.noise_3"),
        (generator_state() | {"more": torch.zeros(1)}, "has more besides"),
        (generator_state() | {"conv1.conv.weight": torch.zeros(8, 8, 3, 3)}, "wanted \\(1, O, I, k, k\\)"),
        (generator_state() | {"noises.noise_2": torch.zeros(1, 1, 4, 4)}, "noise_2 has shape"),
        (generator_state() | {"to_rgbs.0.upsample.kernel": torch.ones(4, 4)}, "not the filter"),
        (generator_state() | {"conv1.activate.bias": torch.full((8,), torch.inf)}, "not finite"),
        (generator_state() | {"conv1.activate.bias": "text"}, "dictionary of tensors"),
        ({}, "lacks"),
    ],
)
def test_other_states_are_refused(state: Any, match: str) -> None:
    with pytest.raises(RefusedError, match=match):
        convert_rosinality({"g_ema": state})


@pytest.mark.parametrize("seed", range(4))
def test_tensors_of_any_other_shape_are_refused(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    odd = [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(1, 2, 3, 4, 5, 6),
        torch.zeros(3, 3),
        torch.zeros(2, dtype=torch.bool),
    ]
    for key, whole in (("g_ema", generator_state(8)), ("d", make_discriminator(8, channels_up_to(8)))):
        for name in whole:
            value = odd[int(torch.randint(len(odd), (1,), generator=draw))]
            if value.numel() == whole[name].numel():
                continue  # one number is one number
            with pytest.raises(RefusedError) as caught:
                convert_rosinality({key: whole | {name: value}})
            assert "\n" not in str(caught.value)
    with pytest.raises(RefusedError, match="latent_avg"):
        convert_rosinality({"g_ema": generator_state(8), "latent_avg": torch.zeros(13)})


def test_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Acts:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(canary)!r}, 'w').close()",)

    for new_format in (True, False):
        torch.save(
            {"g_ema": generator_state(), "x": Acts()}, tmp_path / "w.pt", _use_new_zipfile_serialization=new_format
        )
        with pytest.raises(MedsegError, match="exec"):
            load_network_pkl(tmp_path / "w.pt")
        assert not canary.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert canary.exists()  # the file does act where it is trusted
