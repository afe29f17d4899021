"""Names that were read from a file and become part of a path: plain names, never a way out of a folder."""

from __future__ import annotations

import re
from pathlib import Path

from medseg_gan.errors import MedsegError

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: object, file: Path) -> str:
    """A name that `file` holds, before it becomes part of a path.

    Raises:
        MedsegError: it is not a plain name, so it could lead out of the folder.
    """
    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or ".." in name:
        raise MedsegError(
            f"{file} holds the name {name!r:.90}, which could lead out of its folder; wanted at most 64 letters, "
            "digits, dots, hyphens and underscores; the file was edited, do not use it"
        )
    return name
