"""The file round trip of annotation: images out, painted masks in; nothing guessed, no mask of a person overwritten.

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
import re
import shutil
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from medseg_gan.annotate.masks import read_mask
from medseg_gan.atomic import atomic_path, read_json, save_png, write_json, write_text
from medseg_gan.errors import MedsegError, WaitingForPerson
from medseg_gan.labels import UNLABELLED, LabelTable

VERSION = 1
"""Of the manifest's format."""

SHOWN = 6
"""Missing masks, and empty ones, named in the message; the rest are counted."""


@dataclass(frozen=True)
class Painted:
    """What a person made of the exported images, in the order of their numbers.

    Attributes:
        labels: `(N, H, W)` uint8 class ids; 255 everywhere where rejected.
        accepted: `(N,)` bool; False where the person listed the image in `rejected.txt`.
        sha256: of each image's HU values, from the manifest.
    """

    labels: np.ndarray
    accepted: np.ndarray
    sha256: list[str]


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
        with _noted(faults):
            read.append(exported_image(folder, entry))
            _check_png(folder / "images" / f"{entry['name']}.png", window_to_grey(read[-1], manifest["window"]))
    _refuse(faults)
    images = np.stack(read)
    number_of = {entry["name"]: number for number, entry in enumerate(manifest["images"])}
    for stack in manifest["stacks"]:
        shown = images[[number_of[name] for name in stack["images"]]]
        with _noted(faults):
            _check_stack(folder / "images" / f"{stack['name']}.nii.gz", shown)
    _refuse(faults)
    return images


def read_masks(folder: Path, table: LabelTable, *, next_command: str = "the same command") -> Painted:
    """Read a person's masks, all of them or none.

    Args:
        folder: of the annotation, exported before.
        table: the classes that were to be painted.
        next_command: what to type when the masks are there.

    Returns:
        The masks in the order of the images' numbers.

    Raises:
        WaitingForPerson: masks are missing or blank.
        MedsegError: a mask has another size, unknown values, no image of its name or an image of another hash; an
            image was painted twice, or is both painted and rejected. All that is wrong is told at once, a line for each
            file or image.
    """
    manifest = read_manifest(folder)
    if manifest["classes"] != list(table.classes):
        raise MedsegError(
            f"{folder} was exported for the classes {', '.join(manifest['classes'])}, "
            f"wanted {', '.join(table.classes)}; use another folder for other labels"
        )
    height, width = manifest["size"]
    affine = slice_affine(manifest["spacing"])
    names = [entry["name"] for entry in manifest["images"]]
    exported_images(folder)  # they are still those of the manifest, so the masks were painted on them
    rejected: set[str] = set()
    masks: dict[str, np.ndarray] = {}
    origin: dict[str, Path] = {}
    empty: set[str] = set()
    faults: list[str] = []
    covers = _covers(manifest)
    for path in _mask_paths(folder):
        with _noted(faults):
            slices = _images_behind(path, covers)
            stack = read_mask(path, (len(slices), height, width), table, affine)
            twice = []
            for name, mask in zip(slices, stack, strict=True):
                if not mask.any():
                    empty.add(name)  # not painted yet: every image that is not rejected shows something
                elif name in masks:
                    twice.append(f"image {name[:4]} is painted in both {origin[name]} and {path}; keep one of them")
                else:
                    masks[name], origin[name] = mask, path
            _refuse(twice)
    with _noted(faults):
        rejected = read_rejected(folder, names)
    for name in sorted(set(masks) & rejected):
        faults.append(
            f"image {name[:4]} is listed in {folder / 'rejected.txt'} and painted in {origin[name]}; undo one"
        )
    _refuse(faults)
    lacking = [name for name in names if name not in masks and name not in rejected]
    if lacking:
        raise WaitingForPerson(
            f"{len(masks)} of {len(names) - len(rejected)} masks found; {_lacking(lacking, empty)}. "
            f"Paint them in {folder} (README.txt says how), then run {next_command}"
        )
    blank = np.full((height, width), UNLABELLED, np.uint8)
    return Painted(
        labels=np.stack([masks.get(name, blank) for name in names]),
        accepted=np.array([name not in rejected for name in names]),
        sha256=[entry["sha256"] for entry in manifest["images"]],
    )


def _lacking(names: list[str], empty: set[str]) -> str:
    """What masks of these images are waited for: those that are not there, and those that hold no class."""
    told = []
    if missing := [name[:4] for name in names if name not in empty]:
        told.append(f"missing {_some(missing)}")
    if blank := [name[:4] for name in names if name in empty]:
        ending = "s" if len(blank) == 1 else ""
        told.append(f"{_some(blank)} hold{ending} no class and so count{ending} as not painted")
    return "; ".join(told)


def _some(numbers: list[str]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(numbers[:SHOWN]) + more


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Note an error instead of ending with it, so that a person hears of all that is wrong at once."""
    try:
        yield
    except MedsegError as error:
        faults.append(str(error))


def _refuse(faults: list[str]) -> None:
    """Tell all faults, one on each line, if there are any."""
    if faults:
        raise MedsegError("\n".join(faults))


def offer_earlier_masks(folder: Path, earlier: Path, names: Collection[str] | None = None) -> int:
    """Give images the answers that a person gave to identical ones in an earlier annotation folder.

    What already has a mask or is rejected is left alone, and so is the earlier folder.

    Args:
        folder: of the present annotation, exported before.
        earlier: another annotation folder.
        names: images of `folder` that may get an answer; None means all. An answer the person took back is not to be
            given again, so only new images are named.

    Returns:
        Number of images that got a mask or were rejected again.
    """
    old, new = read_manifest(earlier), read_manifest(folder)
    if old["classes"] != new["classes"]:
        return 0  # the numbers in its masks mean other organs
    digest_of = {entry["name"]: entry["sha256"] for entry in old["images"]}
    twin_of = {entry["sha256"]: entry["name"] for entry in new["images"] if names is None or entry["name"] in names}
    stack_of = {tuple(entry["images"]): entry["name"] for entry in new["stacks"]}
    rejected = read_rejected(folder, [entry["name"] for entry in new["images"]])
    answered = rejected | {name for _, covered in mask_files(folder, new) for name in covered}
    again = {twin_of.get(digest_of[name], "") for name in read_rejected(earlier, list(digest_of))} - answered - {""}
    offered = set(again)
    for path in sorted((earlier / "masks").glob("[!.]*")):
        covered = _covers(old).get(mask_stem(path), [])
        twins = tuple(twin_of.get(digest_of[name], "") for name in covered)
        stem = twins[0] if len(twins) == 1 else stack_of.get(twins)
        if not stem or answered & set(twins):
            continue
        with atomic_path(folder / "masks" / (stem + path.name.removeprefix(mask_stem(path)))) as temporary:
            shutil.copyfile(path, temporary)
        answered |= set(twins)
        offered |= set(twins)
    if again:
        numbers = sorted(name[:4] for name in rejected | again)
        write_text(folder / "rejected.txt", "\n".join(numbers) + "\n")
    return len(offered)


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


def answers_sha256(folder: Path) -> str:
    """Hash of all that a person left in an annotation folder: masks and rejections."""
    digest = hashlib.sha256()
    for path in [*sorted((folder / "masks").glob("[!.]*")), folder / "rejected.txt"]:
        if path.is_file():
            digest.update(repr((path.name, hashlib.sha256(path.read_bytes()).hexdigest())).encode())
    return digest.hexdigest()


def mask_files(folder: Path, manifest: dict[str, Any]) -> list[tuple[Path, list[str]]]:
    """Mask files with the images each one covers; files that belong to no image are refused, a line for each."""
    covers = _covers(manifest)
    found: list[tuple[Path, list[str]]] = []
    faults: list[str] = []
    for path in _mask_paths(folder):
        with _noted(faults):
            found.append((path, _images_behind(path, covers)))
    _refuse(faults)
    return found


def _mask_paths(folder: Path) -> list[Path]:
    """All files for masks but a viewer's or an interrupted copy's own, in the order of their names."""
    return [path for path in sorted((folder / "masks").glob("*")) if not path.name.startswith(".")]


def _images_behind(path: Path, covers: dict[str, list[str]]) -> list[str]:
    """Names of the images that a mask file covers, by its own name."""
    stem = mask_stem(path)
    if stem == path.name:
        raise MedsegError(f"{path} is neither .png nor .nii.gz or .nrrd; save the mask as one of them")
    if stem not in covers:
        other = {name.split("-")[0]: name for name in covers}.get(stem.split("-")[0])
        hint = (
            f"was painted on another image than {other} (a mask of another run?); repaint it"
            if other and "-" in stem
            else "belongs to no image"
        )
        raise MedsegError(f"{path} {hint}. Masks carry the name of their image, such as {next(iter(covers))}")
    return covers[stem]


def _covers(manifest: dict[str, Any]) -> dict[str, list[str]]:
    """Images behind the name of every image and stack."""
    covers = {entry["name"]: [entry["name"]] for entry in manifest["images"]}
    return covers | {entry["name"]: entry["images"] for entry in manifest["stacks"]}


def mask_stem(path: Path) -> str:
    """Name of the image or stack that a mask is for; the whole name where the ending is none of a mask."""
    return re.sub(r"\.(nii\.gz|nii|seg\.nrrd|nrrd|png)$", "", path.name, flags=re.IGNORECASE)


def read_rejected(folder: Path, names: list[str]) -> set[str]:
    """Names of the images that a person found implausible."""
    path = folder / "rejected.txt"
    if not path.exists():
        return set()
    by_number = {name[:4]: name for name in names}
    rejected, faults = set[str](), list[str]()
    try:
        lines = path.read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise MedsegError(f"{path} is not plain text; wanted a number on each line; save it as UTF-8") from error
    for line in lines:
        number = line.split("-")[0].zfill(4)
        if number not in by_number:
            faults.append(f"{path} lists {line}, which is no image; wanted numbers from 0000 to {names[-1][:4]}")
        else:
            rejected.add(by_number[number])
    _refuse(faults)
    return rejected


def read_manifest(folder: Path) -> dict[str, Any]:
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
