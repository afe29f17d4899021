"""Recognise an image data set by its folders, or read a plain folder of images and masks."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from medseg_gan.data.apc import find_apc, holds_apc
from medseg_gan.data.cub import find_cub, holds_cub
from medseg_gan.data.picture_files import SUFFIXES, read_lines
from medseg_gan.data.pictures import FoundPictures, Picture, refuse_unmasked_test
from medseg_gan.data.splits import SPLITS, Split, cut_splits
from medseg_gan.data.stanford import find_cars, find_dogs, holds_cars, holds_dogs
from medseg_gan.errors import MedsegError, UsageError, did_you_mean

SHARE = 0.1  # of the pictures with masks, for val and again for test, where a plain folder has no splits/


def holds_folder(root: Path) -> bool:
    """Whether a folder has `images/`."""
    return (root / "images").is_dir()


def find_folder(root: Path) -> FoundPictures:
    """Pictures of `images/**` with masks of the same relative name in `masks/**.png`.

    Pictures have 8 bits a channel; 16-bit grey is scaled from 0 to 65535 and refused where it fills 14 bits or fewer.

    `splits/{train,val,test}.txt` name pictures, one a line, relative to `images/`, with or without the ending. Without
    `train.txt` every picture in neither val nor test is train; with it, pictures in no list are left out. Without
    `splits/` a tenth of the pictures with masks each goes to val and test by a hash of their names; pictures without
    masks are train. `labels.csv` has the columns `name` and `class`; its classes are words, numbered in sorted order
    (numbers in numerical order), so that gaps between numbers do not matter.

    Raises:
        MedsegError: no picture, two of one name, masks or list entries without a picture, or test without masks.
    """
    images = _by_name(root / "images", SUFFIXES)
    if not images:
        raise MedsegError(f"{root / 'images'} has no picture ({', '.join(SUFFIXES)}); copy them there")
    masks = _by_name(root / "masks", (".png",)) if (root / "masks").is_dir() else {}
    stray = sorted(set(masks) - set(images))
    if stray:
        raise MedsegError(
            f"{root / 'masks'} has {len(stray)} masks without a picture of the same name in images/ ({stray[0]}.png is "
            "the first); rename or remove them"
        )
    splits, notes = _splits(root / "splits", images, masks)
    classes, class_ids = _labels(root / "labels.csv", images)
    pictures = [
        Picture(f"images/{path.relative_to(root / 'images').as_posix()}", path, masks.get(name), splits[name],
                class_ids.get(name))
        for name, path in images.items()
        if name in splits
    ]  # fmt: skip
    refuse_unmasked_test(pictures, root / "masks")
    return FoundPictures(pictures, "pictures", classes, notes)


def _by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files by relative name without the ending, sorted; hidden ones are passed over."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.with_suffix("").as_posix()
        if name in found:
            raise MedsegError(f"{found[name]} and {path} have one name; rename one, masks and lists go by the name")
        found[name] = path
    return found


def _splits(folder: Path, images: dict[str, Path], masks: dict[str, Path]) -> tuple[dict[str, Split], tuple[str, ...]]:
    if not folder.is_dir():
        cut = cut_splits(sorted(masks), val=SHARE, test=SHARE)
        note = f"{folder.name}/ is missing: a tenth each of the {len(masks)} pictures with masks is val and test"
        note = note if masks else f"{folder.name}/ and masks are missing: every picture is train, none can be scored"
        return {name: cut.get(name, "train") for name in images}, (note,)
    splits: dict[str, Split] = {}
    lists = [(split, folder / f"{split}.txt") for split in SPLITS if (folder / f"{split}.txt").is_file()]
    if not lists:
        raise MedsegError(f"{folder} has none of train.txt, val.txt and test.txt; add them or remove the folder")
    for split, path in lists:
        for _, line in read_lines(path):
            name = _name(line, images, path)
            if splits.get(name, split) != split:
                raise MedsegError(f"{path} names {line}, which is in {splits[name]}.txt too; remove one")
            splits[name] = split
    left = [name for name in images if name not in splits]
    if not (folder / "train.txt").is_file():
        return splits | dict.fromkeys(left, SPLITS[0]), ()
    return splits, (f"{len(left)} pictures are in no list of {folder.name}/ and are left out",) if left else ()


def _name(text: str, images: dict[str, Path], path: Path) -> str:
    """A picture's name as a list gives it, with or without the ending."""
    for name in (text, PurePosixPath(text).with_suffix("").as_posix() if PurePosixPath(text).name else text):
        if name in images:
            return name
    raise MedsegError(f"{path} names {text}, but images/ has no such picture{did_you_mean(text, images)}")


def _labels(path: Path, images: dict[str, Path]) -> tuple[tuple[str, ...], dict[str, int]]:
    if not path.is_file():
        return (), {}
    rows = csv.DictReader(line for _, line in read_lines(path))
    columns = list(rows.fieldnames or ())
    if not {"name", "class"} <= set(columns):
        raise MedsegError(f"{path} has the columns {', '.join(columns) or 'none'}, wanted name and class")
    words = {_name(row["name"] or "", images, path): (row["class"] or "").strip() for row in rows}
    if "" in words.values():
        raise MedsegError(f"{path}: a picture has no class; fill it in or remove the line")
    numeric = all(re.fullmatch(r"\d+", word) for word in words.values())
    classes = sorted(set(words.values()), key=lambda word: (int(word) if numeric else 0, word))
    return tuple(classes), {name: classes.index(word) for name, word in words.items()}


LAYOUTS: dict[str, tuple[Callable[[Path], bool], str]] = {  # the plain folder last: CUB has images/ too
    "cub": (holds_cub, "images.txt, images/, segmentations/"),
    "dogs": (holds_dogs, "Images/<wnid-breed>/, lists/"),
    "cars": (holds_cars, "cars_train/, cars_test/, devkit/"),
    "apc": (holds_apc, "training/<surface>/<object>/scene-XXXX/"),
    "folder": (holds_folder, "images/, masks/"),
}


def find_pictures(root: Path, layout: str = "auto", masks: Path | None = None) -> FoundPictures:
    """Find the pictures of a dataset.

    Args:
        root: the dataset's folder.
        layout: one of `LAYOUTS`, or `auto` to go by what is there.
        masks: folder of pseudo masks, for Stanford Dogs and Cars (default: `root`).

    Raises:
        UsageError: there is no layout of that name.
        MedsegError: the folder is missing or of no known layout, or its files do not fit together.
    """
    root = Path(root)
    if layout != "auto" and layout not in LAYOUTS:
        raise UsageError(
            f"there is no picture layout {layout!r}, wanted auto, {', '.join(LAYOUTS)}{did_you_mean(layout, LAYOUTS)}"
        )
    if not root.is_dir():
        raise MedsegError(f"{root} is not a folder; give the dataset's folder")
    if layout == "auto":
        layout = next((name for name, (holds, _) in LAYOUTS.items() if holds(root)), "auto")
    if layout == "auto" or not LAYOUTS[layout][0](root):
        wanted = LAYOUTS if layout == "auto" else [layout]
        known = "; ".join(f"{LAYOUTS[name][1]} ({name})" for name in wanted)
        raise MedsegError(f"{root} is not laid out as a picture dataset; wanted {known}")
    if layout in ("dogs", "cars"):
        return (find_dogs if layout == "dogs" else find_cars)(root, masks)
    return {"cub": find_cub, "apc": find_apc, "folder": find_folder}[layout](root)
