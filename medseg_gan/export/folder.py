"""Folders that appear completely or not at all, and never replace another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg_gan.errors import UsageError
from medseg_gan.machine.atomic import full_disk_told, is_full_disk


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it becomes `path`, on failure it is removed.

    Raises:
        UsageError: `path` is a file, or a folder with something in it, or nothing can be written there.
        MedsegError: the disk is full.
    """
    refuse_existing(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with full_disk_told(path):
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same number
            try:
                temporary.mkdir(parents=True)
            except OSError as error:  # its own words name the temporary folder
                if is_full_disk(error):
                    raise
                raise UsageError(f"{path} cannot be written to ({error.strerror}); choose another --out") from error
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with open(file, "rb+") as content:
                        os.fsync(content.fileno())  # the rename must not overtake the content
            os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Say that something is there already, or that nothing can be there, before any work is done.

    Raises:
        UsageError: `path` is a file, or a folder with something in it, or nothing can be written there.
    """
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{path} cannot be made, {above} is a file; choose another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be made, {above} cannot be written to; choose another --out")
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UsageError(f"{path} exists and is not overwritten; remove it, or choose another --out")
