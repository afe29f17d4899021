"""Stages and the plan of a run: which stage is kept, resumed, new or refused."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medseg_gan.errors import MedsegError, UsageError, did_you_mean
from medseg_gan.machine.atomic import read_json
from medseg_gan.running.recipe import Recipe, Section, import_object, recipe_folder
from medseg_gan.running.record import OUTDATED, VERSION, Change, Record, Status, compare, damaged_files, result_settings

MOST_HINTS = 4
"""Settings that a refusal gives back to type."""
S = TypeVar("S", bound=Section)
Reads = tuple[type[Section], ...]


@dataclass(frozen=True)
class Stage:
    """One stage of a system.

    Args:
        name: Its field in the system's recipe.
        function: `"module:function"`, called as `function(config, folder, inputs)`; looked up when it runs.
        folder: Its folder in the run; by default its number and name, `02-train_gan`.
        expected: Text of the expected work for `--dry-run`, from the whole recipe's settings.
        needs: The earlier stages it reads; None means all of them.
        reads: Classes of the other stages' settings that it reads, `inputs.section(Prepare)`; where that depends on
            settings, a function of the whole recipe's. They decide whether the finished stage is kept. A class that a
            stage's section extends stands for its own fields alone.
        check: `"module:function"`, called as `check(config, inputs)` before any stage runs, and again before each
            earlier one: it refuses what this stage could not use before hours are spent. `inputs.folders` holds the
            stages that are finished by then, `inputs.section` what `reads` names.
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
    reads: Reads | Callable[[Any], Reads] = ()
    check: str | None = None
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
    reads: tuple[Section, ...]
    """Settings of the other stages that it declares to read."""
    command: str
    """What to type to go on with this run."""

    def section(self, kind: type[S]) -> S:
        """Settings of the stage whose section is, or extends, a class that this stage declares to read."""
        found = [section for section in self.reads if isinstance(section, kind)]
        assert len(found) == 1, f"a stage that reads {kind.__name__} names it in its `reads`"
        return found[0]

    def nameless_command(self, phantom: bool) -> str:
        """A command that makes such a run, for reports; the user's folder is not named, it may say whose data it is."""
        data = [] if phantom else ["--data", "DATA"]
        return shlex.join(["medseg-gan", "recipe", self.recipe, *data, "--profile", self.profile])


@dataclass(frozen=True)
class Step:
    """A stage in a plan."""

    stage: Stage
    section: Section
    folder: Path
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
        if OUTDATED in self.differences:
            return MedsegError(
                f"{self.folder} was {OUTDATED}, and this version does not continue such runs. "
                f"Use --rerun {self.stage.name} or another --out."
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
            elsewhere = change.name.partition(".")[0] in ("run", *self.record["reads"])
            place = change.name if elsewhere else f"{self.stage.name}.{change.name}"
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

    def reads(self, stage: Stage) -> dict[str, Section]:
        """Settings that a stage reads, by the name of the stage they are of."""
        settings = self.recipe.settings
        found: dict[str, Section] = {}
        for kind in stage.reads(settings) if callable(stage.reads) else stage.reads:
            (name,) = (name for name, section in settings.sections.items() if isinstance(section, kind))
            section = settings.sections[name]
            if type(section) is not kind:
                section = kind.model_validate({field: getattr(section, field) for field in kind.model_fields})
            found[name] = section
        return found

    def inputs(self, device: str, stage: Stage | None = None) -> Inputs:
        """What a stage gets; without one, the folders and settings of all, for what is made from a run."""
        settings, header = self.recipe.settings, self.recipe.header
        names = self.needs(stage) if stage else self.folders
        return Inputs(
            folders={name: folder for name, folder in self.folders.items() if name in names},
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
            reads=tuple((self.reads(stage) if stage else settings.sections).values()),
            command=self.command,
        )

    def needs(self, stage: Stage) -> tuple[str, ...]:
        """The earlier stages that a stage reads."""
        earlier = self.stages[: self.stages.index(stage)]
        return tuple(one.name for one in earlier) if stage.needs is None else stage.needs

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
            section = self.recipe.settings.sections[stage.name]
            record: Record = {
                "version": VERSION,
                "stage": stage.name,
                "settings": result_settings(section),
                "reads": {name: result_settings(read) for name, read in self.reads(stage).items()},
                "run": {"seed": self.recipe.settings.run.seed, "precision": precision},
                "upstream": {name: fingerprints[name] for name in self.needs(stage)},
            }
            if number == 0:
                record["data"] = self.manifest or {"kind": "phantom"}
            text = json.dumps(record, sort_keys=True)
            record["fingerprint"] = fingerprints[stage.name] = hashlib.sha256(text.encode()).hexdigest()
            folder = self.folder(stage)
            status, differences = compare(folder, record, section)
            missing, resized = damaged_files(folder) if status == "kept" else ((), ())
            status = "refuse" if missing or resized else status
            if number >= first_rerun:
                status = "rerun" if folder.exists() else "new"
            if number > last:
                status = "later"
            steps.append(Step(stage, section, folder, record, status, differences, missing, resized))
        return steps


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
