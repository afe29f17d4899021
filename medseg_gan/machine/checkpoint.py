"""Checkpoints: named objects saved together, atomically, as tensors and plain values only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import atomic_path

_FULL_DISK = ("file write failed", "No space", "unexpected pos", "iostream error")


def save_checkpoint(path: str | os.PathLike[str], **objects: Any) -> None:
    """Save each object's `state_dict()` (or the plain value itself) under its name.

    Raises:
        MedsegError: the disk is full.
        TypeError: a value is neither a tensor, a plain value nor an object with a state.
    """
    state = {
        name: plain(name, item.state_dict() if hasattr(item, "state_dict") else item) for name, item in objects.items()
    }
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:  # a path's name would be written into the file: equal ones would differ
                torch.save(state, file)
        except RuntimeError as error:  # torch's zip writer reports a full disk in its own words
            if any(words in str(error) for words in _FULL_DISK):
                raise MedsegError(
                    f"disk full while writing {path}; free space and run the same command again"
                ) from error
            raise


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file is executed.

    Raises:
        MedsegError: the file is missing, cut off, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        remedy = _made_anew(path) or "run the stage that makes it, or check the path"
        raise MedsegError(f"{path} does not exist; {remedy}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0][:120]
        remedy = _made_anew(path) or "remove it and run again"
        raise MedsegError(f"{path} is not a checkpoint of ours or was cut off ({reason}); {remedy}") from error
    if not isinstance(state, dict):
        raise MedsegError(f"{path} holds a {type(state).__name__}, wanted a dictionary of named objects")
    return state


def _made_anew(path: Path) -> str | None:
    """How a file of a finished stage comes back: not by running on, which keeps the stage; None: it is of none."""
    folder = next((parent for parent in path.parents if (parent / "done.json").is_file()), None)
    if folder is None:
        return None
    name = re.sub(r"^\d+-", "", folder.resolve().name)
    return f"{name} was finished, make it anew with --rerun {name}"


def restore(path: str | os.PathLike[str], **objects: Any) -> dict[str, Any]:
    """Load the named objects' states in place and return everything else in the file.

    Raises:
        MedsegError: a name is missing or a state does not fit.
    """
    state = load_checkpoint(path)
    for name, item in objects.items():
        if name not in state:
            raise MedsegError(f"{path} has no {name}; it holds {', '.join(sorted(state))}")
        try:
            item.load_state_dict(state.pop(name))
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MedsegError(f"{path}: {name} does not fit ({reason}); it belongs to other settings") from error
    return state


def latest_checkpoint(
    folder: str | os.PathLike[str], pattern: str = "checkpoint-*.pt", most: int | None = None
) -> Path | None:
    """The file with the highest number in its name, `most` at the utmost; None when the folder has none."""
    found = {path: int((re.findall(r"\d+", path.stem) or ["0"])[-1]) for path in Path(folder).glob(pattern)}
    found = {path: number for path, number in found.items() if most is None or number <= most}
    return max(found, key=lambda path: found[path]) if found else None


def plain(name: str, value: Any) -> Any:
    """A value as a checkpoint gives it back: dictionaries and lists copied down to tensors and plain values.

    Raises:
        TypeError: it holds anything else, which would need code to load.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().clone()  # its memory layout stays: fused Adam pairs weights and moments by it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {key: plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(f"{name}[{k}]", item) for k, item in enumerate(value)]
    raise TypeError(f"checkpoint entry {name} is a {type(value).__name__}; only tensors and plain values are saved")
