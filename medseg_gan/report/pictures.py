"""Slices, labels and uncertainty as PNG images that a page carries inside itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

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


def png_uri(image: Image.Image) -> str:
    """PNG as a data URI."""
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def tile_scale(height: int, width: int) -> float:
    """Factor that brings a slice to the size of a tile: whole where it enlarges."""
    return min(max(1, TILE // max(height, width)), TILE / max(height, width))


def tile(image: np.ndarray, alt: str) -> Picture:
    """One slice in the size of a tile.

    Args:
        image: `(H, W)` or `(H, W, 3)` uint8; a small one is enlarged by a whole factor, a large one is reduced.
        alt: what it shows.
    """
    height, width = image.shape[:2]
    scale = tile_scale(height, width)
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    made = Image.fromarray(np.ascontiguousarray(image)).resize(shape, resample)
    return Picture(png_uri(made), alt, *made.size)


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


def development(paths: Sequence[Path], at_most: int = 6, width: int = 520) -> list[tuple[str, np.ndarray]]:
    """Sample grids over training, evenly chosen, first and last among them.

    Args:
        paths: PNG grids in the order of training; a file name that is a number is the count of images seen.
        at_most: grids shown.
        width: largest width of a grid, pixels.

    Returns:
        A caption and the pixels of each; grids that are no longer there are left out.
    """
    there = [path for path in paths if path.is_file()]
    chosen = sorted({round(index) for index in np.linspace(0, len(there) - 1, min(at_most, len(there)))})
    made = []
    for path in (there[index] for index in chosen):
        with Image.open(path) as opened:
            grid = opened.convert("L" if opened.mode in ("L", "1") else "RGB")
        if grid.width > width:
            grid = grid.resize((width, round(grid.height * width / grid.width)), Image.Resampling.LANCZOS)
        made.append((f"{int(path.stem) / 1000:g} kimg" if path.stem.isdigit() else path.stem, np.asarray(grid)))
    return made
