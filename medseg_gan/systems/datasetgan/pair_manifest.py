"""The manifest of generated pairs: a line for each, joined from the shards' records, and what made them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gan import __version__
from medseg_gan.atomic import atomic_path, write_json
from medseg_gan.export.card import Card, write_card
from medseg_gan.export.pair_files import shard_name
from medseg_gan.runner import provenance
from medseg_gan.stages import Plan
from medseg_gan.systems.datasetgan.export_card import CardSource
from medseg_gan.systems.datasetgan.pair_shards import Shard, record_of

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

    def add(self, row: Mapping[str, str]) -> None:
        """Count one pair."""
        score = float(row["uncertainty"])
        self.pairs += 1
        self.uncertainty += score
        self.most_uncertain = max(self.most_uncertain, score)
        if "class" in row:
            self.classes[row["class"]] += 1

    def facts(self) -> dict[str, Any]:
        """Under the names of manifest and card."""
        found: dict[str, Any] = {
            "uncertainty_nats": {"mean": self.uncertainty / max(self.pairs, 1), "greatest": self.most_uncertain}
        }
        if self.classes:
            found["predicted_quality"] = dict(sorted(self.classes.items()))
        return found


def write_manifest(folder: Path, settings: Mapping[str, Any], shards: Sequence[Shard], plan: Plan | None) -> None:
    """Join the records of all shards, a line at a time, and say what made the pairs.

    Args:
        folder: of the shards, all of which are there.
        settings: what the pairs were made with, as plain values.
        shards: in order.
        plan: of the run, for the card; None leaves the card out.

    Raises:
        MedsegError: the disk is full.
    """
    sums, counts = Sums(), dict[str, int]()
    with atomic_path(folder / PAIRS) as temporary, open(temporary, "w", newline="") as joined:
        writer = csv.writer(joined, lineterminator="\n")
        for shard in shards:
            name = shard_name(shard.number, settings["format"])
            with open(record_of(folder, shard), newline="") as record:
                lines = csv.reader(record)
                header = next(lines)
                if not counts:
                    writer.writerow(header)
                counts[name] = 0
                for line in lines:
                    writer.writerow(line)
                    sums.add(dict(zip(header, line, strict=True)))
                    counts[name] += 1
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
