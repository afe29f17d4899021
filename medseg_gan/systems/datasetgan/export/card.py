"""The facts on the cards of a run's exports: data, annotator, checks and terms, without any name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import SliceStore
from medseg_gan.export.card import Card
from medseg_gan.export.dataset_zip import THIRDS
from medseg_gan.export.slices import Selection, count_kinds
from medseg_gan.machine.atomic import read_json
from medseg_gan.running.recipe import Recipe

PHANTOM_LICENCE = "Apache-2.0, as medseg-gan: images and labels come from its own phantom and no person."
UNSTATED = (
    "Not stated (--licence states it). The terms of the data that the networks were trained on apply; settle them "
    "before you pass this on."
)


class CardSource:
    """Where a run's facts lie.

    Args:
        recipe: of the run.
        stage: gives the folder of a finished stage by name, or an error.
        licence: terms the user states.
    """

    def __init__(self, recipe: Recipe, stage: Callable[[str], Path], licence: str | None) -> None:
        self.recipe, self.stage = recipe, stage
        self.phantom = read_json(stage("prepare") / "counts.json").get("phantom") or ""
        self.licence = licence or (PHANTOM_LICENCE if self.phantom else UNSTATED)

    def made_from(self) -> dict[str, Any]:
        """Recipe, data and what each pool held."""
        header, counts = self.recipe.header, read_json(self.stage("prepare") / "counts.json")
        return {
            "recipe": header.name,
            "profile": self.recipe.profile,
            "run_seed": self.recipe.settings.run.seed,
            "method": header.source,
            "data": self.phantom or f"the user's volumes, laid out as {header.dataset}",
            "slices": {f"pool {pool}": _pool(numbers) for pool, numbers in counts["pools"].items()},
        }

    def annotator(self) -> dict[str, Any]:
        """Who labelled the generated slices that the factory learnt from."""
        who = read_json(self.stage("annotate") / "annotator.json")
        return {
            "who": who["who"],
            "annotated_generated_slices": 0 if who["kind"] == "inversion" else self.recipe.settings.annotate.num_images,
            "real_labelled_slices_it_learnt_from": who["real_slices"],
            "of_patients": who["real_patients"],
            "candidates_rejected": sum(who["rejected"].values()),
        }

    def factory_quality(self) -> dict[str, Any]:
        """How far the factory agrees with its annotator."""
        agreement = read_json(self.stage("train_interpreter") / "agreement.json")
        return {
            "interpreter_miou_against_annotator": agreement.get("agreement_miou"),
            "held_out_generated_slices": agreement.get("held_out_images", 0),
        }


def data_card(source: CardSource, what: str, train: Sequence[Selection], test: Sequence[Selection]) -> Card:
    """Card of exported slices."""
    store = train[0].store
    contents: dict[str, Any] = {"training": count_kinds(train), "test": count_kinds(test) if test else "none"}
    contents |= {
        "pixels": f"{store.size} x {store.size}",
        "hounsfield_units": f"int16, generated ones within {store.window[0]:g} to {store.window[1]:g}",
        "classes": {organ: number for number, organ in enumerate(store.table.classes)},
    }
    quality: dict[str, Any] = {"slices_that_show_each_class": _presence(train)}
    annotator: dict[str, Any] = {}
    if what != "real":
        scores = train[0].scores
        assert scores is not None
        kept = scores[train[0].indices]
        plan = read_json(source.stage("synthesize") / "train" / "sampling.json")
        quality |= source.factory_quality()
        quality |= {
            "uncertainty_nats": {"mean": float(kept.mean()), "greatest": float(kept.max())},
            "generated": plan["generated"],
            "share_left_out_as_most_uncertain": plan["drop_uncertain"],
            "looked_at_by_a_person": "no generated pair was",
        }
        annotator = source.annotator()
    if what != "synthetic":
        annotator["real_slices"] = "ground truth of the data, lungs derived from HU where nobody painted them"
    titles = {
        "synthetic": "CT slices and labels from a label factory",
        "hybrid": "CT slices and labels from a label factory, with few real ones",
        "real": "CT slices and labels of a recipe's labelled patients",
    }
    made_from, synthetic = source.made_from(), what != "real"
    return Card(titles[what], what, contents, made_from, annotator, quality, source.licence, synthetic=synthetic)


def pool_card(source: CardSource, store: SliceStore) -> Card:
    """Card of the slices that the GAN is trained on."""
    pool = store.indices("gan")
    contents = {
        "images": len(pool),
        "patients": len({store.records[k].patient for k in pool.tolist()}),
        "pixels": f"{store.size} x {store.size}, 8-bit grey",
        "hounsfield_units": f"{store.window[0]:g} is black, {store.window[1]:g} is white",
        "labels": dict(enumerate(THIRDS)),
    }
    use = (
        "train StyleGAN2-ADA on dataset.zip, without mirroring",
        "medseg-gan recipe RECIPE --set train_gan.init_from=network.pkl --set train_gan.total_kimg=0",
    )
    title, annotator = "CT slices to train a GAN on", {"who": "nobody, labels say where a slice lies in its scan"}
    return Card(title, "real", contents, source.made_from(), annotator, {}, source.licence, use, synthetic=False)


def segmenter_card(source: CardSource, row: str, network: str) -> Card:
    """Card of one trained segmenter."""
    entries = read_json(source.stage("train_segmenters") / "rows.json")
    entry = next(item for item in entries if item["row"] == row and item["seed"] == 0)
    settings = source.recipe.settings.train_segmenters.segmenter
    contents = {"network": network, "training_set": entry["title"], "steps": settings.steps, "segmenter_seed": 0}
    synthetic = entry["cost"]["annotated_synthetic"] + entry["cost"].get("inverted_slices", 0) > 0
    annotator = source.annotator() if synthetic else {"who": "ground truth of the data"}
    return Card(
        f"Segmenter {network} trained on: {entry['title']}",
        "segmenter",
        contents,
        source.made_from(),
        annotator,
        _scores(source, row, network),
        source.licence,
        ("python -m monai.bundle run --config_file configs/inference.json --dataset_dir VOLUMES --output_dir LABELS",),
        synthetic=synthetic,
    )


def factory_card(source: CardSource) -> Card:
    """Card of the label factory."""
    settings = source.recipe.settings
    contents = {
        "generator": f"StyleGAN2-ADA, {settings.prepare.size} x {settings.prepare.size} pixels",
        "interpreter": f"labeller {read_json(source.stage('train_interpreter') / 'interpreter.json')['labeller']}",
        "truncation_psi": settings.annotate.truncation_psi,
    }
    use = ("python -m monai.bundle run --config_file configs/inference.json --num 100 --output_dir PAIRS",)
    return Card(
        "Label factory: generated CT slices with labels",
        "factory",
        contents,
        source.made_from(),
        source.annotator(),
        source.factory_quality(),
        source.licence,
        use,
    )


def _scores(source: CardSource, row: str, network: str) -> dict[str, Any]:
    """Scores of the row on each test set; of all its segmenter seeds, as the report has them."""
    document = read_json(source.stage("evaluate") / "scores.json")
    found = next(item for item in document["rows"] if (item["row"], item["network"]) == (row, network))
    return {
        f"{document['score_name']} on {name}": {
            "mean": scores["clean"]["miou"],
            "seeds": len(found["segmenter_seeds"]),
        }
        for name, scores in found["scores"].items()
    } | {"test_patients": document["test_patients"]}


def _pool(numbers: Mapping[str, int]) -> str:
    return f"{numbers['slices']} of {numbers['patients']} patients"


def _presence(parts: Sequence[Selection]) -> dict[str, int]:
    """Number of slices on which each class is seen."""
    classes = parts[0].store.table.classes
    counts = np.zeros(len(classes), int)
    for part in parts:
        for index in part.indices.tolist():
            seen = np.unique(part.store.labels[index])
            counts[seen[seen < len(classes)]] += 1
    return {organ: int(count) for organ, count in zip(classes, counts, strict=True)}
