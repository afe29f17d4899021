"""NVIDIA's StyleGAN2-ADA pickles: networks from their tensors and settings, without reading the source inside."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from medseg_gan.weights.arrays import tensor_names
from medseg_gan.weights.assembly import PUBLISHED_CLAMP, PUBLISHED_GROUP, Network, build_discriminator, build_generator
from medseg_gan.weights.pickles import RefusedError, ordered, read_pickle

NETWORKS = ("G", "D", "G_ema")

_MAX_DEPTH = 16  # modules inside modules; a generator has four levels
_MAX_MODULES = 10_000
_POSITIONAL = {
    "G": ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs"),
    "D": ("c_dim", "img_resolution", "img_channels", "architecture", "channel_base", "channel_max", "num_fp16_res"),
}


@dataclass(frozen=True)
class Record:
    """What a pickled NVIDIA object says about itself; never the object."""

    class_name: str
    state: Mapping[str, Any]


def read_networks(data: bytes) -> dict[str, Network]:
    """Read the networks of a pickle by NVIDIA's code (StyleGAN2-ADA, and StyleGAN2 of the StyleGAN3 repository).

    Such a file carries Python source that NVIDIA's loader executes. Here each object becomes an inert record of its
    class name and values, and our own network is built from its tensors.

    Args:
        data: the whole file.

    Returns:
        Those of `G`, `D`, `G_ema` that the file has, in evaluation mode.

    Raises:
        RefusedError: the file holds anything that is not needed for this, or other networks.
    """
    names: dict[str, Callable[..., Any] | None] = tensor_names(len(data))
    names |= {
        "torch_utils.persistence._reconstruct_persistent_obj": _record,
        "dnnlib.util.EasyDict": ordered,
        "dnnlib.EasyDict": ordered,
    }
    value = read_pickle(io.BytesIO(data), names, explain=_explain)
    if not isinstance(value, dict) or not any(isinstance(value.get(name), Record) for name in NETWORKS):
        raise RefusedError(f"it is a pickle without any of the networks {', '.join(NETWORKS)}")
    networks = {}
    for name in NETWORKS:
        record = value.get(name)
        if isinstance(record, Record):
            try:
                networks[name] = _build(name, record)
            except RefusedError as error:
                raise RefusedError(f"{name}: {error}") from error
        elif record is not None:
            raise RefusedError(f"{name} is a {type(record).__name__}, wanted a network")
    return networks


def _record(meta: Any) -> Record:
    """Stand-in of `_reconstruct_persistent_obj`; `module_src` is dropped unread."""
    name, state = meta["class_name"], meta["state"]
    if meta["type"] != "class" or not isinstance(name, str) or not isinstance(state, dict):
        raise TypeError("no persistent class")
    return Record(name, state)


def _explain(path: str) -> str:
    if path.startswith(("dnnlib.tflib.", "tfutil.")):
        return (
            " (this is a checkpoint of the TensorFlow code; convert it with legacy.py of NVIDIA's "
            "stylegan2-ada-pytorch first)"
        )
    return ""


def _build(name: str, record: Record) -> Network:
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Mapping[str, Any]] = {}
    _collect(record, "", tensors, attributes, depth=0)
    stored = _stored_settings(record, "D" if name == "D" else "G")
    default = PUBLISHED_CLAMP if stored is None else None  # the code's own default is no clamp
    layer = attributes.get("b4.conv" if name == "D" else "synthesis.b4.conv1", {})
    clamp = layer.get("conv_clamp", default)
    if clamp is not None and (type(clamp) not in (int, float) or not 0 < clamp < float("inf")):
        raise RefusedError("its conv_clamp is not a number")
    if name != "D":
        return build_generator(tensors, stored, clamp)
    group = attributes.get("b4.mbstd", {}).get("group_size", PUBLISHED_GROUP)
    return build_discriminator(tensors, stored, clamp, group if type(group) is int else None)


def _stored_settings(record: Record, kind: str) -> dict[str, Any] | None:
    """Arguments the network was made with, positional ones by their names; None when the file has none."""
    args, kwargs = record.state.get("_init_args", ()), record.state.get("_init_kwargs")
    if not isinstance(args, tuple) or not isinstance(kwargs, (dict, type(None))) or len(args) > len(_POSITIONAL[kind]):
        raise RefusedError("its settings are not written as NVIDIA's code does")
    if kwargs is None and not args:
        return None
    named = {str(key): value for key, value in (kwargs or {}).items()}
    return dict(zip(_POSITIONAL[kind], args, strict=False)) | named


def _collect(
    record: Record, prefix: str, tensors: dict[str, Tensor], attributes: dict[str, Mapping[str, Any]], depth: int
) -> None:
    """Add a module's tensors by dotted name, and its state, and those of the modules inside it."""
    if depth > _MAX_DEPTH or len(attributes) > _MAX_MODULES:
        raise RefusedError("its modules contain each other, or too many of them")
    attributes[prefix.removesuffix(".")] = record.state
    hidden = record.state.get("_non_persistent_buffers_set")
    if not isinstance(hidden, (set, frozenset)):  # older than torch 1.5
        hidden = frozenset()
    for kind in ("_parameters", "_buffers"):
        for name, value in _items(record, kind):
            if value is None or (kind == "_buffers" and name in hidden):
                continue
            if not isinstance(value, Tensor):
                raise RefusedError(f"its {prefix}{name:.60} is a {type(value).__name__}, wanted a tensor")
            tensors[prefix + name] = value
    for name, value in _items(record, "_modules"):
        if value is None:
            continue
        if not isinstance(value, Record):
            raise RefusedError(f"its {prefix}{name:.60} is a {type(value).__name__}, wanted a module")
        _collect(value, f"{prefix}{name}.", tensors, attributes, depth + 1)


def _items(record: Record, kind: str) -> list[tuple[str, Any]]:
    values = record.state.get(kind, {})
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise RefusedError(f"its {kind} are not named values")
    return list(values.items())
