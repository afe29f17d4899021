"""Read images and masks from unchecked files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from medseg_gan.errors import MedsegError

Image.init()  # or Pillow knows only some of the formats below
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # none that runs a program, as EPS does
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_PIXELS = 2**26  # 67 million; a small file can claim any size
DEEP, QUARTER = 2**16 - 1, 2**14  # the greatest value of 16-bit grey; a quarter of its range, which 14 bits fill
MAX_OUTSIDE = 2.0  # pixels by which published boxes leave their pictures


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a text file that are not blank, with their numbers from 1.

    Raises:
        MedsegError: the file is missing or not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MedsegError(f"{path} does not exist; copy it from the published dataset") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(f"{path} cannot be read as UTF-8 text ({error}); copy it again") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def inside(name: str, path: Path) -> str:
    """The name itself, once it is seen to stay inside its folder.

    Raises:
        MedsegError: it leads elsewhere.
    """
    path_in = PurePosixPath(name)
    if path_in.is_absolute() or not path_in.name or ".." in path_in.parts or "\\" in name:
        raise MedsegError(f"{path} names {name!r}, which lies outside the dataset's folder; correct the file")
    return name


def load_image(path: Path) -> Image.Image:
    """Decode a file, turned upright as its EXIF tag says.

    Raises:
        MedsegError: the file is missing, of another format, cut off, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(path, formats=FORMATS)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise MedsegError(
                    f"{path} claims {width} x {height} pixels, wanted at most {MAX_PIXELS // 10**6} million; "
                    "make it smaller or remove it"
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except MedsegError:
        raise
    except Image.DecompressionBombError as error:
        raise MedsegError(
            f"{path} claims far more pixels than the {MAX_PIXELS // 10**6} million wanted at most; "
            "make it smaller or remove it"
        ) from error
    except FileNotFoundError as error:
        raise MedsegError(f"{path} does not exist; copy the file or correct the list that names it") from error
    except Exception as error:  # decoders raise whatever a broken file leads them to
        reason = " ".join(str(error).split()).removesuffix(f" {str(path)!r}")[:120] or type(error).__name__
        raise MedsegError(
            f"{path} cannot be read as a JPEG, PNG, BMP, WebP or TIFF picture ({reason}); copy it again or remove it"
        ) from error


def to_channels(image: Image.Image, channels: int, path: Path) -> Image.Image:
    """8-bit grey (1) or RGB (3): 16-bit grey scaled from 0 to 65535, transparency dropped.

    All pictures are scaled alike, none by its own greatest value: greys must mean the same in each. 16-bit files of
    scanners and cameras that fill 10, 12 or 14 bits alone would come out dark or black, so they are refused.

    Raises:
        MedsegError: grey values of other kinds, or 16-bit ones that use a quarter of their range at most.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if image.mode == "F" or low < 0 or high > DEEP:
            kind = " in floating point" if image.mode == "F" else ""
            raise MedsegError(
                f"{path} holds grey values from {low:g} to {high:g}{kind}, wanted whole numbers from 0 to 255 "
                f"or {DEEP}; scale all pictures alike and save them again"
            )
        if 0 < high < QUARTER:
            raise MedsegError(
                f"{path} has 16 bits but no value above {high} ({int(high).bit_length()} bits) and would come out "
                f"dark; scale all pictures alike to 0 to {DEEP}, or save them with 8 bits"
            )
        image = Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))  # the nearest of 256 greys
    return image.convert("L" if channels == 1 else "RGB")


def binarise(mask: Image.Image, threshold: float) -> np.ndarray:
    """Foreground of a mask image: its first channel above `threshold` of the range.

    The range is 255, or 65535 for 16-bit files; a mask that holds nothing but 0 and 1 has range 1.

    Returns:
        `(H, W)` bool.
    """
    values = np.asarray(mask)
    values = values[..., 0] if values.ndim == 3 else values
    highest = DEEP if mask.mode.startswith("I") else 255
    if values.max() <= 1:
        highest = 1
    return values > threshold * highest


def crop_resize(image: Image.Image, size: int) -> Image.Image:
    """Short side to `size` with an antialiased bilinear filter, centre square."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def crop_resize_parts(parts: np.ndarray, size: int) -> np.ndarray:
    """`(H, W)` part numbers through the square of `crop_resize`; a pixel takes the part that lies at its centre."""
    height, width = parts.shape
    side = min(width, height)
    centres = (np.arange(size) + 0.5) * side / size
    rows, columns = (((whole - side) / 2 + centres).astype(np.int64) for whole in (height, width))
    return parts[np.ix_(rows, columns)]


def move_landmarks(
    landmarks: Sequence[tuple[float, float, bool]], image: Image.Image, size: int
) -> tuple[tuple[float, float, bool], ...]:
    """Landmarks through the square of `crop_resize`; a point outside the square is no longer visible.

    Args:
        landmarks: x, y in pixels of `image`, 0 at the centre of the first, and whether the point is visible.
        image: before cropping.
        size: pixels per side after it.
    """
    side = min(image.size)
    moved = []
    for x, y, visible in landmarks:
        points = [
            (at + 0.5 - (whole - side) / 2) * size / side - 0.5 for at, whole in zip((x, y), image.size, strict=True)
        ]
        kept = visible and all(-0.5 <= at < size - 0.5 for at in points)
        moved.append((points[0], points[1], kept))
    return tuple(moved)


def read_parts(path: Path, parts: int, image: Image.Image, image_path: Path) -> np.ndarray:
    """`(H, W)` uint8 part numbers of an image, 0 for the background.

    Raises:
        MedsegError: it cannot be read, has colours, another size than the image's, or a number above `parts`.
    """
    mask = _mask_of(path, image, image_path)
    values = np.asarray(mask)
    if values.ndim != 2 or mask.mode == "F":
        raise MedsegError(f"{path} has the mode {mask.mode}, wanted one channel of whole part numbers; convert it")
    if values.min() < 0 or values.max() > parts:
        raise MedsegError(
            f"{path} holds part numbers from {values.min()} to {values.max()}, wanted 0 to {parts}; correct the mask"
        )
    return values.astype(np.uint8)


def read_mask(path: Path, threshold: float, image: Image.Image, image_path: Path) -> Image.Image:
    """Mask of an image as an 8-bit picture of 0 and 255.

    Raises:
        MedsegError: it cannot be read or its size is not the image's.
    """
    mask = _mask_of(path, image, image_path)
    return Image.fromarray(binarise(mask, threshold).astype(np.uint8) * np.uint8(255))


def _mask_of(path: Path, image: Image.Image, image_path: Path) -> Image.Image:
    mask = load_image(path)
    if mask.size != image.size:
        raise MedsegError(
            f"{path} has {mask.width} x {mask.height} pixels, its picture {image_path.name} has {image.width} x "
            f"{image.height}; check that the two files belong together"
        )
    return mask


def check_box(box: tuple[float, float, float, float], image: Image.Image, path: Path) -> None:
    """Refuse a box that leaves its picture by more than two pixels, which some published boxes do.

    Raises:
        MedsegError: the box lies outside.
    """
    x, y, width, height = box
    beyond = max(-x, -y, x + width - image.width, y + height - image.height)
    if beyond > MAX_OUTSIDE:
        raise MedsegError(
            f"{path} has {image.width} x {image.height} pixels, its box x {x:g}, y {y:g}, width {width:g}, height "
            f"{height:g} lies outside; correct the list of boxes"
        )
