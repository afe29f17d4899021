"""Official pickles are read to the last bit, whatever the network, and nothing in them runs."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from official_pickles import Persistent, discriminator, dumps, generator, persistent, snapshot
from torch import nn

from medseg_gan.errors import MedsegError
from medseg_gan.weights.files import load_network_pkl
from medseg_gan.weights.official import read_networks
from medseg_gan.weights.pickles import RefusedError


def assert_same(found: Any, wanted: Any) -> None:
    one, other = found.state_dict(), wanted.state_dict()
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def output(network: Any) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    c = torch.eye(max(network.c_dim, 1))[:1].repeat(4, 1) if network.c_dim else None
    if hasattr(network, "mapping") and hasattr(network, "synthesis"):
        return network(torch.randn(4, network.z_dim, generator=draw), c, truncation_psi=0.7, noise_mode="const")
    return network(torch.randn(4, network.img_channels, *[network.img_resolution] * 2, generator=draw), c)


def clamp(network: Any) -> float | None:
    kwargs = network.init_kwargs
    return kwargs.get("synthesis_kwargs", kwargs).get("conv_clamp")


NETWORKS = {
    "usual": ({}, {}),
    "conditional": ({"c_dim": 3}, {"c_dim": 3}),
    "resnet": ({"architecture": "resnet"}, {"architecture": "skip"}),
    "orig": ({"architecture": "orig"}, {"architecture": "orig"}),
    "small": ({"resolution": 8}, {"resolution": 8}),
    "large": ({"resolution": 64, "channel_base": 512}, {"resolution": 64, "channel_base": 512}),
    "grey, no clamp": ({"channels": 1, "conv_clamp": None}, {"channels": 1, "conv_clamp": None}),
    "deep mapping": (
        {"c_dim": 2, "mapping": {"num_layers": 8, "layer_features": 10, "embed_features": 5, "lr_multiplier": 0.02}},
        {"c_dim": 2, "mapping_kwargs": {"num_layers": 3, "layer_features": 7}, "cmap_dim": 9},
    ),
    "frozen": ({}, {"block_kwargs": {"freeze_layers": 4}}),
    "no noise, no spread": ({"use_noise": False}, {"epilogue_kwargs": {"mbstd_num_channels": 0}}),
    "whole batch": ({}, {"epilogue_kwargs": {"mbstd_group_size": None}}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_read_to_the_last_bit(name: str) -> None:
    for_g, for_d = NETWORKS[name]
    wanted = {"G": generator(**for_g), "D": discriminator(**for_d), "G_ema": generator(**for_g)}
    found = read_networks(dumps(snapshot(wanted)))
    assert list(found) == list(wanted)
    for key in wanted:
        assert_same(found[key], wanted[key])
        assert torch.equal(output(found[key]), output(wanted[key]))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("deep mapping", "whole batch")])
def test_without_stored_arguments_the_shapes_tell_them(name: str) -> None:
    for_g, for_d = NETWORKS[name]
    wanted = {"D": discriminator(**for_d), "G_ema": generator(**for_g)}
    found = read_networks(dumps(snapshot(wanted, stored=False)))
    for key in wanted:
        assert_same(found[key], wanted[key])
        assert torch.equal(output(found[key]), output(wanted[key]))
        assert clamp(found[key]) == clamp(wanted[key])


def test_the_published_clamp_is_assumed_where_nothing_tells_it() -> None:
    G = generator(conv_clamp=None)
    value = snapshot({"G_ema": G}, stored=False)

    def forget(part: Persistent) -> None:
        part.meta["state"].pop("conv_clamp", None)
        for child in part.meta["state"]["_modules"].values():
            forget(child)

    forget(value["G_ema"])
    found = read_networks(dumps(value))["G_ema"]
    assert found.init_kwargs["synthesis_kwargs"]["conv_clamp"] == 256


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(protocol: int) -> None:
    G = generator()
    assert_same(read_networks(dumps(snapshot({"G_ema": G}), protocol))["G_ema"], G)


def test_names_of_old_and_new_numpy() -> None:
    G = generator()
    data = dumps(snapshot({"G_ema": G}), protocol=3)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    assert data.count(new) + data.count(old) >= 2  # a scalar and an array
    for there, wanted in ((new, old), (old, new)):
        assert_same(read_networks(data.replace(there, wanted))["G_ema"], G)


def test_positional_arguments_are_understood() -> None:
    G = generator()
    value = snapshot({"G_ema": G})
    state = value["G_ema"].meta["state"]
    kwargs = state["_init_kwargs"]
    state["_init_args"] = tuple(kwargs.pop(name) for name in ("z_dim", "c_dim", "w_dim"))
    assert_same(read_networks(dumps(value))["G_ema"], G)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (("z_dim",), 9, "z_dim 9, its tensors 8"),
        (("img_channels",), 1, "img_channels 1, its tensors 3"),
        (("img_resolution",), 2**20, "img_resolution 1048576"),
        (("synthesis_kwargs", "channel_base"), 256, "16 channels at|8 channels at"),
        (("synthesis_kwargs", "channel_base"), 2**40, "wanted a whole number"),
        (("synthesis_kwargs", "architecture"), "resnet", "architecture resnet, its tensors skip"),
        (("synthesis_kwargs", "activation"), "swish", "activation is not lrelu"),
        (("synthesis_kwargs", "fancy"), 1, "fancy is not one"),
        (("synthesis_kwargs",), [1], "is a list"),
        (("mapping_kwargs", "num_layers"), 10**9, "num_layers 1000000000, its tensors 2"),
        (("mapping_kwargs", "lr_multiplier"), "x", "wanted a number"),
    ],
)
def test_arguments_that_contradict_the_tensors_are_refused(place: tuple[str, ...], value: Any, match: str) -> None:
    content = snapshot({"G_ema": generator()})
    target = content["G_ema"].meta["state"]["_init_kwargs"]
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(RefusedError, match=match):
        read_networks(dumps(content))


def changed(**tensors: Any) -> dict[str, Any]:
    content = snapshot({"G_ema": generator()})
    layer = content["G_ema"].meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["b8"]
    layer.meta["state"]["_modules"]["conv0"].meta["state"]["_parameters"].update(tensors)
    return content


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (changed(weight=torch.zeros(16, 16, 5, 5)), "b8.conv0.weight has shape"),
        (changed(weight=torch.full((16, 16, 3, 3), torch.nan)), "not finite"),
        (changed(weight=torch.zeros(16, 16, 3, 3, dtype=torch.int64)), "not finite numbers"),
        (changed(weight=None), "lacks synthesis.b8.conv0.weight"),
        (changed(more=torch.zeros(2)), "besides what is known synthesis.b8.conv0.more"),
        (changed(weight="text"), "wanted a tensor"),
        ({"G_ema": persistent(nn.Linear(2, 2), {})}, "StyleGAN2|lacks|no tensor|resolutions"),
        ({"G_ema": 3}, "without any of the networks"),
        ({"G_ema": persistent(generator(), None), "D": "text"}, "D is a str"),
        ([1, 2], "without any of the networks"),
        ({}, "without any of the networks"),
    ],
)
def test_other_contents_are_refused(content: Any, match: str) -> None:
    with pytest.raises(RefusedError, match=match):
        read_networks(dumps(content))


def test_other_filters_are_refused() -> None:
    G = generator()
    G.synthesis.b8.resample_filter.copy_(torch.eye(4) / 4)
    with pytest.raises(RefusedError, match=r"not the filter \[1, 3, 3, 1\]"):
        read_networks(dumps(snapshot({"G_ema": G})))


def test_stylegan3_is_named() -> None:
    content = snapshot({"G_ema": generator()})
    content["G_ema"].meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["input"] = Persistent(
        "SynthesisInput", {"_buffers": {"transform": torch.eye(3)}}
    )
    with pytest.raises(RefusedError, match="StyleGAN3"):
        read_networks(dumps(content))


def test_the_source_inside_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = f"open({str(canary)!r}, 'w').close()"
    exec(source)  # the source does what it says
    assert canary.exists()
    canary.unlink()
    read_networks(dumps(snapshot({"G_ema": generator()}, source=source)))
    assert not canary.exists()


def test_modules_that_contain_each_other_are_refused() -> None:
    content = snapshot({"G_ema": generator()})
    state = content["G_ema"].meta["state"]
    inner = state
    for _ in range(40):
        inner["_modules"] = {**inner["_modules"], "again": Persistent("X", {"_modules": {}})}
        inner = inner["_modules"]["again"].meta["state"]
    with pytest.raises(RefusedError, match="contain each other"):
        read_networks(dumps(content))
    shared = Persistent("X", {})
    for _ in range(14):  # 4^14 modules, all the same few
        shared = Persistent("X", {"_modules": {"a": shared, "b": shared, "c": shared, "d": shared}})
    with pytest.raises(RefusedError, match="too many"):
        read_networks(dumps({"G_ema": shared}))
    cycle = (
        b"\x80\x04}q\x00X\x05\x00\x00\x00G_ema"
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
        b"(}(X\x04\x00\x00\x00typeX\x05\x00\x00\x00classX\x0a\x00\x00\x00class_nameX\x01\x00\x00\x00X"
        b"X\x05\x00\x00\x00state}q\x01ut"
        b"Rq\x02s"
        b"0h\x01X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x02ss0h\x00."
    )
    with pytest.raises(RefusedError, match="contain each other"):
        read_networks(cycle)


ODD: list[Any] = [
    *(None, True, -1, 0, 10**400, float("nan"), "text", b"bytes", (), [[]], {"a": 1}, {1: 2}, {1, 2}),
    *(torch.zeros(2), torch.zeros(()), torch.zeros(0, 3), torch.zeros(1, 2, 3, 4, 5), Persistent("X", {})),
]


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every entry of every dictionary in a snapshot."""
    found = []
    inside = content.meta if isinstance(content, Persistent) else content
    for key, value in inside.items() if isinstance(inside, dict) else ():
        found += [(inside, key), *places(value)]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_any_value_in_any_place_is_read_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    content = snapshot({"G_ema": generator(8, c_dim=2), "D": discriminator(8, c_dim=2)})
    for inside, key in draw.sample(places(content), 40):
        before = inside[key]
        inside[key] = draw.choice(ODD)
        try:
            read_networks(dumps(content))
        except RefusedError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 400
        inside[key] = before
    assert len(read_networks(dumps(content))) == 2


def test_tensorflow_pickles_are_explained(tmp_path: Path) -> None:
    data = b"\x80\x03(" + b"cdnnlib.tflib.network\nNetwork\n)\x81}b" * 3 + b"t."
    (tmp_path / "tf.pkl").write_bytes(data)
    with pytest.raises(MedsegError, match=r"dnnlib.tflib.network.Network.*TensorFlow.*legacy.py"):
        load_network_pkl(tmp_path / "tf.pkl")


def test_the_writer_of_these_tests_is_like_the_official_one() -> None:
    """Python's own unpickler fails on the names, as it should where NVIDIA's code is not installed."""
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(dumps(snapshot({"G_ema": generator()})))
