"""Tensors, storages and arrays in a pickle: stand-ins for functions of torch and NumPy, and their checks."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.weights.pickles import Buildable, Name, RefusedError, call_stand_in, ordered, plain_set, read_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of a file of torch before 1.6, and of every storage inside a pickle until today."""
LEGACY_PROTOCOL = 1001
MAX_DIMENSIONS = 8

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_STORAGE_NAMES = {f"torch.{name}": None for name in _STORAGES}


@dataclass(frozen=True)
class _StoredElsewhere:
    """A storage announced in a legacy stream, whose numbers follow behind the pickles."""

    dtype: torch.dtype
    key: str
    count: int


def read_storage(data: Any) -> Tensor:
    """Stand-in of `torch.storage._load_from_bytes`: one storage in torch's legacy format, as a flat tensor.

    Raises:
        RefusedError: the bytes are anything else, a name is mentioned that is none of torch's storages, or the
            announced size is not that of the bytes.
    """
    if not isinstance(data, bytes):
        raise RefusedError("a storage is not made of bytes")
    if data[:2] == b"PK":
        raise RefusedError("a storage is packed as a zip archive, which torch never writes there")
    stream = io.BytesIO(data)
    if read_pickle(stream, {}) != LEGACY_MAGIC or read_pickle(stream, {}) != LEGACY_PROTOCOL:
        raise RefusedError("a storage is not in torch's format")
    system = read_pickle(stream, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("a storage was written on a big-endian machine; save the network on another one")
    announced = read_pickle(stream, _STORAGE_NAMES, _announced)
    keys = read_pickle(stream, {})
    if not isinstance(announced, _StoredElsewhere) or not isinstance(keys, list) or keys != [announced.key]:
        raise RefusedError("a storage holds more than numbers")
    (count,) = struct.unpack("<q", stream.read(8))
    raw = stream.read()
    if count != announced.count or count * announced.dtype.itemsize != len(raw):
        raise RefusedError(f"a storage announces {announced.count} numbers and holds {len(raw)} bytes")
    return torch.frombuffer(bytearray(raw), dtype=announced.dtype) if raw else torch.empty(0, dtype=announced.dtype)


def _announced(identity: Any) -> _StoredElsewhere:
    kind, name, key, _, count, view = identity
    if kind != "storage" or not isinstance(name, Name) or not isinstance(key, str) or not _is_size(count):
        raise TypeError("no storage")
    if view is not None:
        raise RefusedError("a storage is a part of another one")
    return _StoredElsewhere(_STORAGES[name.path.removeprefix("torch.")], key, count)


class TensorReader:
    """Stand-in of `torch._utils._rebuild_tensor_v2`; together its tensors are no larger than the file."""

    def __init__(self, file_bytes: int) -> None:
        self.file_bytes, self.taken = file_bytes, 0

    def __call__(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> Tensor:
        """A view of a storage, detached.

        Raises:
            RefusedError: the view reaches outside of the storage, shows a number twice, or all tensors together are
                larger than the file.
        """
        if not isinstance(storage, Tensor) or not _is_size(offset) or not (_is_shape(size) and _is_shape(stride)):
            raise TypeError("no tensor")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
        if count > len(storage) or (count and last >= len(storage)):
            raise RefusedError(f"a tensor of shape {size} has a storage of {len(storage)} numbers only")
        self.taken += count * storage.dtype.itemsize
        if self.taken > self.file_bytes:
            raise RefusedError(f"its tensors claim more bytes than the {self.file_bytes} of the file")
        return torch.as_strided(storage, size, stride, offset)


def _parameter(data: Any, *_: Any) -> Tensor:
    """Stand-in of the functions that make a parameter: the tensor itself."""
    if not isinstance(data, Tensor):
        raise TypeError("no tensor")
    return data


def _with_type(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    """Stand-in of `_rebuild_from_type_v2`, a tensor with attributes: the tensor without them."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise TypeError("no tensor")
    return _parameter(call_stand_in(function, arguments))


class _NumberType(Buildable):
    """Stand-in of `numpy.dtype`: numbers only, never objects."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[biuf][1248]", name):
            raise RefusedError(f"a NumPy array of type {str(name)[:20]!r}, wanted numbers")
        self.name, self.order = name, "="

    def build(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise TypeError("no byte order")
        self.order = order

    def numbers(self, raw: Any, count: int) -> np.ndarray:
        kind = np.dtype(self.order + self.name)
        if not isinstance(raw, bytes) or len(raw) != count * kind.itemsize:
            raise RefusedError(f"a NumPy array of {count} numbers does not have as many")
        return np.frombuffer(raw, kind)


class _Array(Buildable):
    """Stand-in of a `numpy.ndarray` that is built from its state."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray | None = None

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if not _is_shape(shape) or not isinstance(kind, _NumberType):
            raise TypeError("no array")
        self.values = kind.numbers(raw, math.prod(shape)).reshape(shape, order="F" if fortran else "C")


def _array_of_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """Stand-in of `numpy.core.numeric._frombuffer` (pickle protocol 5)."""
    array = _Array()
    array.build((1, shape, kind, order == "F", raw))
    return array


def _scalar(kind: Any, raw: Any) -> bool | int | float:
    """Stand-in of `numpy.core.multiarray.scalar`: a plain number."""
    return kind.numbers(raw, 1).item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand-in of `_codecs.encode`, by which old protocols write bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise TypeError("no bytes")
    return text.encode("latin1")


def _device(*parts: Any) -> str:
    return ":".join(str(part)[:20] for part in parts if isinstance(part, (str, int)))


def _size(shape: Any) -> tuple[int, ...]:
    if not _is_shape(shape):
        raise TypeError("no shape")
    return tuple(shape)


def tensor_names(file_bytes: int) -> dict[str, Callable[..., Any] | None]:
    """Every name of Python, torch and NumPy that a file of tensors and plain values needs, with its stand-in.

    Args:
        file_bytes: size of the file, above which no tensors are built.
    """
    rebuild = TensorReader(file_bytes)
    names: dict[str, Callable[..., Any] | None] = {
        "collections.OrderedDict": ordered,
        "builtins.set": plain_set,
        "builtins.frozenset": plain_set,
        "__builtin__.set": plain_set,
        "__builtin__.frozenset": plain_set,
        "_codecs.encode": _encode,
        "torch._utils._rebuild_tensor_v2": rebuild,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch.nn.parameter.Parameter": _parameter,
        "torch._tensor._rebuild_from_type_v2": _with_type,
        "torch.Tensor": None,
        "torch.storage._load_from_bytes": read_storage,
        "torch.Size": _size,
        "torch.device": _device,
        "numpy.dtype": _NumberType,
        "numpy.ndarray": None,
    }
    for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
        names |= {
            f"{core}.multiarray.scalar": _scalar,
            f"{core}.multiarray._reconstruct": _Array,
            f"{core}.numeric._frombuffer": _array_of_buffer,
        }
    for kind in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"):
        names[f"torch.{kind}"] = None
    return names


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) <= MAX_DIMENSIONS and all(map(_is_size, value))
