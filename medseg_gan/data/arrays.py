"""Arrays too large for memory, written to disk piece by piece."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from medseg_gan.atomic import atomic_path


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
