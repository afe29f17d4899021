"""Read masks and rejections from a person: all of them or none. Nothing is guessed and no mask is overwritten."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.annotate.faults import noted, refuse
from medseg_gan.annotate.files import exported_images, read_manifest, slice_affine
from medseg_gan.annotate.masks import read_mask
from medseg_gan.errors import MedsegError, WaitingForPerson
from medseg_gan.labels import UNLABELLED, LabelTable
from medseg_gan.machine.atomic import atomic_path, write_text

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
    names = [entry["name"] for entry in manifest["images"]]
    exported_images(folder)  # they are still those of the manifest, so the masks were painted on them
    masks, rejected, empty = _all_answers(folder, manifest, table)
    lacking = [name for name in names if name not in masks and name not in rejected]
    if lacking:
        raise WaitingForPerson(
            f"{len(masks)} of {len(names) - len(rejected)} masks found; {_lacking(lacking, empty)}. "
            f"Paint them in {folder} (README.txt says how), then run {next_command}"
        )
    blank = np.full(tuple(manifest["size"]), UNLABELLED, np.uint8)
    return Painted(
        labels=np.stack([masks.get(name, blank) for name in names]),
        accepted=np.array([name not in rejected for name in names]),
        sha256=[entry["sha256"] for entry in manifest["images"]],
    )


def _all_answers(
    folder: Path, manifest: dict[str, Any], table: LabelTable
) -> tuple[dict[str, np.ndarray], set[str], set[str]]:
    """Painted masks by image, rejected images, and images whose mask holds no class; all faults are told at once."""
    height, width = manifest["size"]
    affine = slice_affine(manifest["spacing"])
    names = [entry["name"] for entry in manifest["images"]]
    rejected: set[str] = set()
    masks: dict[str, np.ndarray] = {}
    origin: dict[str, Path] = {}
    empty: set[str] = set()
    faults: list[str] = []
    covers = _covers(manifest)
    for path in _mask_paths(folder):
        with noted(faults):
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
            refuse(twice)
    with noted(faults):
        rejected = read_rejected(folder, names)
    for name in sorted(set(masks) & rejected):
        faults.append(
            f"image {name[:4]} is listed in {folder / 'rejected.txt'} and painted in {origin[name]}; undo one"
        )
    refuse(faults)
    return masks, rejected, empty


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
    for path in _mask_paths(earlier):
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


def answers_sha256(folder: Path) -> str:
    """Hash of all that a person left in an annotation folder: masks and rejections."""
    digest = hashlib.sha256()
    for path in [*_mask_paths(folder), folder / "rejected.txt"]:
        if path.is_file():
            digest.update(repr((path.name, hashlib.sha256(path.read_bytes()).hexdigest())).encode())
    return digest.hexdigest()


def mask_files(folder: Path, manifest: dict[str, Any]) -> list[tuple[Path, list[str]]]:
    """Mask files with the images each one covers; files that belong to no image are refused, a line for each."""
    covers = _covers(manifest)
    found: list[tuple[Path, list[str]]] = []
    faults: list[str] = []
    for path in _mask_paths(folder):
        with noted(faults):
            found.append((path, _images_behind(path, covers)))
    refuse(faults)
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
    refuse(faults)
    return rejected
