"""The dataset format of StyleGAN2-ADA: a zip archive of square PNG images with `dataset.json` for their labels."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import atomic_path

LABELS = "dataset.json"
MAX_SIDE = 4096
MAX_CLASSES = 10_000

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MAX_RATIO = 200  # of sizes packed and unpacked; a constant image as PNG, packed again, has a few dozen
_MAX_IMAGE_BYTES = 4 * MAX_SIDE**2
_MAX_LABEL_BYTES = 256 << 20
_MODES = ("L", "RGB")
_PNG_DEPTH = 24  # where a PNG says its bits per channel: PIL reads 16-bit colour as 8-bit without a word
_DAMAGE = (
    *(OSError, ValueError, EOFError, RuntimeError, SyntaxError, IndexError),
    *(zipfile.BadZipFile, zlib.error, struct.error, UnidentifiedImageError, Image.DecompressionBombError),
)

Labels = Sequence[int] | Sequence[Sequence[float]]


def write_dataset_zip(path: str | os.PathLike[str], images: Iterable[np.ndarray], labels: Labels | None = None) -> int:
    """Write images as StyleGAN2-ADA reads them: uncompressed PNG, `00000/img00000000.png` and so on, nothing packed.

    Args:
        path: of the archive.
        images: `(H, W)` or `(H, W, 3)` uint8, all of one square shape, the side a power of two.
        labels: a class of each image, or a list of numbers for each; None: no labels.

    Returns:
        Number of images.

    Raises:
        MedsegError: an image has another shape or type, or there are not as many labels as images.
    """
    path = Path(path)
    plain = _plain_labels(labels)
    names: list[str] = []
    first: tuple[int, ...] | None = None
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images):
            image = np.asarray(image)
            what = f"image {number}"
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
                raise MedsegError(f"{what} is {image.dtype} {image.shape}, wanted uint8 (H, W) or (H, W, 3)")
            _check_side(what, image.shape[1], image.shape[0])
            first = first or image.shape
            if image.shape != first:
                raise MedsegError(f"{what} has shape {image.shape}, the first {first}; wanted one shape")
            name = f"{number // 1000:05d}/img{number:08d}.png"
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG", compress_level=0)
            _write(archive, name, buffer.getvalue())
            names.append(name)
        if not names:
            raise MedsegError(f"no images to write into {path}")
        if plain is not None and len(plain) != len(names):
            raise MedsegError(f"{len(names)} images and {len(plain)} labels; wanted a label for each image")
        pairs = None if plain is None else [[name, label] for name, label in zip(names, plain, strict=True)]
        _write(archive, LABELS, json.dumps({"labels": pairs}, allow_nan=False).encode())
    return len(names)


class DatasetZip(Dataset[Tensor]):
    """Images of a dataset.zip, read one by one; item k is a `(C, H, W)` tensor in [-1, 1].

    Example:
        data = DatasetZip("dataset.zip")
        image, label = data[0], data.labels[0] if data.label_dim else None

    Args:
        path: of the archive.

    Raises:
        MedsegError: the file is no such archive, is damaged, or holds what a set of images does not: names that lead
            out of it, contents far larger than the file, labels of other images.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MedsegError(f"{self.path} does not exist or is a folder; give a dataset.zip")
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        try:
            members = self._open().infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise MedsegError(f"{self.path} is no zip archive or was cut off; make or fetch it again") from error
        for member in members:
            self._check_member(member)
        found = [m.filename for m in members if not m.is_dir()]
        if len(set(found)) < len(found):
            raise MedsegError(f"{self.path} holds two files of one name; make it again")
        self.names = sorted(name for name in found if name.lower().endswith(_SUFFIXES))
        if not self.names:
            raise MedsegError(f"{self.path} holds no images; wanted PNG files and {LABELS}")
        first = self.pixels(0)
        self.shape = first.shape  # (C, H, W)
        labels = self._read_labels() if LABELS in found else None
        self.labels = labels
        """`(N, label_dim)` float32, one-hot for classes, in the order of the images; None without labels."""
        self.label_dim = 0 if labels is None else labels.shape[1]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """`(C, H, W)` float32: uint8 / 127.5 - 1."""
        return torch.from_numpy(self.pixels(index).astype(np.float32) / 127.5 - 1)

    def pixels(self, index: int) -> np.ndarray:
        """One image, `(C, H, W)` uint8.

        Raises:
            MedsegError: it is damaged, not 8-bit grey or RGB, not square, or of another shape than the first.
        """
        name = self.names[index]
        what = f"{self.path}: {name}"
        try:
            data = self._open().read(name)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                depth = data[_PNG_DEPTH] if image.format == "PNG" else 8
                if image.mode not in _MODES or depth != 8:
                    raise MedsegError(f"{what} is {image.mode} with {depth} bits, wanted 8-bit grey (L) or RGB")
                _check_side(what, *image.size)  # before its pixels take memory
                array = np.array(image)
        except _DAMAGE as error:
            raise MedsegError(f"{what} is no PNG image or is damaged; make the archive again") from error
        array = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
        if array.shape != getattr(self, "shape", array.shape):
            raise MedsegError(
                f"{what} has shape {array.shape}, the first image {self.shape}; wanted one shape (C, H, W)"
            )
        return array

    def _open(self) -> zipfile.ZipFile:
        """The archive, opened anew in every process: a file position must not be shared."""
        if self._archive is None or self._archive[0] != os.getpid():
            self._archive = (os.getpid(), zipfile.ZipFile(self.path))
        return self._archive[1]

    def __getstate__(self) -> dict[str, Any]:
        """Travel to a reading process without the open file."""
        return self.__dict__ | {"_archive": None}

    def _check_member(self, member: zipfile.ZipInfo) -> None:
        name, place = member.filename, PurePosixPath(member.filename)
        if place.is_absolute() or ".." in place.parts or "\\" in name or ":" in name or "\0" in name:
            raise MedsegError(f"{self.path}: the name {name!r:.80} leads out of the archive; wanted relative names")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MedsegError(f"{self.path}: {name} is encrypted or packed in a rare way; wanted a plain archive")
        most = _MAX_LABEL_BYTES if name == LABELS else _MAX_IMAGE_BYTES
        if member.file_size > most or member.file_size > _MAX_RATIO * max(member.compress_size, 1):
            raise MedsegError(f"{self.path}: {name} unpacks to {member.file_size} bytes, more than any image; refused")

    def _read_labels(self) -> np.ndarray | None:
        what = f"{self.path}: {LABELS}"
        try:
            content = json.loads(self._open().read(LABELS))
        except _DAMAGE as error:
            raise MedsegError(f"{what} is not valid JSON; make it again") from error
        pairs = content.get("labels") if isinstance(content, dict) else None
        if pairs is None:
            return None
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            raise MedsegError(f'{what} wanted as {{"labels": [["00000/img00000000.png", 6], ...]}}')
        by_name = dict(pairs)
        missing = next((name for name in self.names if name not in by_name), None)
        if missing is not None:
            raise MedsegError(f"{what} has no label for {missing}; wanted one for every image, or null for none")
        return _label_array(what, [by_name[name] for name in self.names])


def _label_array(what: str, labels: list[Any]) -> np.ndarray:
    """`(N, label_dim)` float32: classes one-hot, lists of numbers as they are."""
    if all(type(label) is int for label in labels):
        if min(labels) < 0 or max(labels) >= MAX_CLASSES:
            raise MedsegError(f"{what} has classes from {min(labels)} to {max(labels)}, wanted 0 to {MAX_CLASSES - 1}")
        one_hot = np.zeros((len(labels), max(labels) + 1), np.float32)
        one_hot[np.arange(len(labels)), labels] = 1
        return one_hot
    lists = all(isinstance(label, list) and 0 < len(label) <= MAX_CLASSES for label in labels)
    if not lists or len({len(label) for label in labels}) > 1:
        raise MedsegError(f"{what} has labels of several kinds, wanted a class for each image or equally long lists")
    if not all(type(value) in (int, float) and math.isfinite(value) for label in labels for value in label):
        raise MedsegError(f"{what} has labels that are not finite numbers")
    return np.array(labels, np.float32)


def _plain_labels(labels: Labels | None) -> list[Any] | None:
    if labels is None:
        return None
    plain = np.asarray(labels).tolist()
    _label_array("labels:", plain)
    return plain


def _check_side(what: str, width: int, height: int) -> None:
    if width != height:
        raise MedsegError(f"{what} has {width} x {height} pixels, wanted a square")
    if width < 4 or width & (width - 1) or width > MAX_SIDE:
        raise MedsegError(f"{what} has {width} x {height} pixels, wanted a power of two from 4 to {MAX_SIDE}")


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file with a fixed date: equal content makes equal archives."""
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
