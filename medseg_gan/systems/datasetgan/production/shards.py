"""Make one shard of generated pairs, block by block, so that memory does not grow with it, in one process."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.export.pair_files import PairFiles, new_shard, pair_files, shard_name
from medseg_gan.export.slices import LabelledSlice
from medseg_gan.machine.atomic import atomic_path, open_no_link
from medseg_gan.machine.names import check_name
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.systems.datasetgan.factory import Judge, LabelFactory, Pairs
from medseg_gan.systems.datasetgan.samples.images import FIRST_INDEX, reserved

COLUMNS = (
    "index",
    "name",
    "z_seed",
    "shard",
    "image",
    "label",
    "image_sha256",
    "label_sha256",
    "bytes",
    "uncertainty",
)
"""Of the record of a shard, a line for each pair; what a judge says stands behind them.

`bytes` is what the files of a pair take up, in a tar with their headers. A pair that was left out has no file names.
"""


@dataclass(frozen=True)
class Shard:
    """Consecutive pairs that lie in one tar file or folder.

    Attributes:
        number: the same for the same pairs, whatever else is asked for.
        indices: their sample indices.
    """

    number: int
    indices: range


@dataclass(frozen=True)
class Shape:
    """How pairs become files.

    Attributes:
        to: one of `FORMATS`.
        window: HU of -1 and 1.
        spacing: mm of a row step, a column step, and the slice thickness.
    """

    to: str
    window: tuple[float, float]
    spacing: tuple[float, float, float]


def cut_shards(start: int, num: int, block: int, size: int) -> list[Shard]:
    """Pairs `start` to `start + num - 1` of those reserved for `synthesize`, cut at whole blocks.

    The cuts lie at the same places for every `start` and `num`.

    Args:
        start: first pair, from 0.
        num: of pairs.
        block: images rendered together.
        size: pairs of a shard, rounded down to whole blocks, at least one.

    Raises:
        MedsegError: there are not so many indices.
    """
    indices = reserved("synthesize", num, start)
    blocks, first_block = max(1, size // block), FIRST_INDEX["synthesize"] // block

    def number_of(index: int) -> int:
        return (index // block - first_block) // blocks

    shards = []
    for number in range(number_of(indices[0]), number_of(indices[-1]) + 1):
        begin = (first_block + number * blocks) * block
        end = begin + blocks * block
        shards.append(Shard(number, range(max(begin, indices.start), min(end, indices.stop))))
    return shards


def record_of(folder: Path, shard: Shard) -> Path:
    """The record beside a shard; written last, it says that the shard is whole."""
    return folder / f"shard-{shard.number:06d}.csv"


def read_record(path: Path) -> list[dict[str, str]]:
    """Lines of a shard's record by column, those of pairs left out as well.

    Raises:
        MedsegError: it was cut off or edited.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            text = file.read()
        header, *lines = csv.reader(io.StringIO(text, newline=""))
        rows = [dict(zip(header, line, strict=True)) for line in lines]
        whole = text.endswith("\n") and header[: len(COLUMNS)] == list(COLUMNS)
        for row in rows:
            whole = whole and int(row["bytes"]) >= 0 and float(row["uncertainty"]) >= 0
            for part in f"{row['image']}/{row['label']}".split("/") if row["image"] else ():
                check_name(part, path)
    except (KeyError, ValueError, csv.Error):
        whole, rows = False, []
    if not whole or not rows:
        raise MedsegError(f"{path} was cut off or edited; the same command again makes its shard again")
    return rows


def fault(folder: Path, shard: Shard, to: str) -> str | None:
    """What is wrong with a shard, by presence and size of its files; None if it is whole."""
    record, path = record_of(folder, shard), folder / shard_name(shard.number, to)
    if not record.is_file():
        return f"lacks its record, {record.name}" if path.exists() else "was not finished"
    try:
        rows = read_record(record)
    except MedsegError:
        return f"has a record, {record.name}, that was cut off or edited"
    if [row["index"] for row in rows] != [str(index) for index in shard.indices]:
        return f"has a record, {record.name}, of other pairs"
    if not path.exists():
        return "is missing"
    kept = [row for row in rows if row["image"]]
    if path.suffix == ".tar":
        blocks = sum(int(row["bytes"]) for row in kept) + 2 * tarfile.BLOCKSIZE  # which end a tar file
        found, wanted = path.stat().st_size, _rounded(blocks, tarfile.RECORDSIZE)
        return None if found == wanted else f"has {found} bytes instead of {wanted}"
    for row in kept:
        files = [folder / row[kind] for kind in ("image", "label")]
        lost = [file for file in files if not file.is_file()]
        if lost:
            return f"lacks {lost[0].relative_to(folder)}"
        if sum(file.stat().st_size for file in files) != int(row["bytes"]):
            return f"has another size of {row['image']} or {row['label']} than it was made with"
    return None


def is_there(folder: Path, shard: Shard, to: str) -> bool:
    """Whether a shard is whole, by `fault`: quick, as contents are not looked at."""
    return fault(folder, shard, to) is None


def forget(folder: Path, shard: Shard, to: str) -> None:
    """Take away the record of a shard that is to be made anew, unless another process is making it already."""
    path = folder / shard_name(shard.number, to)
    with _claimed(folder / f".{path.name}.lock") as ours:
        if ours:
            record_of(folder, shard).unlink(missing_ok=True)


def make_shard(
    folder: Path,
    shard: Shard,
    factory: LabelFactory,
    shape: Shape,
    judge: Judge | None = None,
    keep: Collection[str] = (),
    on_done: Callable[[int], None] | None = None,
) -> bool:
    """Make a shard, unless it is there or another process is making it.

    Args:
        folder: of all shards.
        shard: which pairs.
        factory: makes them.
        shape: of the files.
        judge: says how good they are, for the record.
        keep: classes of the judge's of which pairs are written; all if empty. The record names the others as well.
        on_done: called with a number of pairs when they are made.

    Returns:
        Whether it was made here.

    Raises:
        MedsegError: the disk is full.
    """
    path = folder / shard_name(shard.number, shape.to)
    with _claimed(folder / f".{path.name}.lock") as ours:
        if not ours or is_there(folder, shard, shape.to):
            return False
        record_of(folder, shard).unlink(missing_ok=True)  # of a shard that somebody removed
        header, rows = list(COLUMNS), list[list[Any]]()
        with new_shard(path) as add:
            for part, pairs, verdicts in _blocks(factory, shard.indices, judge):
                header = [*COLUMNS, *verdicts]
                for row, item in enumerate(as_slices(part, pairs, shape)):
                    told = {name: _plain(column[row]) for name, column in verdicts.items()}
                    seed = mix_seed(factory.source.sampling.seed, "z", part[row])
                    score = f"{item.uncertainty:.7g}"
                    if keep and told["class"] not in keep:
                        rows.append([part[row], item.name, seed, "", "", "", "", "", 0, score, *told.values()])
                        continue
                    files = pair_files(item, shape.to, shape.window, index=part[row], z_seed=seed, **told)
                    add(files.contents)
                    shown = (path.name, *_shown(path, files), _taken(path, files))
                    rows.append([part[row], item.name, seed, *shown, score, *told.values()])
                if on_done is not None:
                    on_done(len(part))
        with (
            atomic_path(record_of(folder, shard)) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return True


def as_slices(indices: range, pairs: Pairs, shape: Shape) -> Iterator[LabelledSlice]:
    """Generated pairs as exporters want them: HU, ids of classes, millimetres."""
    images = to_hu(pairs.images[:, 0].numpy(), shape.window)
    for row, index in enumerate(indices):
        name = f"generated-{index:010d}"
        yield LabelledSlice(
            name=name,
            case=name,
            group=name,
            image=images[row],
            label=pairs.labels[row].numpy(),
            spacing=shape.spacing,
            position=0.0,
            synthetic=True,
            uncertainty=float(pairs.scores[row]),
        )


def _blocks(
    factory: LabelFactory, indices: range, judge: Judge | None
) -> Iterator[tuple[range, Pairs, Mapping[str, np.ndarray]]]:
    """Pairs block by block, with what the judge says; whole blocks are judged, as they are rendered."""
    size = factory.source.sampling.block
    for number in range(indices.start // size, (indices.stop - 1) // size + 1):
        whole = range(number * size, (number + 1) * size)
        part = range(max(whole.start, indices.start), min(whole.stop, indices.stop))
        inside = slice(part.start - whole.start, part.stop - whole.start)
        pairs = factory.label(whole)
        verdicts = {} if judge is None else {name: column[inside] for name, column in judge(pairs).items()}
        yield part, Pairs(**{name: value[inside] for name, value in vars(pairs).items()}), verdicts


def _plain(value: Any) -> float | str:
    """A judge's number with six digits, or its word."""
    return str(value) if isinstance(value, str) else float(f"{float(value):.6g}")


def _shown(shard: Path, files: PairFiles) -> list[str]:
    """Names of image and label, as they lie in the tar or from the folder of all shards, and their hashes."""
    names = [files.image, files.label]
    hashes = [hashlib.sha256(files.contents[name]).hexdigest() for name in names]
    return [*(names if shard.suffix else [f"{shard.name}/{name}" for name in names]), *hashes]


def _taken(shard: Path, files: PairFiles) -> int:
    """Bytes that a pair takes up in its shard."""
    sizes = [len(content) for content in files.contents.values()]
    return sum(tarfile.BLOCKSIZE + _rounded(size, tarfile.BLOCKSIZE) for size in sizes) if shard.suffix else sum(sizes)


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


@contextmanager
def _claimed(lock: Path) -> Iterator[bool]:
    """Yield whether this process alone may make a shard; the claim goes with the process, however that ends.

    A file system without locks lets everyone make it, as the parts of a job array never do.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open_no_link(lock) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                yield False
                return
        yield True
        lock.unlink(missing_ok=True)  # who has it open still finds the shard whole
