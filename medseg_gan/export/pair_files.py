"""Generated pairs as files of three kinds, one shard at a time: equal pairs give equal bytes."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import to_grey
from medseg_gan.export.shards import add_file, png_bytes, sample_files
from medseg_gan.export.slices import LabelledSlice, to_nifti
from medseg_gan.machine.atomic import full_disk_told

FORMATS = ("shards", "png", "nifti")
"""webdataset tar files; folders of 8-bit pictures of the window; folders of NIfTI in HU."""

_MARK = "synthetic: drawn by a GAN, no patient; research only"


@dataclass(frozen=True)
class PairFiles:
    """Files of one pair.

    Attributes:
        image: name of the image's file inside its shard.
        label: name of the label's.
        contents: bytes by name.
    """

    image: str
    label: str
    contents: Mapping[str, bytes]


def pair_files(item: LabelledSlice, to: str, window: tuple[float, float], **facts: Any) -> PairFiles:
    """Encode one pair.

    Args:
        item: the pair.
        to: one of `FORMATS`.
        window: HU that are black and white in pictures.
        facts: what the `json` of a webdataset sample says besides.
    """
    if to == "shards":
        files = {f"{item.name}.{ending}": content for ending, content in sample_files(item, **facts).items()}
        return PairFiles(f"{item.name}.image.npy", f"{item.name}.label.png", files)
    if to == "png":
        ending, image, label = "png", png_bytes(to_grey(item.image, window)), png_bytes(item.label)
    else:
        ending, image, label = "nii.gz", _nifti(item.image, item.spacing), _nifti(item.label, item.spacing)
    names = f"images/{item.name}.{ending}", f"labels/{item.name}.{ending}"
    return PairFiles(*names, dict(zip(names, (image, label), strict=True)))


def shard_name(number: int, to: str) -> str:
    """Name of a shard's tar file or folder."""
    return f"shard-{number:06d}.tar" if to == "shards" else f"shard-{number:06d}"


@contextmanager
def new_shard(path: Path) -> Iterator[Callable[[Mapping[str, bytes]], None]]:
    """Yield a function that adds files to a shard, a tar file or a folder by its name.

    The shard is made under another name and takes its own when it is whole, in place of what lay there. What a killed
    process left of it is removed: only one process at a time may make a shard.

    Raises:
        MedsegError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    remove(temporary)
    try:
        with full_disk_told(path):
            if path.suffix == ".tar":
                with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as shard:
                    yield lambda files: _to_tar(shard, files)
                _settle([temporary])
            else:
                temporary.mkdir()
                yield lambda files: _to_folder(temporary, files)
                _settle([file for file in temporary.rglob("*") if file.is_file()])
                remove(path)  # a rename replaces a file, but no folder
            os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _to_tar(shard: tarfile.TarFile, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        add_file(shard, name, content)


def _to_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def _settle(files: list[Path]) -> None:
    """Have the content on the disk before the rename; the first call takes most of the time."""
    for file in files:
        with open(file, "rb+") as content:
            os.fsync(content.fileno())


def _nifti(array: np.ndarray, spacing: tuple[float, float, float]) -> bytes:
    """A compressed NIfTI file without name or time in it."""
    return gzip.compress(to_nifti(array, spacing, _MARK).to_bytes(), compresslevel=1, mtime=0)
