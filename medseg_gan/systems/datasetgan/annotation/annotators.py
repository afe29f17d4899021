"""Who labels the generated slices: a person, the HU rule for lungs, or a stand-in trained on patients of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from medseg_gan.annotate.answers import offer_earlier_masks, read_masks
from medseg_gan.annotate.files import export_images, exported_images
from medseg_gan.data.lungs import lungs_of_slice
from medseg_gan.data.slices import to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, LabelTable
from medseg_gan.training.log import say

LUNGS = ("left_lung", "right_lung")

ALWAYS_PRESENT = 0.95
"""A class on at least this share of the cohort's slices is required of a generated one."""

AREA_MARGIN = 2.0
"""A required class may be this much smaller, and any class this much larger, than ever in the cohort."""


SAME_IMAGE = 0.01
"""Mean difference, as a share of the window, up to which a second rendering is still the image a person painted."""


@dataclass(frozen=True)
class Annotation:
    """An annotator's answer to some images.

    Attributes:
        labels: `(N, H, W)` uint8 class ids; 255 everywhere where rejected.
        accepted: `(N,)` bool.
        reasons: why an image was rejected; empty where accepted.
    """

    labels: np.ndarray
    accepted: np.ndarray
    reasons: list[str]


Annotator = Callable[[Tensor], Annotation]
"""From images `(N, 1, H, W)` in [-1, 1] to an `Annotation`."""


@dataclass(frozen=True)
class Plausible:
    """What slices look like, in areas; learned from the cohort that trains the stand-in.

    Attributes:
        classes: names by id.
        required: ids of classes that hardly ever lack.
        smallest: `(K,)` smallest share of the slice where the class occurs.
        largest: `(K,)` largest share.
    """

    classes: tuple[str, ...]
    required: tuple[int, ...]
    smallest: np.ndarray
    largest: np.ndarray

    @classmethod
    def from_labels(cls, labels: np.ndarray, table: LabelTable) -> Plausible:
        """Measure the labels `(N, H, W)` of the cohort.

        Raises:
            MedsegError: there is no labelled slice.
        """
        if not len(labels):
            raise MedsegError(
                "the stand-in annotator's cohort has no labelled slice; it needs some to know what is usual"
            )
        shares = _shares(labels, table.num_classes)  # (N, K)
        present = shares > 0
        usual = present.mean(axis=0) >= ALWAYS_PRESENT
        return cls(
            classes=table.classes,
            required=tuple(int(k) for k in np.flatnonzero(usual) if k > 0),
            smallest=np.where(present, shares, np.inf).min(axis=0),
            largest=shares.max(axis=0),
        )

    def objection(self, label: np.ndarray) -> str:
        """Why a label map `(H, W)` is no plausible slice; empty if it is one."""
        (shares,) = _shares(label[None], len(self.classes))
        if not shares[1:].any():
            return "nothing found"
        for k in self.required:
            if shares[k] == 0:
                return f"no {self.classes[k]}"
            if shares[k] * AREA_MARGIN < self.smallest[k]:
                return f"{self.classes[k]} too small"
        for k in range(1, len(self.classes)):
            if shares[k] > AREA_MARGIN * self.largest[k]:
                return f"{self.classes[k]} too large"
        return ""


def lungs_annotator(
    *, window: tuple[float, float], spacing: Sequence[float], table: LabelTable, min_lung_cm2: float = 20.0
) -> Annotator:
    """The HU rule: left and right lung by their density, rejected where they cannot be told apart.

    Args:
        window: HU of -1 and 1.
        spacing: mm of a row and a column step (a generated slice has none of its own: the median of the GAN's pool).
        table: must hold the two lungs and nothing else.
        min_lung_cm2: lung area that a slice needs.

    Raises:
        MedsegError: the table has other classes.
    """
    if set(table.classes[1:]) != set(LUNGS):
        raise MedsegError(
            f"the annotator `lungs` knows left_lung and right_lung; the label table {table.name} has "
            f"{', '.join(table.classes[1:])}. Use prepare.labels=lungs or another annotate.annotator"
        )
    ids = np.array([0, table.id_of("left_lung"), table.id_of("right_lung")], np.uint8)
    pixel_mm = math.sqrt(spacing[0] * spacing[1])  # pixels are square up to the median's rounding

    def answer(hu: np.ndarray) -> tuple[np.ndarray | None, str]:
        lungs = lungs_of_slice(hu, pixel_mm)
        if lungs is None:
            return None, "lungs not told apart"
        if not {1, 2} <= set(np.unique(lungs)):
            return None, "fewer than two lungs"
        if (lungs > 0).sum() * pixel_mm**2 / 100 < min_lung_cm2:
            return None, f"less than {min_lung_cm2:g} cm2 of lung"
        return ids[lungs], ""

    def annotate(images: Tensor) -> Annotation:
        return _collect([answer(hu) for hu in to_hu(images[:, 0].cpu().numpy(), window)], images)

    return annotate


def segmenter_annotator(label_of: Callable[[Tensor], np.ndarray], plausible: Plausible) -> Annotator:
    """The stand-in: a segmenter trained on real labelled slices of its own cohort, whose labels its cost includes.

    Args:
        label_of: from images `(N, 1, H, W)` in [-1, 1] to class ids `(N, H, W)`.
        plausible: of its cohort; other answers are rejected.
    """

    def annotate(images: Tensor) -> Annotation:
        answers = []
        for label in label_of(images).astype(np.uint8):
            objection = plausible.objection(label)
            answers.append((None if objection else label, objection))
        return _collect(answers, images)

    return annotate


@dataclass
class Collected:
    """Accepted generated images and what was rejected on the way.

    Attributes:
        indices: `(N,)` sample indices, ascending.
        labels: `(N, H, W)` uint8.
        sampled: images looked at up to the last accepted one.
        rejected: how many of them were rejected, by reason.
    """

    indices: np.ndarray
    labels: np.ndarray
    sampled: int
    rejected: Mapping[str, int] = field(default_factory=dict)


def collect_accepted(
    images_of: Callable[[range], Tensor], annotate: Annotator, candidates: range, wanted: int, batch: int = 8
) -> Collected:
    """Ask the annotator about one image after another until enough are accepted.

    Args:
        images_of: images `(n, 1, H, W)` in [-1, 1] of some sample indices.
        annotate: the annotator.
        candidates: sample indices to try, in order; their number bounds the tries.
        wanted: images to accept.
        batch: images asked about at once.

    Raises:
        MedsegError: the candidates ran out; says how many were accepted and why the others were not.
    """
    indices: list[int] = []
    labels: list[np.ndarray] = []
    rejected: Counter[str] = Counter()
    for start in range(0, len(candidates), batch):
        part = candidates[start : start + batch]
        answer = annotate(images_of(part))
        for k, index in enumerate(part):
            if answer.accepted[k]:
                indices.append(index)
                labels.append(answer.labels[k])
            else:
                rejected[answer.reasons[k]] += 1
            if len(indices) == wanted:
                return Collected(np.array(indices), np.stack(labels), start + k + 1, dict(rejected))
    why = ", ".join(f"{reason}: {count}" for reason, count in rejected.most_common(4))
    raise MedsegError(
        f"the annotator accepted {len(indices)} of {len(candidates)} generated slices, wanted {wanted} ({why}); "
        "train the GAN longer, or raise annotate.max_tries"
    )


def annotate_by_person(
    folder: Path,
    images_of: Callable[[range], Tensor],
    candidates: range,
    wanted: int,
    *,
    window: tuple[float, float],
    spacing: Sequence[float],
    table: LabelTable,
    next_command: str,
    earlier: Sequence[Path] = (),
) -> Collected:
    """Export images, read a person's masks, and export further images in place of rejected ones.

    Args:
        folder: where images go and masks come from; what is there is never overwritten.
        images_of: images `(n, 1, H, W)` in [-1, 1] of some sample indices.
        candidates: sample indices; image number k of the folder is `candidates[k]`.
        wanted: images that are to be painted.
        window: HU of -1 and 1.
        spacing: mm of row, column and slice thickness.
        table: classes to paint.
        next_command: what to type when the masks are there.
        earlier: annotation folders whose answers identical images get at once, the first of them first.

    Raises:
        WaitingForPerson: masks are missing.
        MedsegError: masks do not fit their images, a line for each, or the candidates ran out.
    """
    count = wanted
    while count <= len(candidates):
        hu = to_hu(images_of(candidates[:count])[:, 0].cpu().numpy(), window)
        shown = exported_images(folder)[:count]
        if len(shown) and same_images(hu[: len(shown)], shown, window):
            hu[: len(shown)] = shown  # the last bits differ between machines; the person saw these
        names = export_images(folder, hu, window=window, spacing=spacing, table=table)
        for old in earlier:
            if offered := offer_earlier_masks(folder, old, names[len(shown) :]):
                say(f"annotate: {offered} images are those of {old} and keep the answers given there")
        painted = read_masks(folder, table, next_command=next_command)
        accepted = np.flatnonzero(painted.accepted)
        rejected = {"rejected by the person": len(painted.accepted) - len(accepted)}
        if len(accepted) >= wanted:
            indices = np.array([candidates[int(k)] for k in accepted])
            return Collected(indices, painted.labels[accepted], len(painted.accepted), rejected)
        count = wanted + len(painted.accepted) - len(accepted)
    raise MedsegError(
        f"{folder / 'rejected.txt'} rejects so many images that {wanted} cannot be reached within {len(candidates)}; "
        "train the GAN longer, or raise annotate.max_tries"
    )


def same_images(now: np.ndarray, then: np.ndarray, window: tuple[float, float]) -> bool:
    """Whether `(N, H, W)` HU are second renderings of the same images."""
    if now.shape != then.shape:
        return False
    off = np.abs(now.astype(float) - then).mean(axis=(1, 2))
    return bool((off <= SAME_IMAGE * (window[1] - window[0])).all())


def _collect(answers: Sequence[tuple[np.ndarray | None, str]], images: Tensor) -> Annotation:
    blank = np.full(tuple(images.shape[-2:]), UNLABELLED, np.uint8)
    return Annotation(
        labels=np.stack([blank if label is None else label for label, _ in answers]).astype(np.uint8),
        accepted=np.array([label is not None for label, _ in answers]),
        reasons=[reason for _, reason in answers],
    )


def _shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each slice that each class covers, `(N, K)`."""
    flat = labels.reshape(len(labels), -1)
    return np.stack([(flat == k).mean(axis=1) for k in range(num_classes)], axis=1)
