"""Weight files of all known kinds: what a file is, its networks, and our safe format."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.weights.assembly import Network, build_discriminator, build_generator
from medseg_gan.weights.grey import to_grey
from medseg_gan.weights.official import NETWORKS, read_networks
from medseg_gan.weights.pickles import RefusedError
from medseg_gan.weights.rosinality import convert_rosinality, is_rosinality
from stylegan2_ada_pytorch import Generator

MAX_BYTES = 4 << 30  # the published files have up to 0.4 GB

_LEGACY_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.save before 1.6, behind two bytes
_WANTED = (
    "wanted network.pkl of stylegan2-ada-pytorch, a .pt of stylegan2-pytorch, or a G_ema.pt or converted file of ours"
)


def load_network_pkl(path: str | os.PathLike[str]) -> dict[str, Network]:
    """Read the networks of a weight file; nothing in the file is executed or imported.

    Args:
        path: NVIDIA's `network.pkl` (StyleGAN2-ADA in PyTorch), a `.pt` in the layout of rosinality's
            stylegan2-pytorch, a file of `convert_weights`, or the `G_ema.pt` of a run.

    Returns:
        Those of `G`, `D`, `G_ema` that the file has: our `Generator` and `Discriminator`, in evaluation mode, without
        gradients, with the configuration in `init_kwargs`.

    Raises:
        MedsegError: the file is missing, of another kind, damaged, holds other networks, or mentions anything but
            tensors and plain values; then the message names it.

    Example:
        G = load_network_pkl("network.pkl")["G_ema"]
        images = G(torch.randn(4, G.z_dim), truncation_psi=0.7, noise_mode="const")
    """
    path = Path(path)
    try:
        start = _first_bytes(path)
        if start[:2] == b"PK" or start[2:14] == _LEGACY_TORCH:
            return _torch_networks(path, archive=start[:2] == b"PK")
        if start[:1] != b"\x80" or start[1] not in range(2, 6):
            raise RefusedError(f"it is {_kind_of(start)}")
        return read_networks(path.read_bytes())
    except RefusedError as error:
        raise MedsegError(f"{path}: {error}; {_WANTED}") from error


def convert_weights(
    source: str | os.PathLike[str], target: str | os.PathLike[str], grey: bool = False
) -> dict[str, Network]:
    """Write the networks of a weight file in our format: tensors and plain values, one entry for each network.

    Args:
        source: as for `load_network_pkl`.
        target: gets `{"networks": {"G_ema": {"init_kwargs": ..., "state_dict": ...}, ...}, "images_seen": None}`;
            `load_generator` reads its `G_ema`.
        grey: turn networks of three channels into networks of one, see `to_grey`.

    Returns:
        The networks written.

    Raises:
        MedsegError: `source` is not usable, or `target` would replace it.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise MedsegError(f"{target} is the file to read; give another name to write")
    if target.is_dir():
        raise MedsegError(f"{target} is a folder; give the name of a file to write, such as {target / 'G.pt'}")
    networks = load_network_pkl(source)
    if grey:
        networks = {name: to_grey(network) for name, network in networks.items()}
    save_networks(target, networks)
    return networks


def save_networks(path: Path, networks: Mapping[str, Network]) -> None:
    """Write networks in our format."""
    parts = {name: {"init_kwargs": n.init_kwargs, "state_dict": n.state_dict()} for name, n in networks.items()}
    save_checkpoint(path, networks=parts, images_seen=None)


def describe_networks(networks: Mapping[str, Network]) -> str:
    """One line on what was found: networks, image, latent sizes, architectures."""
    first = networks.get("G_ema") or networks.get("G") or networks["D"]
    size = f"{first.img_resolution} x {first.img_resolution}, {first.img_channels} channel"
    parts = [", ".join(networks), size + ("s" if first.img_channels > 1 else "")]
    if isinstance(first, Generator):
        mapping, synthesis = first.init_kwargs["mapping_kwargs"], first.init_kwargs["synthesis_kwargs"]
        parts.append(
            f"z {first.z_dim}, w {first.w_dim}, c {first.c_dim}, {mapping.get('num_layers', 8)} mapping layers"
        )
        parts.append(f"generator {synthesis.get('architecture', 'skip')}")
        parts.append(f"channel_base {synthesis.get('channel_base', 32768)}, channel_max {synthesis['channel_max']}")
        parts.append(f"conv_clamp {_number(synthesis.get('conv_clamp'))}")
    else:
        parts.append(f"c {first.c_dim}")
    if "D" in networks:
        parts.append(f"discriminator {networks['D'].init_kwargs['architecture']}")
    return "; ".join(parts)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _first_bytes(path: Path) -> bytes:
    """The start of a file of a sensible size."""
    if path.is_dir():
        raise RefusedError("it is a folder")
    if not path.is_file():
        raise MedsegError(f"{path} does not exist; check the path")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise RefusedError(f"it has {size / 2**30:.1f} GB, more than any such network ({MAX_BYTES >> 30} GB)")
    if size < 16:
        raise RefusedError("it is empty" if not size else f"it has {size} bytes only")
    with path.open("rb") as file:
        return file.read(4096)


def _kind_of(data: bytes) -> str:
    if data[8:10] in (b'{"', b"{ "):
        return "a safetensors file, which does not say what its tensors belong to"
    if data.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself"
    if data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z")):
        return "a compressed file; unpack it first"
    if data.lstrip()[:1] == b"<":
        return "a web page, not the file it links to"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < 4090:  # a character may be cut at the end
            return "no pickle"
    return "a text file"


def _torch_networks(path: Path, archive: bool) -> dict[str, Network]:
    """The networks of a file of `torch.save`."""
    if archive:
        _check_archive(path, path.stat().st_size)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a training's options; a bare list of values
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()
        named = next((line for line in reason if "GLOBAL" in line), reason[0])
        raise RefusedError(f"torch does not read it as tensors and plain values ({named[:160]})") from error
    if not isinstance(saved, dict):
        raise RefusedError(f"it holds a {type(saved).__name__}")
    if is_rosinality(saved):
        return convert_rosinality(saved)
    if "init_kwargs" in saved and "state_dict" in saved:
        saved = {"networks": {"G_ema": saved}}
    return _our_networks(saved)


def _our_networks(saved: Mapping[str, Any]) -> dict[str, Network]:
    parts = saved.get("networks")
    if not isinstance(parts, dict) or not any(name in parts for name in NETWORKS):
        raise RefusedError(f"it holds {', '.join(str(name)[:30] for name in list(saved)[:8]) or 'nothing'}")
    networks: dict[str, Network] = {}
    for name in NETWORKS:
        if name not in parts:
            continue
        part = parts[name] if isinstance(parts[name], dict) else {}
        tensors, kwargs = part.get("state_dict"), part.get("init_kwargs")
        if not isinstance(kwargs, dict) or not isinstance(tensors, dict) or not _are_tensors(tensors):
            raise RefusedError(f"{name} lacks its tensors or its settings")
        try:
            networks[name] = (
                build_discriminator(tensors, kwargs, None, 4) if name == "D" else build_generator(tensors, kwargs, None)
            )
        except RefusedError as error:
            raise RefusedError(f"{name}: {error}") from error
    return networks


def _are_tensors(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def _check_archive(path: Path, size: int) -> None:
    """An archive of torch is not compressed: what it announces is in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            announced = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise RefusedError("it is a damaged or cut-off archive") from error
    if announced > size:
        raise RefusedError(f"its archive announces {announced} bytes and has {size}")
