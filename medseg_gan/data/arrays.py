"""Arrays on disk that do not fit in memory: written piece by piece, and kept in pairs as a store with an index."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import atomic_path, read_json, write_json


class GrowingArray:
    """An `.npy` file that grows along its first axis; it takes its name when complete.

    Example:
        with GrowingArray(folder / "images.npy", np.dtype("u1")) as images:
            images.append(part)  # (N, H, W)
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        """Start an array at `path`."""
        self.dtype, self.count = dtype, 0
        self.shape: tuple[int, ...] = ()
        self._open = ExitStack()
        self._path = path

    def __enter__(self) -> GrowingArray:
        """Use as a context manager; an error leaves what was at `path` as it was."""
        temporary = self._open.enter_context(atomic_path(self._path))
        self._file = self._open.enter_context(temporary.open("wb"))
        return self

    def append(self, items: np.ndarray) -> None:
        """Add `(N, ...)` items, all of the first ones' shape."""
        if not self.count:
            self.shape = items.shape[1:]
            self._header()
        if items.shape[1:] != self.shape:
            raise ValueError(f"items of shape {items.shape[1:]} do not fit the store's {self.shape}")
        self._file.write(np.ascontiguousarray(items, self.dtype).tobytes())
        self.count += len(items)

    def _header(self) -> None:
        # NumPy leaves room in the header for a longer first axis, so it can be written again in place.
        form = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, form)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the header and the name."""
        if kind is None:
            self._file.seek(0)
            self._header()
        self._open.__exit__(kind, error, trace)


def read_index(folder: Path, name: str, noun: str, version: int) -> dict[str, Any]:
    """Index of a store.

    Args:
        folder: of the store.
        name: of the index, whose presence makes the folder a store.
        noun: what the store holds, in the plural.
        version: layout that this code reads.

    Raises:
        MedsegError: it is missing, or of another layout.
    """
    if not (folder / name).is_file():
        raise MedsegError(f"{folder} holds no {noun} ({name} is missing); run the stage that makes it")
    index = read_json(folder / name)
    found = index.get("version") if isinstance(index, dict) else None
    if found != version:
        raise MedsegError(f"{folder} was written by another version (layout {found}); make it again")
    return index


def open_arrays(folder: Path, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of a store, memory-mapped.

    Raises:
        MedsegError: one cannot be read.
    """
    try:
        images, labels = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (first, second))
    except (OSError, EOFError, ValueError) as error:
        raise MedsegError(f"{folder}: {first} or {second} cannot be read ({error}); make the store again") from error
    return images, labels


Writer = TypeVar("Writer", bound="TwoArraysWriter")


class TwoArraysWriter:
    """Writes two arrays of a store part by part, straight to disk; the index, which makes it a store, comes last.

    A subclass appends to `self.arrays` and `self.records`, and says in `index` what the index holds.

    Args:
        folder: of the store.
        name: of the index.
        arrays: the two files' names with their types.
        noun: what the store holds, in the singular.
    """

    def __init__(self, folder: Path, name: str, arrays: Mapping[str, np.dtype[Any]], noun: str) -> None:
        self.folder, self._index, self._files, self._noun = Path(folder), name, arrays, noun
        self.records: list[Any] = []
        self._open = ExitStack()

    def index(self) -> dict[str, Any]:
        """What the index holds."""
        raise NotImplementedError

    def __enter__(self: Writer) -> Writer:
        """Use as a context manager; nothing is a store before it ends without an error."""
        (self.folder / self._index).unlink(missing_ok=True)  # arrays of two stores must never look like one
        self.arrays = [
            self._open.enter_context(GrowingArray(self.folder / name, dtype)) for name, dtype in self._files.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the arrays, then write the index."""
        if kind is None and not self.records:
            error = MedsegError(f"no {self._noun} to write to {self.folder}; wanted at least one")
            self._open.__exit__(MedsegError, error, None)
            raise error
        self._open.__exit__(kind, error, trace)
        if kind is None:
            write_json(self.folder / self._index, self.index())
