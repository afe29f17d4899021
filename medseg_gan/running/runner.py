"""Run a plan's stages in order: one process per run folder, `started.json` first, `done.json` last."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch

from medseg_gan import __version__
from medseg_gan.errors import MedsegError, UsageError, WaitingForPerson
from medseg_gan.machine import processes
from medseg_gan.machine.atomic import is_full_disk, open_no_link, read_json, write_json, write_text
from medseg_gan.machine.device import processor_name, resolve_device, resolve_precision, set_threads
from medseg_gan.machine.memory import peak_memory_mb
from medseg_gan.running.recipe import import_object, resolved_text
from medseg_gan.running.record import finished_files
from medseg_gan.running.stages import Inputs, Plan, Stage, Step, notice, slow_default

_PACKAGES = ("torch", "torchvision", "monai", "pytorch-ignite", "numpy")


def run_plan(plan: Plan, say: Callable[[str], None] = print) -> Path:
    """Run every stage that is not finished and return the run folder.

    Started by torchrun, all processes call it alike; the first does the work, and in the stage marked `together` the
    others take part. Killed at any moment, the same call goes on: a finished stage is kept, an unfinished one is called
    again with its folder as it was left.

    Args:
        plan: The recipe, its stages and its folder.
        say: Where a line per stage goes.

    Raises:
        MedsegError: settings changed since a stage was made, another process works in the folder, the disk is full,
            or whatever a stage has to say.
    """
    device = resolve_device(plan.device)
    if not processes.is_first():
        _take_part(plan, device)
        return plan.run
    with _disk_full_said_plainly(plan.run), _alone_in(plan.run):
        plan = _decided(plan, device)
        steps = plan.steps()
        for step in steps:
            if step.status == "refuse":
                raise step.refusal
        if line := slow_default(plan, steps, device):
            say(line)
        if plan.rerun:
            say(_set_aside(plan, steps))
        write_text(plan.run / "recipe.yaml", resolved_text(plan.recipe, device=device, medseg_gan=__version__))

        width = max(len(step.folder.name) for step in steps)
        if not any(step.stage.together and step.status not in ("kept", "later") for step in steps):
            with processes.group(device):
                pass  # the others are not needed
        for step in steps:
            name = f"{step.folder.name:{width}}"
            if step.status == "kept":
                say(f"{name}  kept")
                if line := notice(step):
                    say(line)
            elif step.status != "later":
                _check_ahead(plan, steps[steps.index(step) :], device)
                say(f"{name}  {'resumed' if step.status == 'resume' else 'started'}")
                seconds = _run_step(step, plan.inputs(device, step.stage))
                say(f"{name}  done in {_duration(seconds)}")
    return plan.run


def _decided(plan: Plan, device: str) -> Plan:
    """The plan with `precision: auto` turned into the precision of this machine or of the run's earlier stages."""
    settings = plan.recipe.settings
    run = settings.run.model_copy(update={"precision": resolve_precision(plan.precision(), device)})
    return replace(plan, recipe=replace(plan.recipe, settings=settings.model_copy(update={"run": run})))


def _check_ahead(plan: Plan, steps: list[Step], device: str) -> None:
    """Let every stage that has not begun look at what it would refuse, before the next one runs for hours."""
    finished = plan.finished_folders()
    for step in steps:
        begun = step.status not in ("new", "rerun") and step.folder.exists()
        if step.stage.check and not begun:
            inputs = plan.inputs(device, step.stage)
            folders = {name: folder for name, folder in inputs.folders.items() if name in finished}
            import_object(step.stage.check)(step.section, replace(inputs, folders=folders))


def _run_step(step: Step, inputs: Inputs) -> float:
    """Call one stage between its two marks; returns the seconds of this attempt."""
    function = import_object(step.stage.function)
    attempts = _earlier_attempts(step.folder)
    step.folder.mkdir(parents=True, exist_ok=True)
    (step.folder / "done.json").unlink(missing_ok=True)  # of a shorter training that goes on
    start = time.time()
    record = {**step.record, "attempts": [*attempts, {"started": start}]}
    write_json(step.folder / "started.json", record)
    threads = set_threads(inputs.threads or _own_cores(step.stage))
    if inputs.device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    with _disk_full_said_plainly(step.folder), damage_traced(inputs.folders):
        _call(function, step, inputs)

    seconds = time.time() - start
    done = {
        "stage": step.stage.name,
        "fingerprint": step.record["fingerprint"],
        "seconds": round(seconds, 3),
        "total_seconds": round(seconds + sum(attempt["seconds"] for attempt in attempts), 3),
        "attempts": len(attempts) + 1,
        "peak_mb": peak_memory_mb(),
        "device": inputs.device,
        "precision": inputs.precision,
        "threads": threads,
        **({"processes": processes.launched()} if step.stage.together else {}),
        **provenance(),
        "files": finished_files(step.folder, step.stage.free),
    }
    if inputs.device == "cuda":
        done["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        done["gpu"] = torch.cuda.get_device_name()
    write_json(step.folder / "done.json", done)
    return seconds


def _call(function: Callable[..., None], step: Step, inputs: Inputs) -> None:
    """Call a stage's function, with the other processes where they take part."""
    if step.stage.together:
        with processes.group(inputs.device, word=f"{step.stage.name} {inputs.precision}"):
            function(step.section, step.folder, inputs)
    else:
        function(step.section, step.folder, inputs)


def _take_part(plan: Plan, device: str) -> None:
    """Wait for the stage that needs all processes, and run it with them; marks and messages are the first one's."""
    with processes.group(device) as word:
        if not word:
            return
        name, precision = word.split()
        settings = plan.recipe.settings
        run = settings.run.model_copy(update={"precision": precision})
        plan = replace(plan, recipe=replace(plan.recipe, settings=settings.model_copy(update={"run": run})))
        step = next(step for step in plan.steps() if step.stage.name == name)
        inputs = plan.inputs(device, step.stage)
        set_threads(inputs.threads or _own_cores(step.stage))
        import_object(step.stage.function)(step.section, step.folder, inputs)


def _own_cores(stage: Stage) -> int:
    """Threads of this process where all cores are asked for: its share of them, in a stage that all processes run."""
    return max(1, (os.cpu_count() or 1) // processes.neighbours()) if stage.together else 0


def provenance() -> dict[str, Any]:
    """Versions of code and libraries, and the processor."""
    return {
        "medseg_gan": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "processor": processor_name(),
    }


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """Hold the run folder's lock; it goes with the process, however that ends.

    A POSIX record lock, because a forked worker does not inherit it: one that outlives a killed run cannot keep the
    same command from going on.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"--out {run} is a file, wanted a folder")
    if run.is_dir() and any(run.iterdir()) and not (run / "lock").is_file():
        raise UsageError(f"--out {run} is not empty and not a run folder; choose another")
    with _lock_file(run) as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            lock.seek(0)
            other = lock.read().strip() or "unknown"
            raise MedsegError(
                f"another process ({other}) is working in {run}; wait for it, or use another --out"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def _lock_file(run: Path) -> IO[str]:
    try:
        run.mkdir(parents=True, exist_ok=True)
        return open_no_link(run / "lock")
    except OSError as error:
        if is_full_disk(error):
            raise
        raise UsageError(f"--out {run} cannot be written to ({error.strerror}); choose another") from error


@contextmanager
def damage_traced(finished: Mapping[str, Path]) -> Iterator[None]:
    """Let an error about a file of a finished stage end with how that stage is made anew."""
    try:
        yield
    except (WaitingForPerson, UsageError):
        raise
    except (MedsegError, OSError) as error:
        told = str(error)
        if "--rerun" in told:
            raise
        if isinstance(error, OSError):
            told = f"{error.filename} cannot be used ({error.strerror})"
        for name, folder in finished.items():
            if str(folder) in told:
                told = told.rpartition("; ")[0] or told
                raise MedsegError(f"{told}; {name} was finished, make it anew with --rerun {name}") from error
        raise


@contextmanager
def _disk_full_said_plainly(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        where = error.filename or folder
        raise MedsegError(f"disk full while writing {where}; free space and run the same command again") from error


def _set_aside(plan: Plan, steps: list[Step]) -> str:
    """Move the stage of `--rerun` and all later ones out of the way; nothing is deleted. Returns what to say of it.

    Last stage first: killed in between, no finished stage is left without the earlier one it came from.
    """
    aside = plan.run / "replaced" / time.strftime("%Y-%m-%dT%H-%M-%S")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    first = next(number for number, step in enumerate(steps) if step.stage.name == plan.rerun)
    earlier = [step.folder for step in steps[first:] if step.folder.exists()]
    for folder in reversed(earlier):
        aside.mkdir(parents=True, exist_ok=True)
        os.rename(folder, aside / folder.name)
    moved = ", ".join(folder.name for folder in earlier)
    return f"moved to {aside}: {moved}" if moved else f"{plan.rerun} has not been made yet"


def _earlier_attempts(folder: Path) -> list[dict[str, float]]:
    """Start and seconds of interrupted attempts; one ended, as far as can be known, with its last write.

    Also removes temporary files that a killed process left; nobody else writes here, we hold the lock.
    """
    if not (folder / "started.json").is_file():
        return []
    files = [path for path in folder.rglob("*") if path.is_file()]
    attempts = read_json(folder / "started.json").get("attempts", [])
    last_write = max(path.stat().st_mtime for path in files)
    for attempt in attempts:
        attempt.setdefault("seconds", round(max(0.0, last_write - attempt["started"]), 3))
    for path in files:
        if re.match(r"\.\d+-", path.name):
            path.unlink()
    return list(attempts)


def _commit() -> str | None:
    """The checkout's commit, `-dirty` where files differ from it; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
