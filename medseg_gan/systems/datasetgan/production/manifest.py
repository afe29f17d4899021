"""The manifest of generated pairs: one line each, joined from the shards' records, and what made them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gan import __version__
from medseg_gan.errors import MedsegError
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.pair_files import shard_name
from medseg_gan.machine.atomic import atomic_path, read_json, write_json
from medseg_gan.running.runner import provenance
from medseg_gan.running.stages import Plan
from medseg_gan.systems.datasetgan.export.card import CardSource
from medseg_gan.systems.datasetgan.production.shards import Shard, read_record, record_of
from medseg_gan.systems.datasetgan.quality.model import CLASSES
from medseg_gan.training.log import say

PAIRS, MANIFEST = "manifest.csv", "manifest.json"

_USE = {
    "shards": 'webdataset.WebDataset("shard-000000.tar", shardshuffle=False).decode("l8")',
    "png": "manifest.csv names the image and the label of every pair; label pixels are class ids",
    "nifti": "manifest.csv names the image and the label of every pair; label voxels are class ids",
}


@dataclass
class Sums:
    """What is added up over all pairs."""

    pairs: int = 0
    uncertainty: float = 0.0
    most_uncertain: float = 0.0
    classes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, str]) -> None:
        """Count one pair, or one that was left out."""
        if not row["image"]:
            self.left_out[row.get("class", "")] += 1
            return
        score = float(row["uncertainty"])
        self.pairs += 1
        self.uncertainty += score
        self.most_uncertain = max(self.most_uncertain, score)
        if "class" in row:
            self.classes[row["class"]] += 1

    def facts(self) -> dict[str, Any]:
        """Under the names of manifest and card."""
        found: dict[str, Any] = {}
        if self.pairs:
            mean = self.uncertainty / self.pairs
            found["uncertainty_nats"] = {"mean": mean, "greatest": self.most_uncertain}
        for name, counted in (("predicted_quality", self.classes), ("predicted_of_left_out", self.left_out)):
            if counted:
                found[name] = dict(sorted(counted.items()))
        return found


def manifest_fits(folder: Path) -> bool:
    """Whether there is a manifest that can be read, with the lines that it was written with."""
    try:
        document = read_json(folder / MANIFEST)
    except MedsegError:
        return False
    pairs = folder / PAIRS
    return isinstance(document, dict) and pairs.is_file() and document.get("manifest_sha256") == _sha256(pairs)


def tell_kept(folder: Path, shards: Sequence[Shard], keep: Sequence[str], whole: bool) -> None:
    """Say how many pairs were kept, and how all were predicted.

    Args:
        folder: of all shards.
        shards: that are there.
        keep: classes that were to be kept.
        whole: whether these are all shards.

    Raises:
        MedsegError: none at all was.
    """
    sums = Sums()
    for shard in shards:
        for row in read_record(record_of(folder, shard)):
            sums.add(row)
    predicted = sums.classes + sums.left_out
    found = ", ".join(f"{name} {predicted[name]}" for name in CLASSES if predicted[name])
    if whole and not sums.pairs:
        best = next(name for name in CLASSES if predicted[name])
        better = ",".join(name for name in CLASSES if name in (*keep, best))
        raise MedsegError(
            f"0 of {predicted.total()} pairs kept, predicted {found}; use --keep {better}, with another --out than "
            f"{folder} or after removing it"
        )
    far = "" if whole else "so far "
    say(f"synthesize: {far}{sums.pairs} of {predicted.total()} pairs kept (predicted: {found or 'none yet'})")


def write_manifest(folder: Path, settings: Mapping[str, Any], shards: Sequence[Shard], plan: Plan | None) -> None:
    """Join the records of all shards, one at a time, and say what made the pairs.

    Args:
        folder: of the shards, all of which are there.
        settings: what the pairs were made with, as plain values.
        shards: in order.
        plan: of the run, for the card; None leaves the card out.

    Raises:
        MedsegError: the disk is full, or a record was cut off or edited.
    """
    sums, counts = Sums(), dict[str, int]()
    with atomic_path(folder / PAIRS) as temporary, open(temporary, "w", newline="", encoding="utf-8") as joined:
        writer = csv.writer(joined, lineterminator="\n")
        for shard in shards:
            name = shard_name(shard.number, settings["format"])
            rows = read_record(record_of(folder, shard))
            if not counts:
                writer.writerow(rows[0])
            kept = [row for row in rows if row["image"]]
            writer.writerows(row.values() for row in kept)
            counts[name] = len(kept)
            for row in rows:
                sums.add(row)
    if plan is not None:
        write_card(folder, _card(settings, sums, plan))
    document = {
        **settings,
        "synthetic": True,
        "notice": "synthetic images with labels by networks; research only",
        "pairs": sums.pairs,
        "left_out": settings["num"] - sums.pairs,
        **sums.facts(),
        "shards": counts,
        "manifest_sha256": _sha256(folder / PAIRS),
        "annotator": CardSource(plan.recipe, plan.finished, None).annotator() if plan else None,
        "medseg_gan": __version__,
        "made_by": {name: value for name, value in provenance().items() if name != "medseg_gan"},
    }
    write_json(folder / MANIFEST, document)


def _card(settings: Mapping[str, Any], sums: Sums, plan: Plan) -> Card:
    source = CardSource(plan.recipe, plan.finished, None)
    low, high = settings["window_hu"]
    contents = {
        "pairs": sums.pairs,
        "format": settings["format"],
        "pixels": f"{settings['size']} x {settings['size']}",
        "hounsfield_units": f"within {low:g} to {high:g}" + (", as black to white" * (settings["format"] == "png")),
        "row_column_and_slice_mm": settings["spacing_mm"],
        "classes": {organ: number for number, organ in enumerate(settings["classes"])},
        "sample_indices": f"from {settings['first_index']}, none of which the run itself used",
    }
    quality = source.factory_quality() | sums.facts() | {"looked_at_by_a_person": "no generated pair was"}
    use = (_USE[settings["format"]],)
    title = "CT slices and labels from a label factory"
    return Card(title, "synthetic", contents, source.made_from(), source.annotator(), quality, source.licence, use)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
