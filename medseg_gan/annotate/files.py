"""The folder of an annotation: images out, in three forms, and checked against their hashes whenever they are read.

A folder of annotation holds

    README.txt  labels.txt (ITK-SNAP)  labels.ctbl (3D Slicer)  manifest.json
    images/0003-1a2b3c4d.png        the window as 8-bit grey, to look at or paint on
    images/0003-1a2b3c4d.nii.gz     the same slice in HU
    images/stack-0a1b2c3d.nii.gz    all slices exported together, in HU
    masks/                          where the person saves masks, each under the name of its image or stack
    rejected.txt                    (optional) numbers of images that show no plausible anatomy, one per line

The eight digits are the start of the image's sha256, so a mask carries the hash of the image it was painted on.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from medseg_gan.annotate.faults import noted, refuse
from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable
from medseg_gan.machine.atomic import atomic_path, read_json, save_png, write_json, write_text
from medseg_gan.machine.names import check_name

VERSION = 1
"""Of the manifest's format."""


def export_images(
    folder: Path,
    images: np.ndarray,
    *,
    window: tuple[float, float],
    spacing: Sequence[float],
    table: LabelTable,
) -> list[str]:
    """Write images for a person to paint; images already there are left alone, further ones are added.

    Args:
        folder: of the annotation.
        images: `(N, H, W)` int16 HU, anterior up, patient-left at the right; image k gets the number k.
        window: HU shown as black and white.
        spacing: mm of a row step, a column step and the slice thickness.
        table: classes to paint.

    Returns:
        File stems `0003-1a2b3c4d`, in order.

    Raises:
        MedsegError: the folder belongs to other images or another label table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(folder) if (folder / "manifest.json").exists() else None
    digests = [image_sha256(image) for image in images]
    known: list[dict[str, Any]] = manifest["images"] if manifest else []
    if manifest is not None:
        _check_same_work(folder, manifest, digests, table, images.shape[1:])
    names = [f"{number:04d}-{digest[:8]}" for number, digest in enumerate(digests)]
    if len(names) <= len(known):
        return names

    fresh = range(len(known), len(names))
    (folder / "masks").mkdir(exist_ok=True)
    for number in fresh:
        save_png(folder / "images" / f"{names[number]}.png", window_to_grey(images[number], window))
        _save_nifti(folder / "images" / f"{names[number]}.nii.gz", images[number : number + 1], spacing)
    stack = f"stack-{hashlib.sha256(''.join(digests[k] for k in fresh).encode()).hexdigest()[:8]}"
    _save_nifti(folder / "images" / f"{stack}.nii.gz", images[len(known) :], spacing)
    stacks = manifest["stacks"] if manifest else []
    write_text(folder / "labels.txt", itksnap_labels(table))
    write_text(folder / "labels.ctbl", slicer_labels(table))
    write_text(folder / "README.txt", _readme(table, images.shape[1:]))
    write_json(
        folder / "manifest.json",
        {
            "version": VERSION,
            "label_table": table.name,
            "classes": list(table.classes),
            "size": list(images.shape[1:]),
            "window": list(window),
            "spacing": [float(value) for value in spacing],
            "images": known + [{"name": names[k], "sha256": digests[k]} for k in fresh],
            "stacks": [*stacks, {"name": stack, "images": [names[k] for k in fresh]}],
        },
    )
    return names


def exported_images(folder: Path) -> np.ndarray:
    """Images exported so far, `(N, H, W)` int16 HU; none for a folder without export.

    Raises:
        MedsegError: images, as NIfTI, PNG or slices of a stack, were changed after their export; a line for each file.
    """
    if not (folder / "manifest.json").exists():
        return np.empty((0, 0, 0), np.int16)
    manifest = read_manifest(folder)
    read: list[np.ndarray] = []
    faults: list[str] = []
    for entry in manifest["images"]:
        with noted(faults):
            read.append(exported_image(folder, entry))
            _check_png(folder / "images" / f"{entry['name']}.png", window_to_grey(read[-1], manifest["window"]))
    refuse(faults)
    images = np.stack(read)
    number_of = {entry["name"]: number for number, entry in enumerate(manifest["images"])}
    for stack in manifest["stacks"]:
        shown = images[[number_of[name] for name in stack["images"]]]
        with noted(faults):
            _check_stack(folder / "images" / f"{stack['name']}.nii.gz", shown)
    refuse(faults)
    return images


def image_sha256(image: np.ndarray) -> str:
    """Hash of an image's HU values and shape."""
    image = np.ascontiguousarray(image, dtype="<i2")
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def window_to_grey(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """HU to 8-bit grey: the lower end of the window is 0, the upper 255."""
    low, high = window
    return np.round((np.clip(image, low, high) - low) * (255.0 / (high - low))).astype(np.uint8)


def itksnap_labels(table: LabelTable) -> str:
    """Label description file of ITK-SNAP: `IDX R G B A VIS MSH "LABEL"`."""
    rows = ["# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL"]
    rows.append('    0     0    0    0     0    0   0    "Clear Label"')
    for index, (name, (red, green, blue)) in enumerate(zip(table.classes[1:], table.palette[1:], strict=True), 1):
        rows.append(f'{index:5d} {red:5d}{green:5d}{blue:5d}     1    1   1    "{name}"')
    return "\n".join(rows) + "\n"


def slicer_labels(table: LabelTable) -> str:
    """Colour table of 3D Slicer: `index name R G B A`."""
    rows = [f"# Color table file {table.name}", f"# {table.num_classes} values"]
    for index, (name, (red, green, blue)) in enumerate(zip(table.classes, table.palette, strict=True)):
        rows.append(f"{index} {name.replace(' ', '_')} {red} {green} {blue} {0 if index == 0 else 255}")
    return "\n".join(rows) + "\n"


def _check_same_work(
    folder: Path, manifest: dict[str, Any], digests: list[str], table: LabelTable, size: tuple[int, ...]
) -> None:
    """Refuse to mix two sets of images in one folder: a person's masks belong to the images they saw."""
    if manifest["classes"] != list(table.classes) or manifest["size"] != list(size):
        raise MedsegError(
            f"{folder} holds {manifest['size'][0]}x{manifest['size'][1]} images for {', '.join(manifest['classes'])}, "
            f"wanted {size[0]}x{size[1]} for {', '.join(table.classes)}; move it away or use another --out"
        )
    for number, (entry, digest) in enumerate(zip(manifest["images"], digests, strict=False)):
        if entry["sha256"] != digest:
            raise MedsegError(
                f"{folder}: image {number:04d} was exported from another generated image than the present one; "
                "its masks stay with the old images. Move the folder away or use another --out"
            )


def exported_image(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    """One image of the manifest, `(H, W)`, which must still be the one that was exported."""
    path = folder / "images" / f"{entry['name']}.nii.gz"
    image = _read_volume(path, "export again into an empty folder")
    if len(image) != 1 or image_sha256(image[0]) != entry["sha256"]:
        raise MedsegError(f"{path} was changed after its export; masks are accepted for the exported images only")
    return image[0]


def _read_volume(path: Path, advice: str) -> np.ndarray:
    """Slices `(N, H, W)` of an exported NIfTI file, one of them for an image; none where it has other axes."""
    try:
        volume = np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise MedsegError(f"{path} cannot be read ({error}); {advice}") from error
    return volume.transpose(2, 1, 0) if volume.ndim == 3 else np.empty((0, 0, 0), np.int16)


def _check_stack(path: Path, images: np.ndarray) -> None:
    """A stack that is there shows the exported images, `(N, H, W)` HU; one that was removed misleads nobody."""
    if not path.exists():
        return
    found = _read_volume(path, "remove it, the images beside it are the same")
    if not np.array_equal(found, images):
        raise MedsegError(f"{path} was changed after its export; masks are accepted for the exported images only")


def _check_png(path: Path, grey: np.ndarray) -> None:
    """A PNG that is there shows the exported image, `(H, W)` uint8; one that was removed misleads nobody."""
    if not path.exists():
        return
    try:
        with Image.open(path) as picture:
            found = np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MedsegError(f"{path} cannot be read ({error}); remove it, the .nii.gz beside it is the same") from error
    if not np.array_equal(found, grey):
        raise MedsegError(f"{path} was changed after its export; masks are accepted for the exported images only")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an annotation folder says of its images.

    Raises:
        MedsegError: nothing was exported there, or the file was edited or is of another version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise MedsegError(f"{folder} holds no exported images (manifest.json is missing); export them first")
    manifest = read_json(path)
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise MedsegError(
            f"{path} is of another version of medseg-gan (its format is {version}, this one reads {VERSION}); go on "
            "with the version that made it, or export again into an empty folder"
        )
    if not isinstance(manifest, dict) or not {"classes", "size", "spacing", "images", "stacks"} <= manifest.keys():
        raise MedsegError(f"{path} does not say which images were exported; it was edited, remove it")
    try:
        names = [entry["name"] for kind in ("images", "stacks") for entry in manifest[kind]]
        names += [name for stack in manifest["stacks"] for name in stack["images"]]
    except (KeyError, TypeError) as error:
        raise MedsegError(f"{path} does not name its images; it was edited, remove it") from error
    for name in names:
        check_name(name, path)
    return manifest


def slice_affine(spacing: Sequence[float]) -> np.ndarray:
    """`(4, 4)` from the index of an exported volume to RAS mm; a generated slice lies nowhere, so it lies at 0."""
    row_mm, column_mm, thickness = (float(value) for value in spacing)
    return np.diag([-column_mm, -row_mm, thickness, 1.0])


def _save_nifti(path: Path, images: np.ndarray, spacing: Sequence[float]) -> None:
    """Write `(N, H, W)` slices as a `(W, H, N)` volume; columns run to the patient's left, rows to posterior."""
    volume = nibabel.Nifti1Image(np.ascontiguousarray(images.transpose(2, 1, 0)), slice_affine(spacing))
    with atomic_path(path) as temporary:
        nibabel.save(volume, temporary)


def _readme(table: LabelTable, size: tuple[int, ...]) -> str:
    classes = "\n".join(
        f"  {index} {name:12s} RGB {red} {green} {blue}"
        for index, (name, (red, green, blue)) in enumerate(zip(table.classes, table.palette, strict=True))
    )
    return f"""How to paint the masks

1. In the browser: `medseg-gan annotate RUN` opens a page that does all of this; RUN is the folder of the run. Or
   open images/NUMBER-HASH.png or .nii.gz (one slice), or images/stack-HASH.nii.gz (all of them).
   ITK-SNAP: Segmentation > Import Label Descriptions > labels.txt. 3D Slicer: load labels.ctbl as a colour table.
2. Paint these classes, every pixel of them:
{classes}
3. Save each mask in masks/ under the name of its image or stack: masks/NUMBER-HASH.png, .nii.gz or .nrrd.
   {size[0]}x{size[1]} pixels; PNG as 8-bit grey holding the class numbers, or in exactly the colours above, unsmoothed.
   A pixel that is fully transparent counts as {table.classes[0]}; a half-transparent one is refused.
4. An image that shows no plausible anatomy: write its number on a line of rejected.txt and paint nothing.
5. Run the same command again. It goes on when every image has a mask or is rejected; a mask without any class counts
   as not painted. Your masks are only ever read.

The slices are generated: they show no patient. Anterior is up, the patient's left is at the right.
"""
