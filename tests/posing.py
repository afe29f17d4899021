"""Tensors that pose as a GPU's: they refuse what CUDA refuses, on a machine that has none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
MOVING = (Tensor.to, Tensor.cpu, Tensor.cuda)


class Posing(torch.Tensor):
    """A tensor whose `device` is cuda:0; only what Python calls is watched.

    Example:
        x = posing(torch.ones(2))
        x + torch.ones(2)  # RuntimeError: tensors on cuda and on the CPU
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse a mixture of devices, else do it."""
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU
        if func in MOVING:
            return _moved(func, args, kwargs)
        tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        hosts = [item for item in tensors if not isinstance(item, cls) and item.dim()]
        if func in INDEXING and isinstance(args[0], cls):  # the host may say where, it may not give the values
            hosts = [item for item in hosts if any(item is value for value in args[2:])]
        if hosts:
            raise RuntimeError(f"{func.__name__} of tensors on cuda and on the CPU, {tuple(hosts[0].shape)}")
        if func is Tensor.numpy:
            raise RuntimeError("can't convert cuda:0 device type tensor to numpy")
        return super().__torch_function__(func, types, args, kwargs)


def posing(tensor: Tensor) -> Posing:
    """The same numbers, said to be on cuda:0."""
    return tensor.as_subclass(Posing)


def _moved(func: Any, args: Any, kwargs: Any) -> Tensor:
    """`to`, `cpu` and `cuda`: what changes is what the tensor says of itself."""
    tensor, *rest = args
    named = [torch.device(item) for item in rest if isinstance(item, str | torch.device)]
    devices = [*named, *(item.device for item in rest if isinstance(item, Tensor))]
    device = torch.device(kwargs.pop("device", devices[0] if devices else tensor.device))
    there = device.type == "cuda" if func is Tensor.to else func is Tensor.cuda
    types = [item for item in rest if isinstance(item, torch.dtype)]
    with torch._C.DisableTorchFunctionSubclass():
        plain = tensor.as_subclass(Tensor)
        plain = plain.to(types[0]) if types else plain
    return posing(plain) if there else plain


def all_posing(value: Any) -> Any:
    """Every tensor in a nested value."""
    return tree_map(lambda item: posing(item) if isinstance(item, Tensor) else item, value)
