"""Stages and the plan of a run: what each stage was made with, and so whether it is kept, resumed, new or refused."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from medseg_gan.errors import MedsegError, UsageError, did_you_mean
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.walk import walk_folder
from medseg_gan.running.mistakes import show_value
from medseg_gan.running.recipe import Recipe, Section, import_object, recipe_folder

Status = Literal["kept", "resume", "new", "refuse", "rerun", "later"]
MARKS = ("started.json", "done.json")
LOOKED_AT = ("tensorboard", "samples")
"""Subfolders of trainings that only people look at: what is lost there is no reason to train again."""
MOST_HINTS = 4
"""Settings that a refusal gives back to type."""
Record = dict[str, Any]
"""What a stage is made with (`started.json`): its settings, the run's, its upstream's and the data's fingerprints."""


@dataclass(frozen=True)
class Stage:
    """One stage of a system.

    Args:
        name: Its field in the system's recipe.
        function: `"module:function"`, called as `function(config, folder, inputs)`; looked up when it runs.
        folder: Its folder in the run; by default its number and name, `02-train_gan`.
        expected: Text of the expected work for `--dry-run`, from the whole recipe's settings.
        needs: The earlier stages it reads; None means all of them.
        together: All processes of torchrun run it; of a system one stage at most. The others the first runs alone.
        notice: `"module:function"`, called with the folder of the finished stage; returns a line to say where the stage
            is kept, such as that its input changed since, or None.
        free: Names of subfolders, at any depth, that may change or go once it is finished: where a person paints, or
            what nobody reads any more.
    """

    name: str
    function: str
    folder: str | None = None
    expected: Callable[[Any], str] | None = None
    needs: tuple[str, ...] | None = None
    together: bool = False
    notice: str | None = None
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """What a stage gets besides its own settings and its folder."""

    folders: Mapping[str, Path]
    """Folders of the stages it needs, all finished."""
    seed: int
    device: str
    precision: str
    threads: int
    data: Path | None
    """The user's data folder; None: the built-in phantom."""
    run: Path
    recipe: str
    profile: str
    dataset: str
    source: str
    sections: Mapping[str, Section]
    """Settings of every stage, for reports."""
    command: str
    """What to type to go on with this run."""

    def nameless_command(self, phantom: bool) -> str:
        """A command that makes such a run, for reports; the user's folder is not named, it may say whose data it is."""
        data = [] if phantom else ["--data", "DATA"]
        return shlex.join(["medseg-gan", "recipe", self.recipe, *data, "--profile", self.profile])


@dataclass(frozen=True)
class Change:
    """A setting that has another value than before; None where it had none, or has none now."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {show_value(self.old)} -> {show_value(self.new)}"


@dataclass(frozen=True)
class Step:
    """A stage in a plan."""

    stage: Stage
    section: Section
    folder: Path
    needs: tuple[str, ...]
    record: Record
    status: Status
    differences: tuple[Change | str, ...] = ()
    """Settings that changed, and in words what else did."""
    missing: tuple[str, ...] = ()
    """Files that the stage had when it was finished."""
    resized: tuple[str, ...] = ()
    """Files that had another size then."""

    @property
    def refusal(self) -> MedsegError:
        """What a user is told where the settings changed or files are gone."""
        if names := self.missing or self.resized:
            few, many = ("is", "are") if self.missing else ("has", "have")
            verb = f" and {len(names) - 1} more files {many}" if len(names) > 1 else f" {few}"
            what = "missing" if self.missing else "changed in size"
            return MedsegError(
                f"{self.folder} is finished but {names[0]}{verb} {what}; make it anew with --rerun {self.stage.name}"
            )
        changed = ", ".join(map(str, self.differences)) or "unknown"
        return MedsegError(
            f"{self.stage.name}: settings changed since {self.folder} was made ({changed}). "
            f"Use --rerun {self.stage.name} or another --out{self._as_it_was()}."
        )

    def _as_it_was(self) -> str:
        """How to go on with the stage as it is, where the command's or the profile's settings are what changed."""
        words = []
        for change in self.differences:
            if isinstance(change, str) or change.old is None:
                return ""
            place = change.name if change.name.startswith("run.") else f"{self.stage.name}.{change.name}"
            old = change.old if isinstance(change.old, str) else json.dumps(change.old)
            words.append(f"--set {shlex.quote(f'{place}={old}')}")
        return f", or keep it with {' '.join(words)}" if 0 < len(words) <= MOST_HINTS else ""


@dataclass(frozen=True)
class Plan:
    """A recipe about to run in a folder."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    run: Path
    data: Path | None = None
    manifest: Record | None = None
    """What the first stage reads, see `data_manifest`; None: the built-in phantom."""
    device: str = "auto"
    until: str | None = None
    rerun: str | None = None
    profile_named: bool = True
    """Whether the user chose the profile."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        assert names == list(self.recipe.settings.sections), "a system's stages are its recipe's sections, in order"
        assert sum(stage.together for stage in self.stages) <= 1, "processes meet once in a run"
        for option, name in (("--until", self.until), ("--rerun", self.rerun)):
            if name is not None and name not in names:
                hint = did_you_mean(name, names) or f"; wanted one of {', '.join(names)}"
                raise UsageError(f"{option} {name}: there is no such stage{hint}")
        if self.until and self.rerun and names.index(self.until) < names.index(self.rerun):
            raise UsageError(f"--until {self.until} comes before --rerun {self.rerun}; nothing would be run")

    @property
    def command(self) -> str:
        """What to type to go on with this run, in the folder where it was started."""
        header = self.recipe.header
        ours = header.file.parent == recipe_folder()
        words = ["medseg-gan", "recipe", header.name if ours else str(header.file), "--out", str(self.run)]
        words += ["--data", str(self.data)] if self.data else []
        words += ["--profile", self.recipe.profile] if header.profiles else []
        words += ["--device", self.device] if self.device != "auto" else []
        return shlex.join(words + [word for text in self.recipe.sets for word in ("--set", text)])

    def folder(self, stage: Stage) -> Path:
        """A stage's folder."""
        return self.run / (stage.folder or f"{self.stages.index(stage) + 1:02d}-{stage.name}")

    @property
    def folders(self) -> dict[str, Path]:
        """Folders of all stages, by name."""
        return {stage.name: self.folder(stage) for stage in self.stages}

    def finished(self, name: str) -> Path:
        """Folder of a finished stage.

        Raises:
            MedsegError: it is not finished.
        """
        folder = self.folders[name]
        if not (folder / "done.json").is_file():
            raise MedsegError(f"{self.run}: {name} is not finished; run the recipe's command again first")
        return folder

    def finished_folders(self) -> dict[str, Path]:
        """Folders of all finished stages, by name."""
        return {name: folder for name, folder in self.folders.items() if (folder / "done.json").is_file()}

    def check_out(self, out: Path) -> None:
        """Refuse a place for what is made from a run where it would mix with what the stages made.

        Raises:
            UsageError: it lies in a stage's folder, or is a file.
        """
        for name, folder in self.folders.items():
            if out.resolve().is_relative_to(folder.resolve()):
                raise UsageError(f"--out {out} lies in the folder of the stage {name}; choose another")
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file, wanted a folder")

    def inputs(self, device: str, names: Collection[str] | None = None) -> Inputs:
        """What a stage gets.

        Args:
            device: `cpu` or `cuda`.
            names: stages whose folders it gets; None: all.
        """
        settings, header = self.recipe.settings, self.recipe.header
        return Inputs(
            folders={name: folder for name, folder in self.folders.items() if names is None or name in names},
            seed=settings.run.seed,
            device=device,
            precision=self.precision(),
            threads=settings.run.threads,
            data=self.data,
            run=self.run,
            recipe=header.name,
            profile=self.recipe.profile,
            dataset=header.dataset,
            source=header.source,
            sections=settings.sections,
            command=self.command,
        )

    def precision(self) -> str:
        """The precision asked for; `auto` is what the run's earlier stages were made with, once there are any."""
        asked: str = self.recipe.settings.run.precision
        for stage in self.stages:
            if asked != "auto" or stage.name == self.rerun:
                break
            if (self.folder(stage) / "started.json").is_file():
                return str(read_json(self.folder(stage) / "started.json")["run"]["precision"])
        return asked

    def steps(self) -> list[Step]:
        """Every stage with its status, judged against the run folder as it is now."""
        precision = self.precision()
        names = [stage.name for stage in self.stages]
        first_rerun = names.index(self.rerun) if self.rerun else len(names)
        last = names.index(self.until) if self.until else len(names)
        fingerprints: dict[str, str] = {}
        steps: list[Step] = []
        for number, stage in enumerate(self.stages):
            needs = tuple(names[:number]) if stage.needs is None else stage.needs
            section = self.recipe.settings.sections[stage.name]
            record: Record = {
                "stage": stage.name,
                "settings": result_settings(section),
                "run": {"seed": self.recipe.settings.run.seed, "precision": precision},
                "upstream": {name: fingerprints[name] for name in needs},
            }
            if number == 0:
                record["data"] = self.manifest or {"kind": "phantom"}
            text = json.dumps(record, sort_keys=True)
            record["fingerprint"] = fingerprints[stage.name] = hashlib.sha256(text.encode()).hexdigest()
            folder = self.folder(stage)
            status, differences = _compare(folder, record)
            missing, resized = _damaged_files(folder) if status == "kept" else ((), ())
            status = "refuse" if missing or resized else status
            if number >= first_rerun:
                status = "rerun" if folder.exists() else "new"
            if number > last:
                status = "later"
            steps.append(Step(stage, section, folder, needs, record, status, differences, missing, resized))
        return steps


def result_settings(section: BaseModel) -> Record:
    """A section's settings as plain values, without those marked as unable to change the result.

    One marked `"fingerprint": "unless default"` is younger than runs without it, whose meaning it must not change; one
    marked with another setting's value, such as `{"use": "best"}`, counts where that has it.
    """
    settings = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        value = getattr(section, name)
        mark = extra.get("fingerprint") if isinstance(extra, dict) else None
        unread = isinstance(mark, dict) and any(getattr(section, other) != wanted for other, wanted in mark.items())
        if mark is False or unread or (mark == "unless default" and value == field.default):
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


def _compare(folder: Path, record: Record) -> tuple[Status, tuple[Change | str, ...]]:
    """Status of a stage folder against what the stage would be made with now.

    A stage that failed before it made anything is new: mended data or settings are not refused for its sake.
    """
    if not (folder / "started.json").is_file():
        return "new", ()
    old = read_json(folder / "started.json")
    if not isinstance(old, dict):
        raise MedsegError(f"{folder / 'started.json'} does not say how the stage was made; it was edited, remove it")
    if old.get("fingerprint") != record["fingerprint"]:
        empty = all(path.name == "started.json" for path in folder.rglob("*") if path.is_file())
        return ("new", ()) if empty else ("refuse", tuple(_differences(old, record)))
    return ("kept" if (folder / "done.json").is_file() else "resume"), ()


def notice(step: Step) -> str | None:
    """What there is to say about a stage that is kept."""
    return import_object(step.stage.notice)(step.folder) if step.stage.notice else None


def slow_default(plan: Plan, steps: Collection[Step], device: str) -> str | None:
    """What to say before work without a GPU begins with the profile `paper` that nobody asked for.

    Args:
        plan: of the run.
        steps: of the plan.
        device: `cpu`, `cuda`, or `auto` where nobody has looked yet.
    """
    header, profile = plan.recipe.header, plan.recipe.profile
    idle = all(step.status in ("kept", "later") for step in steps)
    if plan.profile_named or profile != "paper" or device == "cuda" or idle:
        return None
    slow, quick = (f"expected hours: {header.expected.get(name, 'not stated')}" for name in (profile, "demo"))
    told = f"profile {profile} was taken, as none was named ({slow}; on a CPU far more); for a quicker run name"
    if "demo" in header.profiles:
        return f"{told} --profile demo ({quick})"
    return f"{told} one of the profiles {', '.join(header.profiles)}"


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


def _damaged_files(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files noted in `done.json` that are gone, and those of another size.

    Stages of before noted the names in their own folder alone, or nothing.
    """
    done = read_json(folder / "done.json")
    noted = done.get("files", {}) if isinstance(done, dict) else {}
    sizes = noted if isinstance(noted, dict) else dict.fromkeys(noted)
    missing = [name for name in sizes if not (folder / name).exists()]
    resized = [
        name
        for name, size in sizes.items()
        if size is not None and name not in missing and (folder / name).stat().st_size != size
    ]
    return tuple(missing), tuple(resized)


def _differences(old: Record, new: Record) -> list[Change | str]:
    """What changed: settings, and in words what else did."""
    changes: list[Change | str] = [*changed_values(old.get("settings", {}), new["settings"])]
    changes += changed_values(old.get("run", {}), new["run"], "run")
    if old.get("data") != new.get("data"):
        changes.append(f"data: {_describe(old.get('data'))} -> {_describe(new.get('data'))}")
    if not changes:  # a run setting changes everything upstream too; say it once
        before = old.get("upstream", {})
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
