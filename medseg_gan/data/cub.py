"""CUB-200-2011, the Caltech birds (Wah et al., 2011), as published: its lists, masks and splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from medseg_gan.data.picture_files import inside, read_lines
from medseg_gan.data.pictures import FoundPictures, Picture, refuse_unmasked_test
from medseg_gan.data.splits import SPLITS, Split, cut_splits
from medseg_gan.errors import MedsegError

NAME = "CUB-200-2011 (Caltech birds)"
FOLDER = "CUB_200_2011"
SPLIT_FILE = "train_val_test_split.txt"
VAL, TEST = 788 / 11788, 1000 / 11788  # sizes of ReDO's split (Chen et al., 2019): 10000, 788, 1000


def holds_cub(root: Path) -> bool:
    """Whether a folder, or `CUB_200_2011` in it, looks like the Caltech birds."""
    base = _base(root)
    lists = ("images.txt", "image_class_labels.txt", "bounding_boxes.txt", SPLIT_FILE)
    return (base / "images").is_dir() and any((base / name).is_file() for name in lists)  # one lost is told by name


def _base(root: Path) -> Path:
    return root / FOLDER if (root / FOLDER).is_dir() else root


def find_cub(root: Path) -> FoundPictures:
    """Pictures of the Caltech birds.

    `root` is `CUB_200_2011` or the folder above; `segmentations/` lies in either. Without ReDO's
    `train_val_test_split.txt` (image id, then 0 train, 1 val, 2 test) a split of the same shares is derived from a
    hash of the ids, whatever the order of the list. `bounding_boxes.txt` may be absent.

    Raises:
        MedsegError: a list is missing, broken or does not fit the others, a picture or a test mask is missing.
    """
    base = _base(root)
    names = read_list(base / "images.txt")
    if not names:
        raise MedsegError(f"{base / 'images.txt'} names no picture; copy it again")
    classes, class_ids = _classes(base, names)
    splits, notes = _splits(base / SPLIT_FILE, names)
    boxes = _boxes(base / "bounding_boxes.txt", names)
    masks = next((folder for folder in (base / "segmentations", root / "segmentations") if folder.is_dir()), None)
    if masks is None:
        raise MedsegError(f"{base} has no segmentations/ folder; unpack the dataset's segmentations.tgz there")
    pictures = []
    for key, name in names.items():
        path = base / "images" / inside(name, base / "images.txt")
        mask = masks / PurePosixPath(name).with_suffix(".png")
        if not path.is_file():
            raise MedsegError(f"{base / 'images.txt'} names {name}, but {path} does not exist; copy the picture")
        found = mask if mask.is_file() else None
        pictures.append(Picture(name, path, found, splits[key], class_ids[key], box=boxes.get(key)))
    refuse_unmasked_test(pictures, masks)
    return FoundPictures(pictures, NAME, classes, notes)


def read_list(path: Path) -> dict[str, str]:
    """Lines of `id value`, by id, in the file's order.

    Raises:
        MedsegError: the file is missing, a line is not of that form, or an id comes twice.
    """
    values: dict[str, str] = {}
    for number, line in read_lines(path):
        key, _, value = line.partition(" ")
        if not (key.isascii() and key.isdecimal() and len(key) < 10) or not value.strip():
            raise MedsegError(f"{path}, line {number}: {line[:60]!r} is not an id and a value; copy it again")
        if key in values:
            raise MedsegError(f"{path}, line {number}: id {key} comes twice; copy the file again")
        values[key] = value.strip()
    return values


def _classes(base: Path, names: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, int | None]]:
    """Class names and the class of each picture, counted from 0; published ids count from 1."""
    path = base / "image_class_labels.txt"
    if not path.is_file():
        return (), dict.fromkeys(names)
    labels = _integers(_covering(path, names), path)
    listed = base / "classes.txt"
    if listed.is_file():
        titles = {int(key): title for key, title in read_list(listed).items()}
    else:
        titles = {number: str(number) for number in labels.values()}
    if sorted(titles) != list(range(1, len(titles) + 1)):
        gap = min(set(range(1, len(titles) + 1)) - set(titles))
        raise MedsegError(
            f"{listed if listed.is_file() else path}: class ids leave a gap, {gap} is missing below {max(titles)}; "
            "wanted 1, 2, 3, ... without gaps, so renumber the classes in classes.txt and image_class_labels.txt"
        )
    strange = sorted(set(labels.values()) - set(titles))
    if strange:
        raise MedsegError(f"{path} uses class {strange[0]}, which classes.txt does not have; correct one of them")
    return tuple(titles[k] for k in sorted(titles)), {key: labels[key] - 1 for key in names}


def _splits(path: Path, names: Mapping[str, str]) -> tuple[dict[str, Split], tuple[str, ...]]:
    if not path.is_file():
        splits = cut_splits(list(names), val=VAL, test=TEST)
        return splits, (f"{path.name} is missing: the split is derived from the picture ids, not the published one",)
    numbers = _integers(_covering(path, names), path)
    strange = sorted(set(numbers.values()) - {0, 1, 2})
    if strange:
        raise MedsegError(f"{path} holds split {strange[0]}, wanted 0 (train), 1 (val) or 2 (test)")
    return {key: SPLITS[numbers[key]] for key in names}, ()


def _boxes(path: Path, names: Mapping[str, str]) -> dict[str, tuple[float, float, float, float]]:
    if not path.is_file():
        return {}
    boxes = {}
    for key, text in _covering(path, names).items():
        try:
            x, y, width, height = (float(word) for word in text.split())
        except ValueError as error:
            raise MedsegError(f"{path}: box {key} is {text!r}, wanted x, y, width and height") from error
        if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) <= 0:
            raise MedsegError(f"{path}: box {key} is {text!r}, wanted finite numbers, a width and a height above 0")
        boxes[key] = (x, y, width, height)
    return boxes


def _covering(path: Path, names: Mapping[str, str]) -> dict[str, str]:
    """A list that has a value for every picture."""
    values = read_list(path)
    missing = [key for key in names if key not in values]
    if missing:
        raise MedsegError(
            f"{path} has nothing for {len(missing)} of the {len(names)} pictures in images.txt (id {missing[0]} is the "
            "first); copy both files from the same release"
        )
    return values


def _integers(values: Mapping[str, str], path: Path) -> dict[str, int]:
    for key, value in values.items():
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise MedsegError(f"{path}: id {key} has {value[:40]!r}, wanted a whole number")
    return {key: int(value) for key, value in values.items()}
