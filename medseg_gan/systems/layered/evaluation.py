"""Stage `evaluate`: masks on real test images, and generated images against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medseg_gan.data.apc import NAME as APC
from medseg_gan.data.pictures import PictureStore
from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.clustering import (
    adjusted_rand_index,
    mean_segmentation_covering,
    normalized_mutual_information,
)
from medseg_gan.evaluation.foreground import (
    bootstrap,
    foreground_floors,
    foreground_scores,
    mean_area,
    polarity_diagnostic,
)
from medseg_gan.evaluation.frechet import (
    Extractor,
    FeatureStatistics,
    FrechetDistance,
    describe,
    extractor_for,
    feature_statistics,
    half_floor,
)
from medseg_gan.evaluation.grabcut import grabcut_floor
from medseg_gan.evaluation.segmentation import confusion
from medseg_gan.machine.atomic import write_array, write_json
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.running.mistakes import refuse_missing_file
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.layered.ct import CT
from medseg_gan.systems.layered.recipe import Evaluate, TrainGan
from medseg_gan.systems.layered.stages import CEILING, has_ceiling, trained_layers
from medseg_gan.systems.layered.training import TrainedLayers
from medseg_gan.training.log import progress
from medseg_gan.training.segmenter import load_segmenter

RENDERED = 64  # pictures rendered together for the distances
MOST_REAL = 20_000  # real pictures behind a distance, evenly spread: they are held in memory
SPREAD = ("acc", "iou", "iou_img", "miou", "ari", "msc", "F_iou", "nmi", "image_distance", "background_distance", "gap")
"""Figures of a training that are averaged over an arm's seeds."""


def check_fid_weights(config: Evaluate, inputs: Inputs) -> None:
    """Refuse weights of the distance that are not there.

    Raises:
        MedsegError: the file does not exist.
    """
    refuse_missing_file("evaluate.fid_weights", config.fid_weights)


def evaluate(config: Evaluate, folder: Path, inputs: Inputs) -> None:
    """Score every training, the ceiling and the floors, and leave `scores.json` and the predictions of each."""
    training = inputs.section(TrainGan)
    store = PictureStore.open(inputs.folders["prepare"])
    test = store.indices("test", labelled=True)
    if not len(test):
        raise MedsegError("no test picture has a mask, so nothing can be scored; give masks of some test pictures")
    images, label = store.image_tensor(test), store.label_tensor(test).numpy()
    units = [unit_of(store.records[k].name, store.dataset) for k in test]
    extractor = extractor_for(Path(config.fid_weights) if config.fid_weights else None)
    some = store.indices()[:: -(-len(store) // MOST_REAL)]
    everyone = store.image_tensor(some)
    real = feature_statistics(everyone, extractor)

    trained = []
    for arm, seed in progress(training.runs(), "evaluate", "training"):
        layers = trained_layers(inputs, arm, seed)
        pred = predictions(inputs, f"{arm}-{seed}", images)
        write_array(folder / "predictions" / f"{arm}-{seed}.npy", pred)
        scores = mask_scores(pred, label, units, config.bootstrap, inputs.seed)
        own = predict_labels(layers.F, images, device=inputs.device, precision=inputs.precision).numpy()
        scores["F_iou"] = foreground_scores(confusion(own, label, 2))["iou"]
        scores |= distances(layers, extractor, real, config.num_fake, inputs.device)
        scores["nmi"] = clustering(layers, store)
        trained.append({"arm": arm, "seed": seed, "attempts": layers.attempts, **scores})

    masks = store.indices("train", labelled=True)
    floors = foreground_floors(label, mean_area(store.label_tensor(masks).numpy()) if len(masks) else None)
    if config.grabcut:
        floors["grabcut"] = grabcut_floor(images.numpy(), label)
    ceiling = None
    if has_ceiling(inputs.folders["train_segmenters"]):
        pred = predictions(inputs, CEILING, images)
        ceiling = mask_scores(pred, label, units, config.bootstrap, inputs.seed)
    write_json(
        folder / "scores.json",
        {
            "dataset": store.dataset,
            "num_test": len(test),
            "units": len(set(units)),
            "trainings": trained,
            "arms": {arm: summary([one for one in trained if one["arm"] == arm]) for arm in training.arms},
            "floors": floors,
            "ceiling": ceiling,
            "distance": describe(extractor, len(everyone), config.num_fake),
            "distance_floor": half_floor(everyone, extractor, inputs.seed),
        },
    )


def unit_of(name: str, dataset: str) -> str:
    """What is drawn together in the bootstrap: frames of a scene, slices of a patient; a picture otherwise."""
    if dataset == APC:
        return name.rpartition("/")[0]
    return name.rpartition("-")[0] if dataset == CT else name


def predictions(inputs: Inputs, name: str, images: Tensor) -> np.ndarray:
    """`(N, H, W)` uint8 of a final segmenter."""
    network = load_segmenter(inputs.folders["train_segmenters"] / name, inputs.device)
    return predict_labels(network, images, device=inputs.device, precision=inputs.precision).numpy()


def mask_scores(pred: np.ndarray, label: np.ndarray, units: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """Every figure of one set of predictions.

    Args:
        pred: `(N, H, W)` 0 or 1.
        label: `(N, H, W)` 0, 1, or 255 where unlabelled.
        units: what is drawn together in the bootstrap, for each picture.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    matrices = confusion(pred, label, 2)
    return {
        **foreground_scores(matrices),
        "interval": bootstrap(matrices, units, resamples, seed)["iou"],
        "ari": adjusted_rand_index(pred, label),
        "msc": mean_segmentation_covering(pred, label),
        "area": float((pred == 1).mean()),
        **polarity_diagnostic(matrices),
    }


def distances(
    layers: TrainedLayers, extractor: Extractor, real: FeatureStatistics, count: int, device: str
) -> dict[str, float]:
    """Distance of composites and of bare backgrounds from the real pictures, and their gap.

    A gap near 0 says that backgrounds alone look as real as composites: all as background (Yang et al., table D.2).
    """
    metrics = {name: FrechetDistance(extractor, real, device=device) for name in ("image", "background")}
    for start in range(0, count, RENDERED):
        image, _, background, _ = layers.render(range(start, start + RENDERED))
        kept = min(RENDERED, count - start)
        metrics["image"].update(image[:kept])
        metrics["background"].update(background[:kept])
    found = {name: float(metric.compute()) for name, metric in metrics.items()}
    return {
        "image_distance": found["image"],
        "background_distance": found["background"],
        "gap": found["background"] - found["image"],
    }


def clustering(layers: TrainedLayers, store: PictureStore) -> float | None:
    """NMI between argmax E_x(real) and the classes over all pictures; None without classes or with a Gaussian code."""
    if layers.prior.kind != "categorical" or any(record.class_id is None for record in store.records):
        return None
    everyone = store.indices()
    found = np.concatenate(
        [layers.clusters(store.image_tensor(part)) for part in np.array_split(everyone, -(-len(everyone) // 256))]
    )
    return normalized_mutual_information(found, store.class_ids(everyone).numpy())


def summary(trainings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (ddof 1) over an arm's seeds of every figure all of them have."""
    found: dict[str, Any] = {"seeds": len(trainings), "restarts": sum(len(one["attempts"]) - 1 for one in trainings)}
    for name in SPREAD:
        values = [one[name] for one in trainings]
        if None in values:
            continue
        found[name] = float(np.mean(values))
        found[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return found
