"""Pickles in the layout of NVIDIA's snapshots, written from our own networks.

The modules that such a pickle names exist only while it is written: a reader that imports one of them fails.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from stylegan2_ada_pytorch import Discriminator, Generator

SMALL: dict[str, Any] = {"channel_base": 128, "channel_max": 16}


class EasyDict(dict[str, Any]):
    """Stands where the official files have `dnnlib.util.EasyDict`."""


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("a reader called the function that a pickle names")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
EasyDict.__module__ = "dnnlib.util"


class Persistent:
    """An object that pickles as an official one does."""

    def __init__(self, class_name: str, state: Mapping[str, Any], source: str = "raise SystemExit") -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


@contextmanager
def official_modules() -> Iterator[None]:
    """Give the stand-ins their places, for pickle to find them by name."""
    modules = {
        name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    modules["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def easy(value: Any) -> Any:
    return EasyDict({k: easy(v) for k, v in value.items()}) if isinstance(value, dict) else value


def persistent(
    module: nn.Module, kwargs: Mapping[str, Any] | None = None, source: str = "raise SystemExit"
) -> Persistent:
    """A module with everything below it; `kwargs` are the arguments it claims to be built with."""
    state: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_forward_hooks": OrderedDict(),
        "_modules": OrderedDict(
            (name, persistent(child, None, source)) for name, child in module._modules.items() if child
        ),
        "weight_gain": np.float64(0.5),
        "padding": [1, 2, 3],
        "activation": "lrelu",
    }
    for name in ("conv_clamp", "group_size"):
        if hasattr(module, name):
            state[name] = getattr(module, name)
    if kwargs is not None:
        state |= {"_init_args": (), "_init_kwargs": easy(kwargs)}
    return Persistent(type(module).__name__, state, source)


def snapshot(
    networks: Mapping[str, nn.Module], stored: bool = True, source: str = "raise SystemExit"
) -> dict[str, Any]:
    """The dictionary of a snapshot; `stored` says whether arguments are kept."""
    parts: dict[str, Any] = {
        name: persistent(network, network.init_kwargs if stored else None, source) for name, network in networks.items()
    }
    pipe = {"_buffers": OrderedDict(p=torch.zeros([]), table=torch.arange(12.0)), "bands": np.arange(6.0).reshape(2, 3)}
    return parts | {
        "augment_pipe": Persistent("AugmentPipe", pipe, source),
        "training_set_kwargs": EasyDict(
            class_name="training.dataset.ImageFolderDataset", path="/data", use_labels=False
        ),
    }


def dumps(value: Any, protocol: int = 4) -> bytes:
    with official_modules():
        return pickle.dumps(value, protocol=protocol)


def randomise(network: Any) -> Any:
    """Give every weight and buffer (but the filters) its own values, so that none can be mistaken."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if not name.endswith("resample_filter"):
            tensor.copy_(tensor + 0.1 * torch.randn(tensor.shape, generator=generator))
    return network.eval().requires_grad_(False)


def generator(
    resolution: int = 16,
    c_dim: int = 0,
    channels: int = 3,
    architecture: str = "skip",
    mapping: Mapping[str, Any] | None = None,
    **synthesis: Any,
) -> Generator:
    return randomise(
        Generator(
            8,
            c_dim,
            12,
            resolution,
            channels,
            mapping_kwargs={"num_layers": 2, **(mapping or {})},
            synthesis_kwargs={**SMALL, "architecture": architecture, "conv_clamp": 256, "num_fp16_res": 4, **synthesis},
        )
    )


def discriminator(
    resolution: int = 16, c_dim: int = 0, channels: int = 3, architecture: str = "resnet", **changes: Any
) -> Discriminator:
    kwargs: dict[str, Any] = {**SMALL, "conv_clamp": 256, "epilogue_kwargs": {"mbstd_group_size": 2}, **changes}
    return randomise(Discriminator(c_dim, resolution, channels, architecture=architecture, **kwargs))
