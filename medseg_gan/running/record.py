"""What a stage was made with and left behind, and what is different now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.walk import walk_folder
from medseg_gan.running.mistakes import show_value
from medseg_gan.running.recipe import Section

Status = Literal["kept", "resume", "new", "refuse", "rerun", "later"]
Record = dict[str, Any]
"""What a stage is made with (`started.json`): settings, its own and those it reads, and the fingerprints before it."""
VERSION = 1
"""Of `Record`."""
OUTDATED = "made by an earlier version of medseg-gan"
"""What differs where the record is of another version: such a run is refused, not repaired."""
MARKS = ("started.json", "done.json")
LOOKED_AT = ("tensorboard", "samples")
"""Subfolders of trainings that only people look at: what is lost there is no reason to train again."""


@dataclass(frozen=True)
class Change:
    """A setting that has another value than before; None where it had none, or has none now."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {show_value(self.old)} -> {show_value(self.new)}"


def result_settings(section: BaseModel) -> Record:
    """A section's settings as plain values, without those marked as unable to change the result.

    One marked with another setting's value, such as `"fingerprint": {"use": "best"}`, counts where that has it.
    """
    settings = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        value = getattr(section, name)
        mark = extra.get("fingerprint") if isinstance(extra, dict) else None
        unread = isinstance(mark, dict) and any(getattr(section, other) != wanted for other, wanted in mark.items())
        if mark is False or unread:
            del settings[field.alias or name]
        elif isinstance(value, BaseModel):
            settings[field.alias or name] = result_settings(value)
    return settings


def data_manifest(folder: Path) -> Record:
    """Count and fingerprint of a data folder: relative paths, sizes and times of its files, links followed.

    Hidden files do not count: looking into a folder makes some systems write them. Only the hash of the names is kept:
    file names of medical data can identify people.
    """
    digest = hashlib.sha256()
    files = total = 0
    for path in walk_folder(folder):
        stat = path.stat()
        digest.update(os.fsencode(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
        files, total = files + 1, total + stat.st_size
    return {"kind": "folder", "files": files, "bytes": total, "sha256": digest.hexdigest()}


def finished_files(folder: Path, free: Collection[str] = ()) -> dict[str, int]:
    """Sizes of the files that a stage just finished must keep, by their paths from its folder.

    Not counted are its marks, hidden files, checkpoints, and whatever lies in a folder named in `LOOKED_AT` or `free`.
    """
    free = {*LOOKED_AT, *free}
    sizes = {}
    for path in walk_folder(folder):
        name = path.relative_to(folder)
        own_mark = len(name.parts) == 1 and name.name in MARKS
        if free.isdisjoint(name.parts[:-1]) and not own_mark and not name.name.startswith("checkpoint-"):
            sizes[name.as_posix()] = path.stat().st_size
    return sizes


def damaged_files(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files noted in `done.json` that are gone, and those of another size."""
    sizes: dict[str, int] = read_json(folder / "done.json")["files"]
    missing = [name for name in sizes if not (folder / name).exists()]
    resized = [name for name in sizes if name not in missing and (folder / name).stat().st_size != sizes[name]]
    return tuple(missing), tuple(resized)


def compare(folder: Path, record: Record, section: Section) -> tuple[Status, tuple[Change | str, ...]]:
    """Status of a stage folder against what the stage would be made with now.

    A stage that failed before it made anything is new: mended data or settings are not refused for its sake. One that
    differs in length alone is resumed where its section says that it can be.
    """
    if not (folder / "started.json").is_file():
        return "new", ()
    old = read_json(folder / "started.json")
    if not isinstance(old, dict):
        raise MedsegError(f"{folder / 'started.json'} does not say how the stage was made; it was edited, remove it")
    if old.get("fingerprint") != record["fingerprint"]:
        empty = all(path.name == "started.json" for path in folder.rglob("*") if path.is_file())
        if empty:
            return "new", ()
        changes = differences(old, record)
        if all(isinstance(change, Change) and change.name in lengths(section) for change in changes):
            reason = section.new_length(folder)
            return ("refuse", (*changes, reason)) if reason else ("resume", ())
        return "refuse", tuple(changes)
    return ("kept" if (folder / "done.json").is_file() else "resume"), ()


def lengths(section: BaseModel) -> list[str]:
    """Settings of a section that say only how long it lasts."""
    extras = {name: field.json_schema_extra for name, field in type(section).model_fields.items()}
    return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("length")]


def differences(old: Record, new: Record) -> list[Change | str]:
    """What changed: settings, and in words what else did."""
    if old.get("version") != VERSION:
        return [OUTDATED]
    changes: list[Change | str] = [*changed_values(old["settings"], new["settings"])]
    changes += changed_values(old["reads"], new["reads"])
    changes += changed_values(old["run"], new["run"], "run")
    if old.get("data") != new.get("data"):
        changes.append(f"data: {_describe(old.get('data'))} -> {_describe(new.get('data'))}")
    if not changes:  # a run setting changes everything upstream too; say it once
        before = old["upstream"]
        changed = [name for name, fingerprint in new["upstream"].items() if before.get(name) != fingerprint]
        changes = [f"{name} was made with other settings" for name in changed]
    return changes


def changed_values(old: Any, new: Any, prefix: str = "") -> list[Change]:
    """Differing leaves of two nested mappings; as text `lr: 0.002 -> 0.001`."""
    if isinstance(old, dict) and isinstance(new, dict):
        dot = f"{prefix}." if prefix else ""
        keys = [*new, *(key for key in old if key not in new)]
        return [change for key in keys for change in changed_values(old.get(key), new.get(key), f"{dot}{key}")]
    return [] if old == new else [Change(prefix, old, new)]


def _describe(manifest: Record | None) -> str:
    """A data manifest in a few words."""
    if not manifest or manifest.get("kind") != "folder":
        return "the built-in phantom"
    return f"{manifest['files']} files of {manifest['bytes'] / 1e6:.1f} MB ({manifest['sha256'][:8]})"
