"""Find masks that a person painted after the stage was finished; a kept stage does not read them."""

from __future__ import annotations

from pathlib import Path

from medseg_gan.annotate.answers import answers_sha256
from medseg_gan.machine.atomic import read_json

ANSWERS = "answers_sha256"
"""Key of `annotator.json`: hash of the masks and rejections that were read."""


def repainted(folder: Path) -> str | None:
    """What to say about a finished stage `annotate`; None where nobody painted, or the answers are those that it read.

    Args:
        folder: of the stage.
    """
    path, person = folder / "annotator.json", folder / "person"
    noted = read_json(path).get(ANSWERS) if path.is_file() else None
    if noted is None or noted == answers_sha256(person):
        return None
    return f"masks in {person} changed since annotate was finished; --rerun annotate takes them"
