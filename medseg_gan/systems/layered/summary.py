"""Stage `report`: collect the results of the other stages and write the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.pictures import PictureStore
from medseg_gan.data.pixels import to_uint8
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.seeding import numpy_rng
from medseg_gan.report.document import (
    Bar,
    Bars,
    Curves,
    DataTable,
    Document,
    Kind,
    Section,
    Sentence,
    Stacks,
    Text,
    write_document,
)
from medseg_gan.report.run_facts import run_facts
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.layered.paper import paper_tables
from medseg_gan.systems.layered.recipe import Report, TrainGan
from medseg_gan.systems.layered.stages import trained_layers
from medseg_gan.training.engine import read_stats

FLOORS = {
    "all_foreground": "all foreground",
    "all_background": "all background",
    "centred_disc": "centred disc",
    "grabcut": "GrabCut from a centred rectangle",
}
OPENING = 4
"""Generated images, and as many real ones, that open the page."""
BASELINE = {"floor: half of the real pictures": "baseline: half of the real images", "floor: ": "baseline: "}
WATCHED = ("area", "area_sd", "binarisation", "loss_mi_G", "loss_D", "D_accuracy", "loss_F")


def report(config: Report, folder: Path, inputs: Inputs) -> None:
    """Write `index.html`, `report.json` and the CSV tables."""
    folders = inputs.folders
    training = inputs.section(TrainGan)
    scores, counts = read_json(folders["evaluate"] / "scores.json"), read_json(folders["prepare"] / "counts.json")
    main = next(iter(training.arms))
    write_document(
        folder,
        Document(
            title=f"{inputs.recipe}: improved layered GAN",
            lead=lead(scores, main, counts),
            opening=opening(scores, main, inputs),
            sections=[
                score_table(scores, truth_of(counts)),
                bars(scores),
                training_table(scores),
                distance_table(scores, training),
                *layer_pictures(config, training, inputs),
                *test_pictures(config, training, inputs),
                *curves(training, folders["train_gan"]),
                *paper_tables(inputs.recipe),
                data_table(counts),
            ],
            data={"scores": scores, "counts": counts},
            **run_facts(inputs, bool(counts["phantom"])),
        ),
    )


def lead(scores: Mapping[str, Any], main: str, counts: Mapping[str, Any]) -> list[Sentence]:
    """What the reader must know first: labels used, whether the baselines are beaten, and by which seeds."""
    own = [one for one in scores["trainings"] if one["arm"] == main]
    floors = {key: found["iou"] for key, found in scores["floors"].items()}
    name = max((key for key in floors if key != "grabcut"), key=lambda key: floors[key])
    told = [
        _above(own, main, f"the best baseline ({FLOORS[name]}, IoU {floors[name]:.3f})", floors[name]),
        Sentence("No mask and no label was used to train the GAN or its segmenters; masks are for the test alone."),
    ]
    if "grabcut" in floors:
        told.append(
            _above(
                own, main, f"GrabCut, which sees one image at a time (IoU {floors['grabcut']:.3f})", floors["grabcut"]
            )
        )
    trivial = [one for one in own if one["attempts"][-1]["trivial"]]
    if trivial:
        told.append(
            Sentence(f"{len(trivial)} of {len(own)} trainings ended in a trivial solution after all restarts.", "bad")
        )
    if scores["ceiling"]:
        told.append(
            Sentence(f"The same U-Net trained on {truth_of(counts)} reaches IoU {scores['ceiling']['iou']:.3f}.")
        )
    for arm, found in scores["arms"].items():
        told.append(
            Sentence(
                f"{arm}: background distance minus image distance {found['gap']:.3g} "
                f"(near 0: all as background), image distance {found['image_distance']:.3g}."
            )
        )
    if counts["phantom"]:
        told.append(Sentence(f"Pictures: {counts['phantom']}, procedural; no photograph was seen."))
    return told


def _above(own: Sequence[Mapping[str, Any]], main: str, what: str, least: float) -> Sentence:
    """How many trainings of the main arm lie above something."""
    above = sum(one["iou"] > least for one in own)
    kind: Kind = "good" if above == len(own) else "bad" if not above else "undecided"
    values = ", ".join(f"{one['iou']:.3f}" for one in own)
    return Sentence(f"{above} of {len(own)} trainings of {main} beat {what}: {values}", kind, f"{above} of {len(own)}")


def truth_of(counts: Mapping[str, Any]) -> str:
    """What the masks of the test and the ceiling are."""
    return "masks by an HU rule" if "pools" in counts else "real masks" if not counts["phantom"] else "true masks"


def score_table(scores: Mapping[str, Any], truth: str) -> DataTable:
    """Arms beside the ceiling and the baselines."""
    rows: list[dict[str, Any]] = []
    for arm, found in scores["arms"].items():
        rows.append({"row": arm, "arm": True, "labels": "none", **found})
    if scores["ceiling"]:
        rows.append({"row": "supervised ceiling", "labels": truth, "seeds": 1, **_plain(scores["ceiling"])})
    rows += [{"row": f"floor: {FLOORS[name]}", "labels": "none", **found} for name, found in scores["floors"].items()]
    columns = [
        ("row", "training"),
        ("seeds", "seeds"),
        ("labels", "masks used"),
        ("iou", "IoU"),
        ("iou_sd", "± over seeds"),
        ("acc", "ACC"),
        ("miou", "mIoU"),
        ("iou_img", "IoU, mean over images"),
        ("ari", "ARI"),
        ("msc", "MSC"),
        ("nmi", "NMI of E_x"),
        ("F_iou", "IoU of F"),
    ]
    note = (
        f"{scores['num_test']} test images. ACC, IoU of the foreground and mIoU are those of the whole set; F "
        "is the segmenter trained in turns with the GAN, the others are U-Nets trained from scratch afterwards. "
        "Nothing is flipped: a mask that shows the background scores as it is."
    )
    return DataTable("Scores on test images", _present(columns, rows), rows, note, "scores", "arm", words=BASELINE)


def training_table(scores: Mapping[str, Any]) -> DataTable:
    """Every training with its interval and its restarts."""
    rows = [
        {
            "training": f"{one['arm']} {one['seed']}",
            **_plain(one),
            "low": one["interval"][0],
            "high": one["interval"][1],
            "restarts": len(one["attempts"]) - 1,
            "why": "; ".join(f"{a['trivial']} at step {a['iteration']}" for a in one["attempts"] if a["trivial"])
            or "—",
        }
        for one in scores["trainings"]
    ]
    columns = [
        ("training", "training"),
        ("iou", "IoU"),
        ("low", "95 % from"),
        ("high", "to"),
        ("area", "share predicted"),
        ("best_polarity_iou", "IoU, better polarity (diagnostic)"),
        ("restarts", "restarts"),
        ("why", "trivial solutions found"),
    ]
    note = f"Intervals over {scores['units']} test units. The watchdog sees masks' areas alone, no truth."
    return DataTable("Every training", columns, rows, note, "trainings")


def distance_table(scores: Mapping[str, Any], training: TrainGan) -> DataTable:
    """Distances of composites and backgrounds, with what each arm changes."""
    name = scores["distance"]["name"]
    rows = [
        {
            "row": arm,
            "changes": ", ".join(f"{key} {value}" for key, value in training.arms[arm].items()) or "—",
            **found,
        }
        for arm, found in scores["arms"].items()
    ]
    rows.append(
        {"row": "floor: half of the real pictures against the other", "image_distance": scores["distance_floor"]}
    )
    columns = [
        ("row", "training"),
        ("changes", "what it changes"),
        ("image_distance", "image distance"),
        ("background_distance", "background distance"),
        ("gap", "gap"),
        ("restarts", "restarts"),
    ]
    note = f"{name}, {scores['distance']['n_fake']} generated against {scores['distance']['n_real']} real images."
    if not scores["distance"]["comparable_to_published_fid"]:
        note += " The features are not those of the published FID; do not compare across tools."
    return DataTable("Generated images", _present(columns, rows), rows, note, "distances", words=BASELINE)


def bars(scores: Mapping[str, Any]) -> Bars:
    """IoU of every training against the baselines."""
    groups = {f"{one['arm']} {one['seed']}": Bar(one["iou"], tuple(one["interval"])) for one in scores["trainings"]}
    if scores["ceiling"]:
        groups["supervised"] = Bar(scores["ceiling"]["iou"], tuple(scores["ceiling"]["interval"]))
    floors = {FLOORS[name]: found["iou"] for name, found in scores["floors"].items() if found["iou"] > 0}
    return Bars("", groups, "IoU", floors)


def opening(scores: Mapping[str, Any], main: str, inputs: Inputs) -> list[Section]:
    """A strip of generated images with their masks beside real ones, and the small table."""
    store, test = _test_images(inputs)
    made, real = _layers(inputs, main, OPENING), test[:: max(1, len(test) // OPENING)][:OPENING]
    images = [*made["composite"], *_shown(store.images[real])]
    masks = [*made["mask"], *_masks(store.masks[real])]
    labels = ["generated"] * len(made["mask"]) + ["real"] * len(real)
    columns = [("row", "training"), ("iou", "IoU on test images"), ("iou_sd", "± over seeds"), ("labels", "masks used")]
    columns.append(("image_distance", "distance of its images"))
    rows = [{"row": arm, "labels": "none", **found} for arm, found in scores["arms"].items()]
    if scores["ceiling"]:
        rows.append({"row": "supervised ceiling", "labels": "all", "iou": scores["ceiling"]["iou"]})
    return [
        Stacks("", {"image": np.stack(images), "mask": np.stack(masks)}, labels),
        DataTable("", _present(columns, rows), rows),
    ]


def layer_pictures(config: Report, training: TrainGan, inputs: Inputs) -> list[Section]:
    """Composites, backgrounds, foregrounds and masks of the first seed of every arm."""
    return [Stacks(f"Layers of {arm}, seed 0", _layers(inputs, arm, config.pictures)) for arm in training.arms]


def _layers(inputs: Inputs, arm: str, count: int) -> dict[str, np.ndarray]:
    """What the first seed of an arm generates."""
    image, mask, background, foreground = trained_layers(inputs, arm, 0).render(range(count))
    layers = {"composite": image, "background": background, "foreground": foreground, "mask": 2 * mask - 1}
    return {name: _shown(to_uint8(layer).cpu().numpy().transpose(0, 2, 3, 1)) for name, layer in layers.items()}


def _test_images(inputs: Inputs) -> tuple[PictureStore, np.ndarray]:
    """The prepared images, and which of them are for the test and have masks."""
    store = PictureStore.open(inputs.folders["prepare"])
    return store, store.indices("test", labelled=True)


def test_pictures(config: Report, training: TrainGan, inputs: Inputs) -> list[Section]:
    """Real test images with true and predicted masks."""
    store, test = _test_images(inputs)
    chosen = np.sort(numpy_rng(inputs.seed, "report").choice(len(test), min(config.pictures, len(test)), replace=False))
    lines = {"real image": _shown(store.images[test[chosen]]), "true mask": _masks(store.masks[test[chosen]])}
    for arm in training.arms:
        pred = np.load(inputs.folders["evaluate"] / "predictions" / f"{arm}-0.npy", allow_pickle=False)[chosen]
        lines[f"mask by {arm}, seed 0"] = _masks(pred)
    return [Stacks("Test images", lines)]


def curves(training: TrainGan, folder: Path) -> list[Section]:
    """The watched terms of the last attempt of every training."""
    rows = {
        f"{arm} {seed}": read_stats(sorted((folder / f"{arm}-{seed}").glob("attempt-*"), key=_number)[-1])
        for arm, seed in training.runs()
    }
    found: list[Section] = []
    for term in WATCHED:
        series = {
            name: [(row["iteration"], row.get(term)) for row in own if term in row]
            for name, own in rows.items()
            if any(term in row for row in own)
        }
        if series:
            title = "Curves" if not found else ""
            found.append(Curves(title, series, "iteration", term, caption=term))
    return found


def data_table(counts: Mapping[str, Any]) -> Text:
    """What the images are, and what was left out."""
    items = [f"{split}: {n['pictures']} images, {n['labelled']} with masks" for split, n in counts["splits"].items()]
    if counts["without_mask"]:
        items.append(f"{len(counts['without_mask'])} test images have no mask and are not scored")
    return Text("Data", items=[*items, *counts["notes"]])


def _plain(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if isinstance(value, (int, float, str, bool))}


def _present(columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The columns for which any row has a value."""
    return [column for column in columns if any(row.get(column[0]) is not None for row in rows)]


def _shown(pixels: np.ndarray) -> np.ndarray:
    """`(N, H, W, C)` of one or three channels to what a page takes."""
    pixels = np.asarray(pixels)
    return pixels[..., 0] if pixels.shape[3] == 1 else pixels


def _masks(masks: np.ndarray) -> np.ndarray:
    """White foreground on black, grey where nobody said."""
    return np.choose(np.minimum(np.asarray(masks), 2), [0, 255, 96]).astype(np.uint8)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
