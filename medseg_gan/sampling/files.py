"""Generated images on disk: PNG, grids, GIF, NIfTI marked as synthetic, and a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medseg_gan import __version__
from medseg_gan.data.slices import to_hu
from medseg_gan.errors import UsageError
from medseg_gan.machine.atomic import atomic_path, read_json, save_png, write_json
from medseg_gan.sampling.source import SliceGeometry, Source
from medseg_gan.training.grid import image_grid

VERSION = 1  # of the manifest's layout
MANIFEST = "manifest.json"
MOST_PIXELS = 2**28  # of a sheet


def save_picture(path: Path, image: Tensor) -> None:
    """Write `(1, C, H, W)` in [-1, 1] as an 8-bit PNG, grey where C is 1."""
    save_png(path, image_grid(image, 1))


def save_sheet(path: Path, images: Sequence[Tensor], columns: int) -> None:
    """Write `(1, C, H, W)` images row by row.

    Raises:
        UsageError: the sheet would be too large to look at.
    """
    height, width = images[0].shape[-2:]
    pixels = height * width * -(-len(images) // columns) * columns
    if pixels > MOST_PIXELS:
        raise UsageError(f"{path.name} would have {pixels / 1e6:.0f} million pixels; ask for fewer images")
    save_png(path, image_grid(torch.cat(list(images)), columns))


def save_gif(path: Path, frames: Iterable[Tensor], fps: float) -> int:
    """Write `(1, C, H, W)` frames as an endless GIF, one after the other; returns their number.

    Grey keeps its 256 levels; colours are reduced to 256 per frame. A frame lasts whole hundredths of a second.
    """
    count = 0

    def pictures() -> Iterator[Image.Image]:
        nonlocal count
        for frame in frames:
            count += 1
            picture = Image.fromarray(image_grid(frame, 1))
            yield picture if picture.mode == "L" else picture.quantize(256)

    stream = pictures()
    first = next(stream)
    with atomic_path(path) as temporary:
        duration = max(20, round(100 / fps) * 10)
        first.save(temporary, format="GIF", save_all=True, append_images=stream, duration=duration, loop=0, disposal=1)
    return count


def save_synthetic_nifti(path: Path, image: Tensor, geometry: SliceGeometry, what: str) -> None:
    """Write a grey picture as a volume of one slice in HU, with a header that says what it is.

    Args:
        path: ends in `.nii.gz`.
        image: `(1, 1, H, W)` in [-1, 1], clipped at the window's ends.
        geometry: of the run.
        what: such as `seed 5`.
    """
    row_mm, column_mm, thickness = geometry.spacing
    hu = to_hu(image[0].numpy(), geometry.window)  # (1, H, W)
    affine = np.diag([-column_mm, -row_mm, thickness, 1.0])  # NIfTI axes point right, anterior, superior
    volume = nibabel.Nifti1Image(np.ascontiguousarray(hu.transpose(2, 1, 0)), affine)
    volume.header.set_xyzt_units("mm")
    volume.header["descrip"] = f"synthetic: drawn by a GAN, no patient; {what}".encode()[:79]
    volume.header["intent_name"] = b"synthetic"
    with atomic_path(path) as temporary:
        nibabel.save(volume, temporary)


class Manifest:
    """The record of a folder of generated pictures: which generator, which settings, which file is what.

    Args:
        folder: of the pictures.
        source: that draws them.
        kind: `seeds`, `latents`, `mixing` or `interpolation`.
        settings: all that decides how they look, as plain values.

    Raises:
        UsageError: the folder already holds pictures of other settings, which the record would not be true of.
    """

    def __init__(self, folder: Path, source: Source, kind: str, settings: dict[str, Any]) -> None:
        self.path = folder / MANIFEST
        self.head = {"kind": kind, "source": source.identity(), "settings": settings}
        self.files: dict[str, dict[str, Any]] = {}
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {folder} is a file; give a folder")
        if self.path.is_file():
            self._go_on(read_json(self.path))

    def _go_on(self, before: Any) -> None:
        entries = before.get("files") if isinstance(before, dict) else None
        if not isinstance(entries, list) or not all(isinstance(item, dict) and "file" in item for item in entries):
            raise UsageError(f"{self.path} does not describe generated images; choose another --out")
        was, now = _flat(self.head, before), _flat(self.head, self.head)
        changed = [f"{name}: {was[name]} -> {now[name]}" for name in now if was[name] != now[name]]
        if changed:
            raise UsageError(f"{self.path.parent} holds other images ({', '.join(changed)}); choose another --out")
        self.files = {entry["file"]: entry for entry in entries}

    def add(self, file: str, **what: Any) -> None:
        """Note a file."""
        self.files[file] = {"file": file, **what}

    def save(self) -> None:
        """Write the record; it comes after the files it names."""
        files = [self.files[name] for name in sorted(self.files)]
        write_json(
            self.path, {"version": VERSION, "medseg_gan": __version__, "synthetic": True, **self.head, "files": files}
        )


def _flat(like: dict[str, Any], values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The entries of `values` that `like` has, by dotted names."""
    flat: dict[str, Any] = {}
    for name, item in like.items():
        found = values.get(name)
        if isinstance(item, dict):
            flat |= _flat(item, found if isinstance(found, dict) else {}, f"{name}.")
        else:
            flat[prefix + name] = found
    return flat
