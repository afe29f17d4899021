"""Write files completely or not at all: under a temporary name that is then renamed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from medseg_gan.errors import MedsegError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it takes the place of `path`, on failure it is removed.

    The suffix is kept, so that writers which look at it (nibabel, PIL) behave as for the final name. The temporary file
    is there already, empty and new: a link of its name or of the name of `path` leads no writer elsewhere.

    Raises:
        MedsegError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with full_disk_told(path):
            temporary.unlink(missing_ok=True)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # the rename must not overtake the content
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_no_link(path: str | os.PathLike[str], mode: str = "a+") -> IO[Any]:
    """Open a file that is kept and written in place, such as a lock: never the file that a link of its name leads to.

    Raises:
        MedsegError: `path` is a link.
    """
    try:
        return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise MedsegError(f"{path} is a link, which is not followed when writing; remove it and run again") from error


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Let a full disk be told in one line that names what was being written.

    Raises:
        MedsegError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            raise MedsegError(f"disk full while writing {path}; free space and run the same command again") from error
        raise


def is_full_disk(error: OSError) -> bool:
    """Whether a write failed for want of room; NumPy reports a write cut short without an error number."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "requested and" in str(error)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write plain values as indented JSON; NaN and infinity are refused, JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        MedsegError: the file is missing or not valid JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MedsegError(f"{path} does not exist; run the stage that makes it") from error
    except ValueError as error:
        raise MedsegError(f"{path} is not valid JSON ({error}); it was cut off or edited, remove it") from error


def write_array(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as `.npy`, never pickled."""
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write `(H, W)` or `(H, W, 3)` uint8 as a lossless PNG."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, format="PNG")
