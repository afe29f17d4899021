"""A person's work on an annotation folder: list what is left, open an image, save its mask without loss."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np

from medseg_gan.annotate.answers import mask_files, read_rejected
from medseg_gan.annotate.files import exported_image, read_manifest, slice_affine
from medseg_gan.annotate.masks import read_mask
from medseg_gan.annotate.times import NOTHING, Saving, append_saving, dice_by_class
from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable
from medseg_gan.machine.atomic import atomic_path, is_full_disk, open_no_link, save_png, write_text

State = Literal["to do", "painted", "rejected"]

KEPT = "kept"
"""Folder beside `masks` with what would otherwise be lost: overtaken, replaced and unsaved strokes."""


class Overtaken(MedsegError):  # noqa: N818 - a state, not a fault
    """Somebody else saved the image since it was opened."""


@dataclass(frozen=True)
class Item:
    """An image in the list.

    Attributes:
        name: file stem, `0003-1a2b3c4d`.
        state: `to do`, `painted` or `rejected`.
        note: what else is to be said: painted in another file, or a mask that cannot be read.
    """

    name: str
    state: State
    note: str = ""


@dataclass(frozen=True)
class Opened:
    """An image as it was when it was opened.

    Attributes:
        name: of the image.
        image: `(H, W)` int16 HU.
        label: `(H, W)` uint8 as stored; 0 everywhere where nothing is.
        state: of the image then.
        stamp: hash of all that was stored for it.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    state: State
    stamp: str


class AnnotationWork:
    """An annotation folder, see `files`, on which one or more people work at a time.

    Example:
        work = AnnotationWork(run / "03-annotate" / "person", table)
        opened = work.open(work.items()[0].name)
        work.save(opened, label, seconds=40.0)

    Args:
        folder: of the annotation, exported before.
        table: the classes to paint.

    Raises:
        MedsegError: the folder holds no export, one of another version, or one for other classes.
    """

    def __init__(self, folder: Path, table: LabelTable) -> None:
        self.folder, self.table = folder, table
        classes = read_manifest(folder)["classes"]
        if classes != list(table.classes):
            raise MedsegError(
                f"{folder} was exported for the classes {', '.join(classes)}, wanted {', '.join(table.classes)}; "
                "use another folder for other labels"
            )
        for name in ("masks", KEPT):
            if (folder / name).is_symlink():
                raise MedsegError(f"{folder / name} is a link, and masks are saved inside {folder} only; remove it")

    @property
    def names(self) -> list[str]:
        """Names of all images, in the order of their numbers."""
        return [entry["name"] for entry in read_manifest(self.folder)["images"]]

    @property
    def window(self) -> tuple[float, float]:
        """HU between which the images hold values."""
        low, high = read_manifest(self.folder)["window"]
        return float(low), float(high)

    def items(self) -> list[Item]:
        """Every image and its state, in the order of their numbers.

        Raises:
            MedsegError: a mask of no image of this folder, or `rejected.txt` cannot be used.
        """
        masks, notes = self._masks()
        rejected = read_rejected(self.folder, self.names)

        def state(name: str) -> State:
            return "rejected" if name in rejected else "painted" if name in masks else "to do"

        return [Item(name, state(name), notes.get(name, "")) for name in self.names]

    def open(self, name: str) -> Opened:
        """Open an image for painting.

        Raises:
            MedsegError: there is no such image, or it was changed after its export.
        """
        entry = next((entry for entry in read_manifest(self.folder)["images"] if entry["name"] == name), None)
        if entry is None:
            raise MedsegError(f"{self.folder} has no image {name}; reload the page")
        image = exported_image(self.folder, entry)
        with self._alone():
            masks, _ = self._masks()
            rejected = name in read_rejected(self.folder, self.names)
            stamp = self._stamp(name)
        state: State = "rejected" if rejected else "painted" if name in masks else "to do"
        return Opened(name, image, masks.get(name, np.zeros(image.shape, np.uint8)), state, stamp)

    def save(
        self,
        opened: Opened,
        label: np.ndarray,
        *,
        seconds: float,
        began: str = NOTHING,
        pre_label: np.ndarray | None = None,
        over: bool = False,
    ) -> Opened:
        """Store a mask as `masks/NAME.png`, whole or not at all; a rejection of the image is taken back.

        Args:
            opened: the image as it was opened, or as the last saving returned it.
            label: `(H, W)` class ids.
            seconds: since then.
            began: what the strokes began from, see `Saving`.
            pre_label: `(H, W)` that was corrected, for its Dice.
            over: replace what somebody else saved meanwhile; theirs is kept in `kept/`.

        Returns:
            The image as it is now.

        Raises:
            Overtaken: it was saved or rejected meanwhile by somebody else; these strokes are in `kept/`.
            MedsegError: nothing is painted, the mask is in another file, or the disk is full.
        """
        number = opened.name[:4]
        if label.shape != opened.image.shape or label.max() >= self.table.num_classes:
            raise MedsegError(
                f"the mask of {number} is {label.shape[1]}x{label.shape[0]} with ids up to {label.max()}; wanted "
                f"{opened.image.shape[1]}x{opened.image.shape[0]} and 0 to {self.table.num_classes - 1}"
            )
        if not label.any():
            raise MedsegError(f"nothing is painted in {number}; reject an image without plausible anatomy instead")
        own = self._own(opened.name)
        with self._alone(), _strokes_stay(own):
            self._check_elsewhere(opened.name)
            self._check_stamp(opened, label, over)
            if own.exists() and (over or opened.label.max() == 0):
                self._keep_file(own)  # somebody else's, or one that could not be read
            save_png(own, label.astype(np.uint8))
            self._set_rejected(opened.name, False)
            now = Opened(opened.name, opened.image, label.astype(np.uint8), "painted", self._stamp(opened.name))
        self._note(opened.name, "painted", seconds, began, pre_label, now.label)
        return now

    def reject(self, opened: Opened, *, seconds: float, over: bool = False) -> Opened:
        """List an image in `rejected.txt`; a mask that was there goes to `kept/`.

        Raises:
            Overtaken: it was saved or rejected meanwhile by somebody else.
            MedsegError: its mask is in another file, or the disk is full.
        """
        own = self._own(opened.name)
        with self._alone(), _strokes_stay(self.folder / "rejected.txt"):
            self._check_elsewhere(opened.name)
            self._check_stamp(opened, None, over)
            if own.exists():
                self._keep_file(own)
                own.unlink()
            self._set_rejected(opened.name, True)
            blank = np.zeros(opened.image.shape, np.uint8)
            now = Opened(opened.name, opened.image, blank, "rejected", self._stamp(opened.name))
        self._note(opened.name, "rejected", seconds, NOTHING, None, blank)
        return now

    def take_back(self, opened: Opened) -> Opened:
        """Take an image out of `rejected.txt`."""
        with self._alone(), _strokes_stay(self.folder / "rejected.txt"):
            self._set_rejected(opened.name, False)
        return self.open(opened.name)

    def keep(self, name: str, label: np.ndarray) -> Path:
        """Write strokes that are not to be the mask to `kept/`, once; returns the file."""
        for path in reversed(self.kept(name)):
            if np.array_equal(self.read_kept(path), label):
                return path
        path = self._free(name, ".png")
        with _strokes_stay(path):
            save_png(path, label.astype(np.uint8))
        return path

    def keep_layer(self, name: str, layer: np.ndarray) -> Path:
        """Write a painted layer `(H, W, 4)` that is no label map to `kept/`, as it is."""
        path = self._free(name, "-as-painted.png")
        with _strokes_stay(path):
            save_png(path, layer)
        return path

    def kept(self, name: str) -> list[Path]:
        """Kept strokes of an image that can be opened again, oldest first."""
        found = (self.folder / KEPT).glob(f"{name}-*.png")
        numbers = {int(path.stem.rsplit("-", 1)[1]): path for path in found if path.stem.rsplit("-", 1)[1].isdigit()}
        return [numbers[number] for number in sorted(numbers)]

    def read_kept(self, path: Path) -> np.ndarray:
        """Kept strokes `(H, W)` uint8.

        Raises:
            MedsegError: the file was changed.
        """
        manifest = read_manifest(self.folder)
        height, width = manifest["size"]
        return read_mask(path, (1, height, width), self.table, slice_affine(manifest["spacing"]))[0]

    def _masks(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Painted label maps by image, and what is to be said of some images."""
        manifest = read_manifest(self.folder)
        height, width = manifest["size"]
        affine = slice_affine(manifest["spacing"])
        masks: dict[str, np.ndarray] = {}
        notes: dict[str, str] = {}
        for path, slices in mask_files(self.folder, manifest):
            try:
                stack = read_mask(path, (len(slices), height, width), self.table, affine)
            except MedsegError as error:
                notes |= {name: str(error) for name in slices}
                continue
            for name, mask in zip(slices, stack, strict=True):
                if mask.any():
                    masks[name] = mask
                    if path != self._own(name):
                        notes[name] = f"painted in masks/{path.name}"
        return masks, notes

    def _own(self, name: str) -> Path:
        return self.folder / "masks" / f"{name}.png"

    def _stamp(self, name: str) -> str:
        """Hash of all that is stored for an image; two browsers see by it that the other one saved."""
        digest = hashlib.sha256(str(name in read_rejected(self.folder, self.names)).encode())
        for path, slices in mask_files(self.folder, read_manifest(self.folder)):
            if name in slices:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def _check_elsewhere(self, name: str) -> None:
        note = self._masks()[1].get(name, "")
        if note.startswith("painted in "):
            raise MedsegError(
                f"{name[:4]} is {note}, which the page leaves alone; take that file out of {self.folder / 'masks'} to "
                "answer here"
            )

    def _check_stamp(self, opened: Opened, label: np.ndarray | None, over: bool) -> None:
        if over or self._stamp(opened.name) == opened.stamp:
            return
        kept = "" if label is None else f"; your strokes are kept in {KEPT}/{self.keep(opened.name, label).name}"
        raise Overtaken(
            f"{opened.name[:4]} was answered in another window since you opened it{kept}. Nothing was overwritten: "
            "open the image again to see theirs, or save over it (theirs is kept too)"
        )

    def _set_rejected(self, name: str, wanted: bool) -> None:
        rejected = read_rejected(self.folder, self.names)
        after = rejected | {name} if wanted else rejected - {name}
        if after != rejected:
            write_text(self.folder / "rejected.txt", "".join(f"{number[:4]}\n" for number in sorted(after)))

    def _keep_file(self, path: Path) -> None:
        with atomic_path(self._free(path.stem, ".png")) as temporary:
            shutil.copyfile(path, temporary)

    def _free(self, name: str, ending: str) -> Path:
        taken = {path.name[len(name) + 1 :][:3] for path in (self.folder / KEPT).glob(f"{name}-*")}
        number = next(k for k in range(1, len(taken) + 2) if f"{k:03d}" not in taken)
        return self.folder / KEPT / f"{name}-{number:03d}{ending}"

    def _note(
        self, name: str, answer: str, seconds: float, began: str, pre_label: np.ndarray | None, label: np.ndarray
    ) -> None:
        dice = {} if pre_label is None else dice_by_class(pre_label, label, self.table.classes)
        mean = None if pre_label is None or not dice else float(np.mean(list(dice.values())))
        saved = datetime.now(timezone.utc).isoformat(timespec="seconds")
        append_saving(self.folder, Saving(name, round(seconds, 2), began, answer, mean, dice, saved))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else's saving comes between a look at what is stored and the next write; other processes included."""
        with open_no_link(self.folder / ".page-lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def _strokes_stay(path: Path) -> Iterator[None]:
    """Let a full disk be told in the words of the page, where nothing is run again."""
    try:
        yield
    except MedsegError as error:
        if isinstance(error.__cause__, OSError) and is_full_disk(error.__cause__):
            raise MedsegError(
                f"disk full while writing {path.name}: nothing was changed and the strokes stay in the editor; free "
                "space and save again"
            ) from error
        raise
