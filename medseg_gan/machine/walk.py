"""The files of a user's data folder: links are followed, hidden files skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from medseg_gan.errors import MedsegError


def walk_folder(root: Path) -> Iterator[Path]:
    """Yield the files at and below `root`, folder by folder, each folder's own files first and sorted.

    Hidden files and folders are left out (`.DS_Store`, `._scan.nii.gz`, `.snapshot/`), broken links too. A folder
    that a link leads back to is visited once.

    Raises:
        MedsegError: a folder cannot be opened.
    """
    seen: set[str] = set()
    for where, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(where)
        if real in seen:  # links can make circles
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _refuse(error: OSError) -> None:
    """A folder that is passed over would be patients left out in silence."""
    raise MedsegError(f"{error.filename} cannot be opened ({error.strerror}); change its permissions or move it away")
