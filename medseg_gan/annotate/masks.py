"""Read painted masks strictly: right size, known classes, or one clear line."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from medseg_gan.data.volumes import SimpleITKReader, simpleitk_affine
from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable

SAME_GRID_MM = 1e-3
"""Difference up to which two grids are the same; viewers write them in single precision."""


def read_mask(path: Path, shape: tuple[int, int, int], table: LabelTable, affine: np.ndarray) -> np.ndarray:
    """Read one mask file.

    Args:
        path: `.png` (8-bit grey class ids, or exactly the table's colours, opaque or fully transparent), or
            `(W, H, N)` ids as `.nii`, `.nii.gz` or `.nrrd`. A PNG says nothing of where it lies, so one that is turned
            in a square is not found out.
        shape: `(N, H, W)` wanted; N is 1 except for stacks.
        table: classes that may occur.
        affine: `(4, 4)` of the image it was painted on, from index to RAS mm.

    Returns:
        `(N, H, W)` uint8 class ids.

    Raises:
        MedsegError: the file cannot be read, has another size, lies elsewhere than its image or is turned against it,
            or holds values outside the table.
    """
    if path.suffix.lower() == ".png":
        values = _read_png(path, table)[None]
    else:
        volume, own = _read_nrrd(path) if path.suffix.lower() == ".nrrd" else _read_nifti(path)
        if volume.ndim == 2:  # a flat file says nothing of the third axis
            volume, own = volume[:, :, None], own.copy()
            own[:, 2], own[2, :] = affine[:, 2], affine[2, :]
        if volume.ndim != 3:
            raise MedsegError(f"{path} has {volume.ndim} axes; wanted a label map of width x height x slices")
        _check_grid(path, own, affine)
        values = volume.transpose(2, 1, 0)
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


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`(W, H, N)` volume, or `(W, H)`, with its `(4, 4)` affine."""
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        volume = np.asarray(image.dataobj)
    except (OSError, EOFError, nibabel.filebasedimages.ImageFileError, ValueError) as error:
        raise MedsegError(f"{path} cannot be read ({str(error)[:120]}); save it again as .nii.gz") from error
    return volume, image.affine


def _read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`(W, H, N)` volume, or `(W, H)`, with its `(4, 4)` affine."""
    try:
        image = SimpleITKReader().read(path)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1][:120]
        raise MedsegError(f"{path} cannot be read ({why}); save it again as .nrrd") from error
    if path.name.lower().endswith(".seg.nrrd") or any(key.startswith("Segment0_") for key in image.GetMetaDataKeys()):
        raise MedsegError(
            f"{path} is a segmentation of 3D Slicer, whose layers and numbers are its own; export it there as a "
            "labelmap, with labels.ctbl as its colour table, and save that as .nrrd or .nii.gz"
        )
    volume, _ = SimpleITKReader().get_data(image)
    return volume, simpleitk_affine(image)


def _check_grid(path: Path, own: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse a mask that does not lie on the grid of its image; nothing is turned or moved back in silence."""
    axes, image_axes = ("".join(str(axis) for axis in nibabel.aff2axcodes(affine)) for affine in (own, wanted))
    advice = "save the mask on the grid of its image"
    if axes != image_axes:
        raise MedsegError(f"{path} is mirrored or rotated: it has the axes {axes}, its image {image_axes}; {advice}")
    if np.abs(own[:3, :3] - wanted[:3, :3]).max() > SAME_GRID_MM:
        steps, image_steps = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (own, wanted))
        if np.abs(steps - image_steps).max() > SAME_GRID_MM:
            got, should = (" x ".join(f"{step:.4g}" for step in found) for found in (steps, image_steps))
            raise MedsegError(f"{path} has pixels of {got} mm, its image of {should} mm; {advice}")
        raise MedsegError(f"{path} is rotated against its image by less than 90 degrees; {advice}")
    shift = own[:3, 3] - wanted[:3, 3]
    if np.abs(shift).max() > SAME_GRID_MM:
        by = ", ".join(f"{value:.4g}" for value in shift)
        raise MedsegError(f"{path} is shifted against its image by ({by}) mm; {advice}")


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
    """Exact palette look-up of `(H, W, 4)`; fully transparent is background, half-transparent is refused."""
    ids = colours_to_ids(colours, table)
    half = _half_transparent(colours)
    if half.any():
        row, column = np.argwhere(half)[0]
        raise MedsegError(
            f"{path} is half-transparent (alpha {colours[row, column, 3]} of 255) in row {row}, column {column}, and "
            f"{half.sum()} such pixels in all; wanted opaque colours, or fully transparent for {table.classes[0]}: "
            "switch antialiasing off, and paint with an opacity of 100 %"
        )
    if (ids < 0).any():
        row, column = np.argwhere(ids < 0)[0]
        found = ", ".join(str(value) for value in colours[row, column, :3])
        raise MedsegError(
            f"{path} has the unknown colour ({found}) in row {row}, column {column}, and {(ids < 0).sum()} such pixels "
            f"in all; wanted exactly the colours of labels.txt ({', '.join(table.classes)}), without smoothing: switch "
            "antialiasing off"
        )
    return ids


def colours_to_ids(colours: np.ndarray, table: LabelTable) -> np.ndarray:
    """Exact palette look-up.

    Args:
        colours: `(H, W, 4)` RGBA; fully transparent is background, whatever colour lies behind it.
        table: classes and their colours.

    Returns:
        `(H, W)` int64 class ids; -1 where the colour is that of no class, or half-transparent: an antialiased edge
        or a thin brush, which of two classes it belongs to nobody can say.
    """
    colours = colours.astype(np.int64)
    alpha = colours[..., 3]
    codes = (colours[..., 0] << 16) + (colours[..., 1] << 8) + colours[..., 2]
    codes = np.where(alpha == 0, 0, codes)
    ids = np.full(codes.shape, -1, np.int64)
    for index, (red, green, blue) in enumerate(table.palette):
        ids[codes == (red << 16) + (green << 8) + blue] = index
    ids[_half_transparent(colours)] = -1
    return ids


def _half_transparent(colours: np.ndarray) -> np.ndarray:
    """Where `(H, W, 4)` is neither opaque nor fully transparent."""
    return (colours[..., 3] > 0) & (colours[..., 3] < 255)
