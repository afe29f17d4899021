"""Stages `train_segmenters` and `evaluate`: segmenters on every training set, scored on test-R and test-G."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceStore, write_store
from medseg_gan.evaluation.floors import floors
from medseg_gan.evaluation.protocol import Row, Run, evenly_per_patient, scores_document
from medseg_gan.evaluation.segmentation import confusion, evaluate_segmenter
from medseg_gan.machine.atomic import read_json, write_array, write_json
from medseg_gan.machine.seeding import mix_seed, seed_step
from medseg_gan.networks.segmenters import build_segmenter, predict_labels
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.inversion import check_same_few, inverted_slices
from medseg_gan.systems.datasetgan.recipe import DECIDING, TEACHERS, Evaluate, Prepare, TrainSegmenters
from medseg_gan.systems.datasetgan.rows import (
    COMPARISONS,
    Cost,
    Draw,
    TrainingSet,
    draw_of,
    pseudo_store,
    title,
    training_set,
)
from medseg_gan.systems.datasetgan.segmenter_jobs import network_arguments, training_job
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.log import progress
from medseg_gan.training.pool import process_count
from medseg_gan.training.segmenter import checkpoint_predictions, load_segmenter, train_many


def train_segmenters(config: TrainSegmenters, folder: Path, inputs: Inputs) -> None:
    """Train every row with every network; rows with pseudo-labels come after the segmenters that label for them."""
    store = SliceStore.open(inputs.folders["prepare"])
    stores = {
        "real": inputs.folders["prepare"],
        "synthetic": inputs.folders["synthesize"] / "train",
        "annotated": inputs.folders["annotate"] / "annotated",
    }
    draws = draws_of(config, store, inputs)
    sets = training_sets(config, store, draws, inputs)
    for name in config.networks:
        _train(config, folder, name, [item for item in sets if item.row not in TEACHERS], draws, stores, inputs, store)
        taught = [item for item in sets if item.row in TEACHERS]
        for item in taught:
            teacher = TEACHERS[item.row]
            labelled = pseudo_store(teacher, item.seed)
            stores[labelled] = folder / name / labelled
            _pseudo_label(stores[labelled], folder / name / f"{teacher}-{item.seed}", store, inputs)
        _train(config, folder, name, taught, draws, stores, inputs, store)
    write_json(folder / "rows.json", [_row_entry(item) for item in sets])


def training_sets(
    config: TrainSegmenters, store: SliceStore, draws: Sequence[Draw], inputs: Inputs
) -> list[TrainingSet]:
    """Every row with every segmenter seed it is trained with, in the recipe's order."""
    synthetic = SliceStore.open(inputs.folders["synthesize"] / "train").indices()
    annotated = SliceStore.open(inputs.folders["annotate"] / "annotated").indices()
    annotator = read_json(inputs.folders["annotate"] / "annotator.json")
    inverted = inverted_slices(inputs.folders["annotate"])
    stand_in = Cost()
    if inverted is None:
        stand_in = Cost(stand_in_slices=annotator["real_slices"], stand_in_patients=annotator["real_patients"])
    return [
        training_set(
            row,
            seed,
            draws[seed],
            store,
            synthetic=synthetic,
            annotated=annotated,
            stand_in=stand_in,
            inverted=inverted,
        )
        for row in config.rows
        for seed in range(seeds_of(row, config))
    ]


def seeds_of(row: str, config: TrainSegmenters) -> int:
    """Number of segmenter seeds of a row."""
    return config.deciding_seeds if row in DECIDING else config.other_seeds


def draws_of(config: TrainSegmenters, store: SliceStore, inputs: Inputs) -> list[Draw]:
    """The real slices of every segmenter seed; where some were inverted, their patients are the few of every seed."""
    draws = [
        draw_of(config, store, inputs.seed, seed) for seed in range(max(config.deciding_seeds, config.other_seeds))
    ]
    inverted = inverted_slices(inputs.folders["annotate"])
    if inverted is None:
        return draws
    check_same_few(draws[0].few, inverted)
    return [replace(draw, few=draws[0].few) for draw in draws]


def _train(
    config: TrainSegmenters,
    folder: Path,
    name: str,
    sets: Sequence[TrainingSet],
    draws: Sequence[Draw],
    stores: Mapping[str, Path],
    inputs: Inputs,
    store: SliceStore,
) -> None:
    jobs = {
        f"{name} {item.row} {item.seed}": training_job(
            config.segmenter,
            folder / name / f"{item.row}-{item.seed}",
            [
                TrainingSource(
                    StoredSlices(stores[part.store], part.indices),
                    part.share,
                    balanced=part.store not in ("synthetic", "annotated"),
                    last_share=part.last_share,
                )
                for part in item.parts
            ],
            num_classes=store.table.num_classes,
            seed=mix_seed(inputs.seed, "segmenter", item.seed),
            inputs=inputs,
            val=StoredSlices(stores["real"], draws[item.seed].validation),
            checkpoints=config.checkpoints,
            name=name,
        )
        for item in sets
    }
    train_many(jobs, process_count(config.workers, inputs.device), f"train_segmenters: {name}")


def _pseudo_label(folder: Path, teacher: Path, store: SliceStore, inputs: Inputs) -> None:
    """Label the GAN's real slices with another row's segmenter (Lee, 2013)."""
    if (folder / "cases.json").is_file():
        return
    unlabelled = store.indices("gan")
    network = load_segmenter(teacher, inputs.device)
    labels = np.concatenate(
        [
            predict_labels(network, store.image_tensor(part), device=inputs.device, precision=inputs.precision).numpy()
            for part in np.array_split(unlabelled, max(1, len(unlabelled) // 256))
        ]
    )
    records = [store.records[k] for k in unlabelled]
    write_store(folder, store.images[unlabelled], labels, records, store.window, store.table)


def _row_entry(item: TrainingSet) -> dict[str, Any]:
    return {"row": item.row, "seed": item.seed, "cost": asdict(item.cost), "title": title(item.row, item.cost)}


def evaluate(config: Evaluate, folder: Path, inputs: Inputs) -> None:
    """Score every segmenter on every test set, beside the floors, and leave `scores.json`."""
    store = SliceStore.open(inputs.folders["prepare"])
    training: TrainSegmenters = inputs.sections["train_segmenters"]  # type: ignore[assignment]
    preparation: Prepare = inputs.sections["prepare"]  # type: ignore[assignment]
    annotator = read_json(inputs.folders["annotate"] / "annotator.json")
    tests = build_test_sets(store, preparation, inputs)
    table = store.table
    for name, (_, labels, _) in tests.items():
        write_array(folder / f"labels-{name.replace('[', '-').replace(']', '')}.npy", labels.astype(np.uint8))

    rows, trained = [], read_json(inputs.folders["train_segmenters"] / "rows.json")
    for network in training.networks:
        for row in training.rows:
            entries = [entry for entry in trained if entry["row"] == row]
            runs: dict[str, list[Run]] = {name: [] for name in tests}
            for entry in progress(entries, f"evaluate: {network} {row}", "segmenter"):
                where = inputs.folders["train_segmenters"] / network / f"{row}-{entry['seed']}"
                for name, run in _score(where, entry["seed"], tests, table.num_classes, inputs).items():
                    runs[name].append(run)
            cost, text = entries[0]["cost"], entries[0]["title"]
            rows.append(Row(row, text, network, training.segmenter.steps, row in DECIDING, cost, runs))

    units = {name: list(patients) for name, (_, _, patients) in tests.items()}
    document = scores_document(
        rows,
        units,
        annotator=annotator,
        classes=table.classes,
        orderings=[pair for pair in COMPARISONS if set(pair) <= set(training.rows)],
        floors=_floors(store, training, tests, inputs),
        interpreter=read_json(inputs.folders["train_interpreter"] / "agreement.json"),
        score_name="agreement with the HU rule" if preparation.labels == "lungs" else "mIoU",
        resamples=config.bootstrap,
        folds=config.folds,
        seed=inputs.seed,
    )
    _leave_ignite_reports(folder, training, tests["test_r"], store, inputs)
    write_json(folder / "scores.json", document)


TestSet = tuple[Tensor, np.ndarray, list[str]]
"""`(N, 1, H, W)` images in [-1, 1], `(N, H, W)` labels, and what each slice is drawn with in a bootstrap."""


def build_test_sets(store: SliceStore, preparation: Prepare, inputs: Inputs) -> dict[str, TestSet]:
    """test-R, and test-G with the labels of the factory and of the annotator where it could be asked."""
    test = store.indices("test", labelled=True)
    test = test[evenly_per_patient([store.records[k].patient for k in test], preparation.max_test_slices)]
    tests: dict[str, TestSet] = {
        "test_r": (store.image_tensor(test), store.labels[test], [store.records[k].patient for k in test])
    }
    generated = SliceStore.open(inputs.folders["synthesize"] / "test_g")
    names = [record.case for record in generated.records]
    images = generated.image_tensor(generated.indices())
    tests["test_g[factory]"] = (images, np.asarray(generated.labels), names)
    painted = inputs.folders["synthesize"] / "test_g" / "annotator_labels.npy"
    if painted.is_file():
        labels, accepted = np.load(painted), np.load(painted.with_name("annotator_accepted.npy"))
        chosen = np.flatnonzero(accepted)
        tests["test_g[annotator]"] = (images[torch.from_numpy(chosen)], labels[chosen], [names[k] for k in chosen])
    return tests


def _score(where: Path, seed: int, tests: Mapping[str, TestSet], num_classes: int, inputs: Inputs) -> dict[str, Run]:
    runs = {}
    for name, (images, labels, _) in tests.items():
        predictions, picked = checkpoint_predictions(where, images, device=inputs.device, precision=inputs.precision)
        matrices = np.stack([confusion(pred, labels, num_classes) for pred in predictions])
        runs[name] = Run(seed=seed, matrices=matrices, picked=picked)
    return runs


def _floors(
    store: SliceStore, training: TrainSegmenters, tests: Mapping[str, TestSet], inputs: Inputs
) -> dict[str, Any]:
    """Floors learn from the labelled pool's slices, on test-R and test-G alike."""
    real = store.indices("labelled", labelled=True)
    images, labels = store.image_tensor(real)[:, 0].numpy(), store.labels[real]
    seed_step(inputs.seed, "untrained")
    untrained = build_segmenter(
        **network_arguments(training.segmenter, store.table.num_classes, training.networks[0])
    ).eval()
    return {
        name: floors(images, labels, test_images[:, 0].numpy(), test_labels, store.table.num_classes, untrained)
        for name, (test_images, test_labels, _) in tests.items()
        if name != "test_g[factory]"
    }


def _leave_ignite_reports(
    folder: Path, training: TrainSegmenters, test: TestSet, store: SliceStore, inputs: Inputs
) -> None:
    """MONAI's evaluator over test-R for the first seed of every row: `ignite_report.json` and CSV files."""
    images, labels, patients = test
    names = [f"{patient}-{number:03d}" for number, patient in enumerate(patients)]
    for network in training.networks:
        for row in training.rows:
            where = inputs.folders["train_segmenters"] / network / f"{row}-0"
            evaluate_segmenter(
                load_segmenter(where, inputs.device),
                images,
                torch.from_numpy(labels.astype(np.int64)),
                names,
                store.table.classes,
                folder / network / row,
                settings={"row": row, "network": network, "segmenter_seed": 0, "steps": training.segmenter.steps},
                device=inputs.device,
                precision=inputs.precision,
            )
