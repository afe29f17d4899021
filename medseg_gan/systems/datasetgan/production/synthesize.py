"""Synthesis at scale: pairs in shards, with equal bytes for any number of processes and machines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError, UsageError, did_you_mean
from medseg_gan.export.pair_files import FORMATS, shard_name
from medseg_gan.machine import processes
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.device import resolve_device
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.running.record import changed_values
from medseg_gan.running.stages import Plan
from medseg_gan.systems.datasetgan.factory import Judge, LabelFactory
from medseg_gan.systems.datasetgan.production.files import FactoryFiles, factory_files, has_lost_quality
from medseg_gan.systems.datasetgan.production.manifest import MANIFEST, PAIRS, manifest_fits, tell_kept, write_manifest
from medseg_gan.systems.datasetgan.production.shard_contents import damage
from medseg_gan.systems.datasetgan.production.shards import (
    Shape,
    Shard,
    cut_shards,
    forget,
    is_there,
    make_shard,
    record_of,
)
from medseg_gan.systems.datasetgan.quality.model import CLASSES
from medseg_gan.systems.datasetgan.samples.images import END_INDEX, FIRST_INDEX
from medseg_gan.training.log import Progress, progress, say
from medseg_gan.training.pool import run_jobs

SETTINGS = "settings.json"
SHARD = 512
"""Pairs of a shard: what a kill can cost each process, and what workers share out."""


def synthesize_pairs(
    plan: Plan,
    out: Path | None = None,
    *,
    num: int,
    to: str = "shards",
    start: int = 0,
    workers: int = 0,
    part: str = "1/1",
    shard: int = SHARD,
    keep: str | Sequence[str] = (),
    device: str = "auto",
) -> Path:
    """Make labelled pairs with the factory of a finished run, at indices that the run itself never uses.

    Called again, it keeps the shards that are there, looks whether their files have the sizes and hashes that they
    were made with, and makes those anew that do not fit. Processes of torchrun and parts of a job array share the work,
    each looking at its own shards; whoever finds all shards there writes the manifest.

    Args:
        plan: of the run.
        out: folder to fill; None: `RUN/synthesized/<format>`.
        num: of pairs.
        to: `shards` (webdataset), `png` or `nifti`.
        start: first pair; pairs `start` to `start + num - 1` are made.
        workers: processes of one thread each on this machine; 0: one per core, on a GPU one.
        part: `I/N`: every N-th shard, from the I-th on; 1/1 is all of them.
        shard: pairs of a shard.
        keep: predicted classes of the pairs that are written, such as `good,partial`; all by default.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The folder; it has a `manifest.json` once all shards are there.

    Raises:
        MedsegError: a stage is not finished, the folder holds pairs of other settings, the disk is full, or no pair at
            all was kept.
        UsageError: a number, part, format or folder that makes no sense.
    """
    first, of = _parse(part)
    _check(num, to, start, workers, shard)
    where = _folder(plan, out or plan.run / "synthesized" / to)
    device = resolve_device(device)
    workers = _workers(workers, device)
    files = factory_files(plan)
    kept = _classes(keep, files)
    if has_lost_quality(plan):
        again = "the recipe's command again with --rerun synthesize makes it"
        say(f"synthesize: this run has no quality.json: pairs carry no prediction; {again}")
    pairs = SliceStore.open(plan.finished("synthesize") / "train")
    block = files.sampling.block
    shards = cut_shards(start, num, block, shard)
    if shard != SHARD and shard % block:
        holds = max(1, shard // block) * block
        say(f"synthesize: --shard {shard}: images are rendered {block} at a time, so a shard holds {holds} pairs")
    shape = Shape(to, pairs.window, pairs.records[0].spacing)
    files.open(device)  # a wrong weight file is told before anything is written
    settings = {
        "version": 1,
        "format": to,
        "start": start,
        "num": num,
        "shard": shard,
        "first_index": shards[0].indices.start,
        "sampling": asdict(files.sampling),
        "generator_sha256": files.weights_sha256,
        "interpreter_sha256": files.interpreter_sha256,
        "quality_sha256": files.quality_sha256(),
        "keep": list(kept),
        "size": pairs.size,
        "window_hu": list(shape.window),
        "spacing_mm": list(shape.spacing),
        "label_table": pairs.table.name,
        "classes": list(pairs.table.classes),
        "device": device,
    }
    _begin(where, settings)
    fits = manifest_fits(where)
    asked = shards[first - 1 :: of]
    with processes.group(device):
        mine = asked[processes.rank() :: processes.count()]
        damaged = _tell_damage(where, asked, mine, shape)
        finished = fits and not damaged and all(is_there(where, one, to) for one in shards)
        processes.gathered(torch.zeros(1))  # no shard is made anew before it was looked at
        for one in set(mine) & set(damaged):
            forget(where, one, to)
        make_shards(where, mine, files, shape, device, workers=workers, keep=kept)
        processes.gathered(torch.zeros(1))  # all others are done with theirs as well
    if not processes.is_first():
        return where
    whole = finished or all(is_there(where, one, to) for one in shards)
    if whole and not finished:
        if not fits and (where / MANIFEST).exists():
            say(f"synthesize: {MANIFEST} and {PAIRS} do not fit together or cannot be read; written anew")
        write_manifest(where, settings, shards, plan)
    if kept:
        tell_kept(where, shards if whole else [one for one in asked if is_there(where, one, to)], kept, whole)
    return where


def _tell_damage(folder: Path, asked: Sequence[Shard], mine: Sequence[Shard], shape: Shape) -> list[Shard]:
    """Say which shards were finished once and no longer fit; each process of the group looks at its own.

    Args:
        folder: of all shards.
        asked: shards of all processes.
        mine: those of this process.
        shape: of the files.

    Returns:
        Those of all processes that do not fit.
    """
    once = [
        one for one in mine if record_of(folder, one).is_file() or (folder / shard_name(one.number, shape.to)).exists()
    ]
    looked_at = progress(once, "synthesize: checking", "shard") if once else ()
    wrong = {one.number: told for one in looked_at if (told := damage(folder, one, shape))}
    flags = torch.tensor([[float(one.number in wrong) for one in asked] + [0.0]])
    damaged = [one for one, flag in zip(asked, processes.gathered(flags).sum(dim=0), strict=False) if flag]
    if processes.is_first():  # it alone speaks
        for one in damaged:
            say(
                f"synthesize: shard {one.number} {wrong.get(one.number) or damage(folder, one, shape)}; making it again"
            )
    return damaged


def make_shards(
    folder: Path,
    shards: Sequence[Shard],
    files: FactoryFiles,
    shape: Shape,
    device: str,
    *,
    workers: int = 1,
    keep: tuple[str, ...] = (),
) -> None:
    """Make the shards that are not there, in this process or in several.

    Every process computes on the CPU with one thread: more of them would give other last bits.

    Args:
        folder: of all shards.
        shards: to be made here.
        files: of the factory.
        shape: of the files.
        device: `cpu` or `cuda`.
        workers: processes.
        keep: predicted classes of the pairs that are written; all if empty.

    Raises:
        MedsegError: the disk is full, or a worker was ended from outside.
    """
    missing = [one for one in shards if not is_there(folder, one, shape.to)]
    total = sum(len(one.indices) for one in shards)
    left = sum(len(one.indices) for one in missing)
    if not missing:
        return
    if workers == 1 or len(missing) == 1:
        with one_thread(device), Progress(total, "synthesize", "image", initial=total - left) as bar:
            keep_freed_memory()
            factory, judge = files.open(device), files.open_judge()
            for one in missing:
                make_shard(folder, one, factory, shape, judge, keep, bar.update)
        return
    common = {"folder": folder, "files": files, "shape": shape, "device": device, "keep": keep}
    jobs = {f"shard {one.number}": {"shard": one, **common} for one in missing}
    sizes = {f"shard {one.number}": len(one.indices) for one in missing}
    run_jobs(work, jobs, workers, "synthesize", total, "image", sizes, counts_itself=True)


def work(
    folder: Path,
    shard: Shard,
    files: FactoryFiles,
    shape: Shape,
    device: str,
    keep: tuple[str, ...],
    on_done: Callable[[int], None],
) -> None:
    """A worker's job: one shard, with a factory that it opens once, counted block by block."""
    factory, judge = _opened(files, device)
    make_shard(folder, shard, factory, shape, judge, keep, on_done)


@lru_cache(maxsize=1)
def _opened(files: FactoryFiles, device: str) -> tuple[LabelFactory, Judge | None]:
    return files.open(device), files.open_judge()


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Compute with one thread on the CPU, and afterwards with as many as before."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _workers(asked: int, device: str) -> int:
    """Processes of this machine: one per core that it may use, one on a GPU, one beside others of torchrun."""
    if processes.launched() > 1:
        if asked > 1:
            raise UsageError(f"--workers {asked} beside torchrun: torchrun starts the processes; leave --workers out")
        return 1
    if asked or device == "cuda":
        return asked or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parse(part: str) -> tuple[int, int]:
    """I and N of `I/N`."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", part)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--part {part}: wanted I/N such as 2/8, with I from 1 to N")
    return int(found[1]), int(found[2])


def _classes(keep: str | Sequence[str], files: FactoryFiles) -> tuple[str, ...]:
    """Predicted classes that are kept, in order of quality; none where all are."""
    asked = [word.strip() for word in keep.split(",")] if isinstance(keep, str) else list(keep)
    for word in asked:
        if word not in CLASSES:
            raise UsageError(f"--keep {word}: wanted some of {','.join(CLASSES)}{did_you_mean(word, CLASSES)}")
    if asked and files.quality is None:
        raise MedsegError("--keep needs predicted quality, which this run does not have; use --rerun synthesize")
    return tuple(word for word in CLASSES if word in asked)


def _check(num: int, to: str, start: int, workers: int, shard: int) -> None:
    if to not in FORMATS:
        raise UsageError(f"--to {to}: wanted one of {', '.join(FORMATS)}{did_you_mean(to, FORMATS)}")
    for option, value, least in (("--num", num, 1), ("--start", start, 0), ("--shard", shard, 1)):
        if value < least:
            raise UsageError(f"{option} {value}: wanted {least} or more")
    most = END_INDEX - FIRST_INDEX["synthesize"]
    if start + num > most:
        raise UsageError(f"--num {num} from --start {start} on: a run has {most} pairs to make; wanted fewer")
    if shard > 1000 and to != "shards":
        raise UsageError(f"--shard {shard}: a folder holds at most 1000 images; wanted 1 to 1000 with --to {to}")
    if workers < 0:
        raise UsageError(f"--workers {workers}: wanted 1 or more, or 0 for one per core")


def _folder(plan: Plan, out: Path) -> Path:
    """A folder that is new, empty, or holds such pairs, and is no stage's."""
    plan.check_out(out)
    if out.is_dir() and any(out.iterdir()) and not (out / SETTINGS).is_file():
        raise UsageError(f"--out {out} holds something else; choose another folder")
    return out


def _begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note what the pairs are made with, or refuse to mix them with others."""
    path = folder / SETTINGS
    if path.is_file():
        try:
            before = read_json(path)
        except MedsegError as error:
            raise MedsegError(f"{path} was cut off or edited; remove {folder}, or use another --out") from error
        changed = changed_values(before, dict(settings))
        if changed:
            found = ", ".join(map(str, changed))
            raise MedsegError(
                f"{folder} was begun with other settings ({found}); use another --out{_further(before, settings)}"
            )
        return
    if processes.is_first():
        try:
            write_json(path, settings)
        except OSError as error:
            raise UsageError(f"--out {folder} cannot be written to ({error.strerror}); choose another") from error


def _further(before: Any, settings: Mapping[str, Any]) -> str:
    """How the pairs are asked for that a folder lacks, where nothing but their number grew; else nothing."""
    had = before.get("num") if isinstance(before, dict) else None
    if not isinstance(had, int) or had >= settings["num"] or changed_values(before, {**settings, "num": had}):
        return ""
    return f" with --start {settings['start'] + had} --num {settings['num'] - had} for the pairs that it lacks"
