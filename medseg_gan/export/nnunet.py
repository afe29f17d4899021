"""nnU-Net v2 raw data: one two-dimensional file per slice, `dataset.json`, and folds that keep patients together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel

from medseg_gan.data.slices import to_grey
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.folder import new_folder
from medseg_gan.export.slices import LabelledSlice, Selection, to_nifti
from medseg_gan.labels import LabelTable
from medseg_gan.machine.atomic import save_png, write_json
from medseg_gan.machine.seeding import numpy_rng

FileFormat = Literal["nii", "png"]
ENDINGS: Mapping[str, str] = {"nii": ".nii.gz", "png": ".png"}
CHANNELS: Mapping[str, str] = {"nii": "CT", "png": "noNorm"}
"""nnU-Net normalises by the channel's name: `CT` clips at percentiles of HU, which grey values are not."""
FOLDS = 5


def write_nnunet(
    raw: Path,
    train: Sequence[Selection],
    test: Sequence[Selection],
    card: Card,
    *,
    name: str,
    dataset_id: int = 500,
    file_format: FileFormat = "nii",
    seed: int = 0,
) -> Path:
    """Write `DatasetXXX_Name` for nnU-Net v2.

    `imagesTr` and `labelsTr` hold the training slices, `imagesTs` and `labelsTs` the test slices where there are any.
    `splits_final.json` has folds that never divide a patient; nnU-Net reads it from its folder of preprocessed data.

    Args:
        raw: the folder that nnU-Net knows as `nnUNet_raw`.
        train: training slices, all of one label table and window.
        test: test slices.
        card: facts about the data.
        name: of the data set, letters and digits.
        dataset_id: 11 to 999 (lower numbers belong to the Medical Segmentation Decathlon); no other data set in
            `raw` may have it.
        file_format: `nii`, int16 HU, or `png`, the window in 256 grey values.
        seed: of the folds.

    Returns:
        The new folder.

    Raises:
        UsageError: the number is taken.
        MedsegError: nothing to train on, or the disk is full.
    """
    if not sum(map(len, train)):
        raise MedsegError("there is no labelled slice to train nnU-Net on; wanted at least one")
    taken = sorted(path.name for path in raw.glob(f"Dataset{dataset_id:03d}_*"))
    if taken:
        raise UsageError(
            f"{raw} already has {taken[0]}, nnU-Net wants one data set per number; "
            "choose another --dataset-id, or remove it"
        )
    table, window = train[0].store.table, train[0].store.window
    with new_folder(raw / f"Dataset{dataset_id:03d}_{name}") as folder:
        groups = _write_pairs(folder, "Tr", train, file_format, window)
        if sum(map(len, test)):
            _write_pairs(folder, "Ts", test, file_format, window)
        write_json(folder / "dataset.json", dataset_json(table, len(groups), file_format, card, name))
        write_json(folder / "splits_final.json", group_folds(groups, seed))
        write_card(folder, card)
    return raw / f"Dataset{dataset_id:03d}_{name}"


def dataset_json(table: LabelTable, count: int, file_format: FileFormat, card: Card, name: str) -> dict[str, Any]:
    """What nnU-Net v2 must know, and what people should."""
    return {
        "channel_names": {"0": CHANNELS[file_format]},
        "labels": {organ: number for number, organ in enumerate(table.classes)},
        "numTraining": count,
        "file_ending": ENDINGS[file_format],
        "name": name,
        "description": card.summary,
        "licence": card.licence,
        "synthetic": card.synthetic,
    }


def group_folds(groups: Mapping[str, str], seed: int, folds: int = FOLDS) -> list[dict[str, list[str]]]:
    """Folds of nnU-Net's `splits_final.json` in which no group is divided.

    Args:
        groups: group of each case.
        seed: of the order in which groups are dealt.
        folds: at most; there are no more than groups.

    Returns:
        `train` and `val` of each fold; a single group validates on what it trains on.
    """
    names = sorted(set(groups.values()))
    dealt = numpy_rng(seed, "nnU-Net folds").permutation(names).tolist()
    parts = [set(dealt[k::folds]) for k in range(min(folds, len(dealt)))]
    if len(parts) == 1:
        return [{"train": sorted(groups), "val": sorted(groups)}]
    return [
        {
            "train": sorted(case for case, group in groups.items() if group not in part),
            "val": sorted(case for case, group in groups.items() if group in part),
        }
        for part in parts
    ]


def _write_pairs(
    folder: Path, suffix: str, parts: Sequence[Selection], file_format: FileFormat, window: tuple[float, float]
) -> dict[str, str]:
    """Write images and labels; returns the group of each case."""
    images, labels = folder / f"images{suffix}", folder / f"labels{suffix}"
    images.mkdir()
    labels.mkdir()
    ending = ENDINGS[file_format]
    groups: dict[str, str] = {}
    for item in (item for part in parts for item in part):
        image, label = images / f"{item.name}_0000{ending}", labels / f"{item.name}{ending}"
        if file_format == "png":
            save_png(image, to_grey(item.image, window))
            save_png(label, item.label)
        else:
            nibabel.save(to_nifti(item.image, item.spacing, _describe(item, "CT, HU")), image)
            nibabel.save(to_nifti(item.label, item.spacing, _describe(item, "labels")), label)
        groups[item.name] = item.group
    return groups


def _describe(item: LabelledSlice, what: str) -> str:
    kind = "SYNTHETIC, drawn by a GAN" if item.synthetic else "pseudonymised"
    return f"{kind}, research only; {what}"
