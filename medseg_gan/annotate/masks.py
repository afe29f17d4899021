"""Reading painted masks strictly: the right size, the right classes, or one clear line."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable


def read_mask(path: Path, shape: tuple[int, int, int], table: LabelTable) -> np.ndarray:
    """Read one mask file.

    Args:
        path: `.png` (8-bit grey class ids, or exactly the table's colours) or `.nii`, `.nii.gz` (`(W, H, N)` ids).
        shape: `(N, H, W)` wanted; N is 1 except for stacks.
        table: classes that may occur.

    Returns:
        `(N, H, W)` uint8 class ids.

    Raises:
        MedsegError: the file cannot be read, has another size, or holds values outside the table.
    """
    values = _read_png(path, table)[None] if path.suffix.lower() == ".png" else _read_nifti(path)
    if values.shape != shape:
        got, wanted = ("x".join(str(length) for length in reversed(sizes)) for sizes in (values.shape, shape))
        raise MedsegError(f"{path} is {got} (width x height x slices), its image {wanted}; repaint it at that size")
    known = (values >= 0) & (values < table.num_classes) & (values == np.round(values))
    if not known.all():
        unknown = ", ".join(f"{value:g}" for value in np.unique(values[~known])[:5])
        raise MedsegError(
            f"{path} has the unknown value{'s' if ',' in unknown else ''} {unknown}; the label table {table.name} has "
            f"0 to {table.num_classes - 1} ({', '.join(table.classes)})"
        )
    return values.astype(np.uint8)


def _read_nifti(path: Path) -> np.ndarray:
    """`(W, H, N)` volume as `(N, H, W)`; its axes must run as in the exported image."""
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        volume = np.asarray(image.dataobj)
    except (OSError, EOFError, nibabel.filebasedimages.ImageFileError, ValueError) as error:
        raise MedsegError(f"{path} cannot be read ({str(error)[:120]}); save it again as .nii.gz") from error
    if volume.ndim == 2:
        volume = volume[:, :, None]
    if volume.ndim != 3:
        raise MedsegError(f"{path} has {volume.ndim} axes; wanted a label map of width x height x slices")
    orientation = nibabel.aff2axcodes(image.affine)
    if orientation != ("L", "P", "S"):
        raise MedsegError(
            f"{path} has the axes {''.join(orientation)}, its image LPS; save the mask on the grid of its image"
        )
    return volume.transpose(2, 1, 0)


def _read_png(path: Path, table: LabelTable) -> np.ndarray:
    """`(H, W)` class ids of a PNG: grey values are ids, colours are looked up exactly."""
    try:
        with Image.open(path) as image:
            image.load()
            mode = image.mode
            if mode in ("L", "I", "I;16"):
                return np.asarray(image).astype(np.int64)
            if mode not in ("P", "RGB", "RGBA"):
                raise MedsegError(f"{path} is a PNG of mode {mode}; save it as 8-bit grey, palette or RGB")
            colours = np.asarray(image.convert("RGBA")).astype(np.int64)
    except (OSError, SyntaxError) as error:
        raise MedsegError(f"{path} cannot be read ({str(error)[:120]}); save it again as PNG") from error
    return _ids_of_colours(path, colours, table)


def _ids_of_colours(path: Path, colours: np.ndarray, table: LabelTable) -> np.ndarray:
    """Exact palette look-up of `(H, W, 4)`; fully transparent is background."""
    codes = (colours[..., 0] << 16) + (colours[..., 1] << 8) + colours[..., 2]
    codes = np.where(colours[..., 3] == 0, 0, codes)
    palette = {(red << 16) + (green << 8) + blue: index for index, (red, green, blue) in enumerate(table.palette)}
    ids = np.full(codes.shape, -1, np.int64)
    for code, index in palette.items():
        ids[codes == code] = index
    if (ids < 0).any():
        row, column = np.argwhere(ids < 0)[0]
        found = ", ".join(str(value) for value in colours[row, column, :3])
        raise MedsegError(
            f"{path} has the unknown colour ({found}) in row {row}, column {column}; wanted exactly the colours of "
            f"labels.txt ({', '.join(table.classes)}), without smoothing"
        )
    return ids
