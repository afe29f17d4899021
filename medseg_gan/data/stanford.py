"""Stanford Dogs (Khosla et al., 2011) and Stanford Cars (Krause et al., 2013) as published, with masks made later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.io import loadmat

from medseg_gan.data.picture_files import inside
from medseg_gan.data.pictures import FoundPictures, Picture
from medseg_gan.data.splits import Split
from medseg_gan.errors import MedsegError

DOGS, CARS = "Stanford Dogs", "Stanford Cars"
PARTS: tuple[Split, ...] = ("train", "test")  # neither dataset has a val split


def holds_dogs(root: Path) -> bool:
    """Whether a folder looks like Stanford Dogs."""
    return (root / "Images").is_dir() and next((root / "Images").glob("n[0-9]*-*"), None) is not None


def holds_cars(root: Path) -> bool:
    """Whether a folder looks like Stanford Cars."""
    return (root / "cars_train").is_dir() or (root / "cars_test").is_dir()


def find_dogs(root: Path, masks: Path | None = None) -> FoundPictures:
    """Pictures of `Images/<wnid-breed>/`, split by `lists/{train,test}_list.mat` (or the same files in `root`).

    Args:
        root: the dataset's folder.
        masks: folder of `train_masks/<stem>.png` and `test_masks/<stem>.png` (default: `root`); neither dataset has
            masks of its own, `pseudo_masks` makes them. A picture without one is left out of every score.

    Raises:
        MedsegError: a list is missing or broken, or names a picture that is not there.
    """
    listed: list[tuple[Split, str]] = []
    for split in PARTS:
        path = _first(root / "lists" / f"{split}_list.mat", root / f"{split}_list.mat")
        files = np.atleast_1d(_field(read_mat(path), "file_list", path))
        listed += [(split, inside(str(name), path)) for name in files]
    names = [name for _, name in listed]
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise MedsegError(f"{root / 'lists'}: {twice} is listed twice; copy train_list.mat and test_list.mat again")
    breeds = tuple(sorted({PurePosixPath(name).parent.name for name in names}))
    number = {breed: k for k, breed in enumerate(breeds)}
    pictures = [
        Picture(
            name=f"Images/{name}",
            image=_existing(root / "Images" / name, split),
            mask=_mask(masks or root, split, name),
            split=split,
            class_id=number[PurePosixPath(name).parent.name],
        )
        for split, name in listed
    ]
    return FoundPictures(pictures, DOGS, breeds, _missing_masks(pictures))


def find_cars(root: Path, masks: Path | None = None) -> FoundPictures:
    """Pictures of `cars_train/` and `cars_test/` as `devkit/cars_{train,test}_annos.mat` lists them.

    Classes and their names come from `cars_test_annos_withlabels.mat` (in `devkit/` or `root`; without it test
    pictures have no class) and `cars_meta.mat`.

    Args:
        root: the dataset's folder.
        masks: see `find_dogs`.

    Raises:
        MedsegError: a list is missing or broken, classes leave a gap, or a picture is not there.
    """
    devkit = root / "devkit"
    meta = _first(devkit / "cars_meta.mat", root / "cars_meta.mat")
    classes = tuple(str(name) for name in np.atleast_1d(_field(read_mat(meta), "class_names", meta)))
    labelled = [folder / "cars_test_annos_withlabels.mat" for folder in (devkit, root)]
    lists = {
        "train": _first(devkit / "cars_train_annos.mat", root / "cars_train_annos.mat"),
        "test": _first(*labelled, devkit / "cars_test_annos.mat", root / "cars_test_annos.mat"),
    }
    pictures = []
    for split in PARTS:
        path = lists[split]
        for row in np.atleast_1d(_field(read_mat(path), "annotations", path)):
            name = inside(str(_column(row, "fname", path)), path)
            pictures.append(
                Picture(
                    name=f"cars_{split}/{name}",
                    image=_existing(root / f"cars_{split}" / name, split),
                    mask=_mask(masks or root, split, name),
                    split=split,
                    class_id=_car_class(row, classes, path),
                    box=_car_box(row, path),
                )
            )
    used = {item.class_id for item in pictures if item.split == "train"}
    unused = sorted(set(range(len(classes))) - used)
    if unused:
        raise MedsegError(
            f"{lists['train']}: class ids leave a gap, no picture has class {unused[0] + 1} of the {len(classes)} in "
            f"{meta.name}; copy both files from the same release"
        )
    return FoundPictures(pictures, CARS, classes, _missing_masks(pictures))


def read_mat(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7.

    Raises:
        MedsegError: the file is missing, of version 7.3 (HDF5), or no MATLAB file.
    """
    if not path.is_file():
        raise MedsegError(f"{path} does not exist; copy it from the published dataset")
    try:
        return dict(loadmat(path, squeeze_me=True, chars_as_strings=True))
    except NotImplementedError as error:
        raise MedsegError(
            f"{path} is a MATLAB file of version 7.3 (HDF5), wanted version 7 or older as published; "
            "copy the original, or save it again with save(..., '-v7')"
        ) from error
    except Exception as error:  # the reader raises whatever a broken file leads it to
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MedsegError(f"{path} cannot be read as a MATLAB file ({reason}); copy it again") from error


def _first(*paths: Path) -> Path:
    """The first that exists, or the first of all, to be named in the message."""
    return next((path for path in paths if path.is_file()), paths[0])


def _field(variables: dict[str, Any], name: str, path: Path) -> Any:
    if name not in variables:
        found = ", ".join(sorted(key for key in variables if not key.startswith("__"))) or "nothing"
        raise MedsegError(f"{path} has no variable {name}, it holds {found}; copy it from the published dataset")
    return variables[name]


def _columns(row: Any) -> tuple[str, ...]:
    """Fields of an annotation; a broken file may hold anything in its place."""
    return getattr(getattr(row, "dtype", None), "names", None) or ()


def _column(row: Any, name: str, path: Path) -> Any:
    if name not in _columns(row):
        raise MedsegError(f"{path}: annotations have no field {name}; copy the file from the published dataset")
    return row[name]


def _number(row: Any, name: str, path: Path) -> int:
    value = np.asarray(_column(row, name, path))
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        raise MedsegError(f"{path}: {name} of an annotation is {str(value)[:40]!r}, wanted a number; copy it again")
    return int(value.item())


def _car_class(row: Any, classes: Sequence[str], path: Path) -> int | None:
    if "class" not in _columns(row):
        if path.name.startswith("cars_test"):
            return None
        raise MedsegError(f"{path}: annotations have no field class; copy the file from the published dataset")
    number = _number(row, "class", path)
    if not 1 <= number <= len(classes):
        raise MedsegError(f"{path} uses class {number}, cars_meta.mat has 1 to {len(classes)}; copy both again")
    return number - 1


def _car_box(row: Any, path: Path) -> tuple[float, float, float, float]:
    """Corners count from 1 and belong to the box."""
    left, top, right, bottom = (_number(row, f"bbox_{name}", path) for name in ("x1", "y1", "x2", "y2"))
    if right < left or bottom < top:
        raise MedsegError(f"{path}: the box of {row['fname']} ends before it begins; copy the file again")
    return left - 1, top - 1, right - left + 1, bottom - top + 1


def _existing(path: Path, split: str) -> Path:
    if not path.is_file():
        raise MedsegError(f"the {split} list names {path}, which does not exist; copy the picture")
    return path


def _mask(folder: Path, split: str, name: str) -> Path | None:
    path = folder / f"{split}_masks" / f"{PurePosixPath(name).stem}.png"
    return path if path.is_file() else None


def _missing_masks(pictures: Sequence[Picture]) -> tuple[str, ...]:
    test = [item for item in pictures if item.split == "test"]
    missing = [item.name for item in test if item.mask is None]
    if not missing:
        return ()
    return (
        f"{len(missing)} of {len(test)} test pictures have no mask and are left out of every score "
        f"({missing[0]} is the first)",
    )
