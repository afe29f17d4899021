"""Slices, labels and uncertainty as PNG strips embedded in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, LabelTable

TILE = 128
"""Largest side of a slice on the page, pixels: what keeps a page of 256x256 slices under 4 MB."""
UNCERTAINTY_COLOURS = "magma"


class Picture(NamedTuple):
    """An image inside a page: data URI, what it shows, and its size in pixels."""

    uri: str
    alt: str
    width: int
    height: int


class Strip(NamedTuple):
    """Pictures of the same slices, one below the other, each with the name of its line."""

    lines: list[tuple[str, Picture]]


def png_uri(image: Image.Image) -> str:
    """PNG as a data URI."""
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def tile_scale(height: int, width: int) -> float:
    """Factor that brings a slice to the size of a tile: whole where it enlarges."""
    return min(max(1, TILE // max(height, width)), TILE / max(height, width))


def tiles(images: np.ndarray, alt: str, gap: int = 2) -> Picture:
    """Slices side by side.

    Args:
        images: `(N, H, W)` or `(N, H, W, 3)` uint8; small ones are enlarged by whole factors, large ones reduced.
        alt: what they show.
        gap: pixels between two slices.
    """
    height, width = images.shape[1:3]
    scale = tile_scale(height, width)
    shape = (round(width * scale), round(height * scale))
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    mode = "L" if images.ndim == 3 else "RGB"
    sheet = Image.new(mode, (len(images) * (shape[0] + gap) - gap, shape[1]))
    for column, image in enumerate(images):
        tile = Image.fromarray(np.ascontiguousarray(image)).resize(shape, resample)
        sheet.paste(tile, (column * (shape[0] + gap), 0))
    return Picture(png_uri(sheet), alt, *sheet.size)


def enlarged(image: np.ndarray, alt: str, zoom: float = 0.0) -> Picture:
    """One picture with its own pixels, which the page enlarges or reduces.

    Args:
        image: `(H, W)` or `(H, W, 3)` uint8.
        alt: what it shows.
        zoom: screen pixels for one of its own; 0 brings it to the size of a tile, by a whole factor if it is smaller.
    """
    height, width = image.shape[:2]
    zoom = zoom or tile_scale(height, width)
    uri = png_uri(Image.fromarray(np.ascontiguousarray(image)))
    return Picture(uri, alt, max(1, round(width * zoom)), max(1, round(height * zoom)))


def overlay(images: np.ndarray, labels: np.ndarray, table: LabelTable, opacity: float = 0.55) -> np.ndarray:
    """Label colours over grey slices; background and unlabelled pixels stay grey.

    Args:
        images: `(N, H, W)` uint8.
        labels: `(N, H, W)` class ids.
        table: names and colours of the classes.
        opacity: of the colours, 0 to 1.

    Returns:
        `(N, H, W, 3)` uint8.
    """
    grey = np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
    painted = ((labels != 0) & (labels != UNLABELLED))[..., None]
    mixed = np.where(painted, (1 - opacity) * grey + opacity * table.colour(labels), grey)
    return np.rint(mixed).astype(np.uint8)


def heat(uncertainty: np.ndarray, top: float) -> np.ndarray:
    """Uncertainty as colours, all slices on the scale 0 to `top`.

    Args:
        uncertainty: `(N, H, W)`, at least 0; NaN counts as 0.
        top: value of the brightest colour.

    Returns:
        `(N, H, W, 3)` uint8, of 64 colours, which is what keeps its PNG small.
    """
    scaled = np.clip(np.nan_to_num(uncertainty) / max(top, 1e-12), 0, 1)
    return np.asarray(colormaps[UNCERTAINTY_COLOURS](np.rint(scaled * 63) / 63, bytes=True)[..., :3])


def uncertainty_top(uncertainty: np.ndarray) -> float:
    """Top of the colour scale: all but the 0.5 % most uncertain pixels lie below it."""
    return float(np.quantile(np.nan_to_num(uncertainty), 0.995)) or float(np.max(uncertainty, initial=0.0)) or 1.0


def strips(
    images: np.ndarray | None,
    labels: np.ndarray | None,
    uncertainty: np.ndarray | None,
    table: LabelTable,
    kind: str,
    columns: int = 8,
) -> list[Strip]:
    """Slices in rows of `columns`; below each slice its labels and its uncertainty, as far as there are any.

    Args:
        images: `(N, H, W)` uint8 grey, or None.
        labels: `(N, H, W)` class ids, or None.
        uncertainty: `(N, H, W)`, or None.
        table: names and colours of the classes.
        kind: what the slices are, `real` or `generated`.
        columns: slices in a row.

    Raises:
        MedsegError: the arrays do not belong together.
    """
    if images is None or not len(images):
        return []
    for name, other in (("labels", labels), ("uncertainty", uncertainty)):
        if other is not None and other.shape != images.shape:
            raise MedsegError(
                f"report: {kind} slices have shape {images.shape}, their {name} {other.shape}; "
                "pass equally many, of one size"
            )
    top = 1.0 if uncertainty is None else uncertainty_top(uncertainty)
    made = []
    for start in range(0, len(images), columns):
        part = slice(start, start + columns)
        lines = [(kind, tiles(images[part], f"{kind} CT slices {start + 1} to {start + len(images[part])}"))]
        if labels is not None:
            lines.append(
                ("labels", tiles(overlay(images[part], labels[part], table), f"labels over the {kind} slices"))
            )
        if uncertainty is not None:
            lines.append(
                ("uncertainty", tiles(heat(uncertainty[part], top), f"label uncertainty of the {kind} slices"))
            )
        made.append(Strip(lines))
    return made


def development(paths: Sequence[Path], at_most: int = 6, width: int = 520) -> list[tuple[str, Picture]]:
    """Sample sheets over training, evenly chosen, first and last among them.

    Args:
        paths: PNG sheets in the order of training; a file name that is a number is the count of images seen.
        at_most: sheets shown.
        width: largest width of a sheet, pixels.

    Returns:
        A caption and a picture for each; sheets that are no longer there are left out.
    """
    there = [path for path in paths if path.is_file()]
    chosen = sorted({round(index) for index in np.linspace(0, len(there) - 1, min(at_most, len(there)))})
    made = []
    for path in (there[index] for index in chosen):
        with Image.open(path) as opened:
            sheet = opened.convert("L" if opened.mode in ("L", "1") else "RGB")
        if sheet.width > width:
            sheet = sheet.resize((width, round(sheet.height * width / sheet.width)), Image.Resampling.LANCZOS)
        caption = f"{int(path.stem) / 1000:g} kimg" if path.stem.isdigit() else path.stem
        made.append((caption, Picture(png_uri(sheet), f"generated samples, {caption}", *sheet.size)))
    return made


def gradient(stops: int = 9) -> str:
    """The uncertainty scale as a CSS gradient, dark (none) to bright (top)."""
    colours = colormaps[UNCERTAINTY_COLOURS](np.linspace(0, 1, stops), bytes=True)[:, :3]
    return f"linear-gradient(to right, {', '.join(f'rgb({r} {g} {b})' for r, g, b in colours)})"
