"""DICOM SEG beside a CT series of exported slices (highdicom, an extra)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medseg_gan import __version__
from medseg_gan.errors import MedsegError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.dicom_series import MANUFACTURER, Origin, build_series, make_uid, pixel_digest, save_dataset
from medseg_gan.export.folder import new_folder
from medseg_gan.export.slices import LabelledSlice, Selection
from medseg_gan.labels import LabelTable

SEG_FILE = "seg.dcm"
LabelledBy = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

ORGANS: Mapping[str, Code] = {
    "heart": codes.SCT.Heart,
    "aorta": codes.SCT.Aorta,
    "trachea": codes.SCT.Trachea,
    "esophagus": codes.SCT.Esophagus,
    "left_lung": Code("44029006", "SCT", "Left lung"),
    "right_lung": Code("3341006", "SCT", "Right lung"),
}


def write_dicom(out: Path, parts: Sequence[Selection], card: Card, origin: Origin, labeller: str) -> Path:
    """Write a folder per case: its CT slices `ct-0001.dcm`, ... and `seg.dcm`, a binary DICOM SEG of them.

    A generated pair is a case of its own: put into one series, unrelated slices would look like a body.

    Args:
        out: folder to make.
        parts: slices to write; those of a case follow each other.
        card: facts about the data.
        origin: of the run.
        labeller: who labelled generated slices, such as `label factory`; real ones have their ground truth.

    Raises:
        MedsegError: nothing to write, or the disk is full.
    """
    if not sum(map(len, parts)):
        raise MedsegError("there is no labelled slice to write as DICOM; wanted at least one")
    with new_folder(out) as folder:
        for part in parts:
            for case, slices in _cases(part):
                where = folder / case
                where.mkdir()
                series = build_series(slices, origin)
                for number, image in enumerate(series, start=1):
                    save_dataset(image, where / f"ct-{number:04d}.dcm")
                how: LabelledBy = "AUTOMATIC" if slices[0].synthetic else "SEMIAUTOMATIC"
                who = labeller if slices[0].synthetic else "ground truth of the data set, lungs derived from HU"
                labels = np.stack([item.label for item in slices])
                segmentation = build_segmentation(series, labels, part.store.table, origin, how=how, who=who)
                save_dataset(segmentation, where / SEG_FILE)
        write_card(folder, card)
    return out


def build_segmentation(
    series: Sequence[Dataset],
    labels: np.ndarray,
    table: LabelTable,
    origin: Origin,
    *,
    how: LabelledBy = "AUTOMATIC",
    who: str = "label factory",
) -> Dataset:
    """A binary DICOM SEG; segment k is class k of the label table.

    Binary, because few viewers read the newer label maps. Read it back by the UIDs of its sources: as a volume its
    slices may come in the other order.

    Args:
        series: CT images of `build_series`.
        labels: `(N, H, W)` uint8 class ids of the N images.
        table: classes.
        origin: of the run.
        how: whether an algorithm or a person labelled.
        who: name of the algorithm.
    """
    first = series[0]
    uid = (origin.digest, str(first.SeriesInstanceUID), pixel_digest(labels))
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=who[:64], version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=organ,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=ORGANS[organ],
            algorithm_type=how,
            algorithm_identification=algorithm if how != "MANUAL" else None,
        )
        for number, organ in enumerate(table.classes)
        if number
    ]
    prefix = "SYNTHETIC" if first.SyntheticData == "YES" else "PSEUDONYM"
    segmentation = highdicom.seg.Segmentation(
        source_images=list(series),
        pixel_array=np.ascontiguousarray(labels),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=make_uid(*uid, "series"),
        series_number=2,
        sop_instance_uid=make_uid(*uid, "image"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=__version__,
        device_serial_number=origin.digest[:16],
        content_label="LABELS",
        content_description=f"{prefix} labels, research only",
        series_description=f"{prefix} labels, medseg-gan, research only",
        omit_empty_frames=bool(labels.any()),
    )
    _settle(segmentation, first, make_uid(*uid, "dimensions"))
    return segmentation


def _cases(part: Selection) -> Iterator[tuple[str, list[LabelledSlice]]]:
    for case, slices in groupby(part, key=lambda item: item.case):
        yield case, sorted(slices, key=lambda item: item.position)


def _settle(segmentation: Dataset, source: Dataset, dimensions: str) -> None:
    """Replace what highdicom draws at random or takes from the clock: the same slices make the same file."""
    segmentation.ContentDate, segmentation.ContentTime = source.ContentDate, source.ContentTime
    segmentation.InstanceCreationDate, segmentation.InstanceCreationTime = source.ContentDate, source.ContentTime
    for equipment in segmentation.get("ContributingEquipmentSequence", ()):  # highdicom itself, at this very moment
        equipment.ContributionDateTime = f"{source.ContentDate}{source.ContentTime}"
    segmentation.SyntheticData = source.SyntheticData
    for item in [*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence]:
        item.DimensionOrganizationUID = dimensions
