"""Start a training from existing weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from medseg_gan.errors import MedsegError
from medseg_gan.training.log import say as say_line
from medseg_gan.weights.architecture import discriminator_shape, generator_shape
from medseg_gan.weights.files import load_network_pkl
from medseg_gan.weights.grey import to_grey
from stylegan2_ada_pytorch import Discriminator, Generator

_SETTINGS = {  # what a shape is called in its setting
    "img_resolution": "the image size",
    "img_channels": "the images' channels",
    "num_layers": "mapping_layers",
    "channels": "channel_base and channel_max",
    "c_dim": "labels (c_dim)",
}
_LR_MULTIPLIER = 0.01  # of every mapping network trained here


def start_from(
    path: Path, G: Generator, D: Discriminator, G_ema: Generator, say: Callable[[str], None] = say_line
) -> None:
    """Give three networks the weights of a file.

    Weights of colour networks become grey ones (`to_grey`) where the networks here have one channel. Where the file has
    only one of G and G_ema, both get it; without D, D keeps its random weights; either is said. A bound `conv_clamp` of
    the file is not taken over: it guards fp16, in which nothing is trained here.

    Args:
        path: a file that `load_network_pkl` reads.
        G, D, G_ema: of the training to come, changed in place.
        say: prints a line.

    Raises:
        MedsegError: the file is not usable, or its networks are others than those to train.
    """
    found: dict[str, Any] = dict(load_network_pkl(path))
    grey = G.img_channels == 1 and any(network.img_channels == 3 for network in found.values())
    if grey:
        found = {name: to_grey(n) if n.img_channels == 3 else n for name, n in found.items()}
    generator = found.get("G") or found.get("G_ema")
    average = found.get("G_ema") or found.get("G")
    if generator is None or average is None:
        raise MedsegError(f"init_from {path} has no generator, only {', '.join(found)}; wanted G or G_ema")
    if "D" not in found and any(name.endswith("weight") for name, _ in D.named_buffers()):
        raise MedsegError(f"init_from {path} has no D, and freeze_d would freeze random weights; leave freeze_d out")
    for network in (generator, average):
        _check_generator(path, network, G)
    if "D" in found:
        _check(path, "discriminator", discriminator_shape(found["D"].state_dict()), discriminator_shape(D.state_dict()))
    _load(path, G, generator)
    _load(path, G_ema, average)
    if "D" in found:
        _load(path, D, found["D"])
    said = f"init_from: {', '.join(found)} of {path}" + (", turned from colour to grey" if grey else "")
    one_of_two = next((name for name in ("G", "G_ema") if name not in found), None)
    said += f"; it has no {one_of_two}, both begin alike" if one_of_two else ""
    said += "" if "D" in found else "; it has no D, which begins with random weights"
    say(said)


def take_generator(path: Path, resolution: int, channels: int, say: Callable[[str], None] = say_line) -> Generator:
    """The averaged generator of a file as it is: trained elsewhere, to be used here; its sizes are its own.

    Args:
        path: a file that `load_network_pkl` reads; colour becomes grey where the images are grey.
        resolution: side of the images here.
        channels: of the images here.
        say: prints a line.

    Raises:
        MedsegError: the file has no generator, or one of other images or of labels.
    """
    found = load_network_pkl(path)
    G = found.get("G_ema") or found.get("G")
    if not isinstance(G, Generator):
        raise MedsegError(f"init_from {path} has no generator, only {', '.join(found)}; wanted G_ema or G")
    if channels == 1 and G.img_channels == 3:
        G = to_grey(G)
    wanted = {"img_resolution": resolution, "img_channels": channels, "c_dim": 0}
    _check(path, "generator", {name: getattr(G, name) for name in wanted}, wanted)
    say(f"init_from: the generator of {path} is taken as it is, total_kimg 0 trains nothing")
    return G


def _check_generator(path: Path, found: Generator, wanted: Generator) -> None:
    _check(path, "generator", generator_shape(found.state_dict()), generator_shape(wanted.state_dict()))
    rate = found.init_kwargs["mapping_kwargs"].get("lr_multiplier", _LR_MULTIPLIER)
    if rate != _LR_MULTIPLIER:
        raise MedsegError(f"init_from {path}: its mapping network has lr_multiplier {rate}, wanted {_LR_MULTIPLIER}")


def _check(path: Path, kind: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    names = [name for name in wanted if found.get(name) != wanted[name]]
    if names:
        told = ", ".join(f"{_SETTINGS.get(name, name)}: {found.get(name)}, wanted {wanted[name]}" for name in names)
        raise MedsegError(
            f"init_from {path}: its {kind} is another than the settings ask for ({told}); "
            "change the settings or choose other weights"
        )


def _load(path: Path, target: nn.Module, source: nn.Module) -> None:
    try:
        target.load_state_dict(source.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise MedsegError(f"init_from {path}: the weights do not fit ({reason}); choose other weights") from error
