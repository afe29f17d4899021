"""Stages `train_segmenters` and `evaluate`: segmenters on every training set, scored on test-R and test-G."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceStore, write_store
from medseg_gan.evaluation.evaluator import Evaluation, evaluate_segmenter
from medseg_gan.evaluation.floors import floors
from medseg_gan.evaluation.protocol import Row, Run, evenly_per_patient, scores_document
from medseg_gan.evaluation.segmentation import confusion
from medseg_gan.machine.atomic import read_json, write_array, write_json
from medseg_gan.machine.seeding import mix_seed, seed_step
from medseg_gan.networks.segmenters import build_segmenter, predict_labels
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.inversion import inverted_slices
from medseg_gan.systems.datasetgan.draws import Draw, TrainingSet, draw_of, pseudo_store, training_set
from medseg_gan.systems.datasetgan.recipe import Evaluate, Prepare, TrainSegmenters
from medseg_gan.systems.datasetgan.rows import COMPARISONS, ROWS, TEACHERS, Cost, title
from medseg_gan.systems.datasetgan.segmenter_jobs import network_arguments, training_job
from medseg_gan.systems.datasetgan.volumes import WholeVolumes
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.log import progress
from medseg_gan.training.pool import process_count
from medseg_gan.training.segmenter import checkpoint_files, load_segmenter, train_many


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
    return config.deciding_seeds if ROWS[row].repeated else config.other_seeds


def draws_of(config: TrainSegmenters, store: SliceStore, inputs: Inputs) -> list[Draw]:
    """The real slices of every segmenter seed; where some were inverted, their patients are the few of every seed."""
    draws = [
        draw_of(config, store, inputs.seed, seed) for seed in range(max(config.deciding_seeds, config.other_seeds))
    ]
    inverted = inverted_slices(inputs.folders["annotate"])
    if inverted is None:
        return draws
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
    training = inputs.section(TrainSegmenters)
    preparation = inputs.section(Prepare)
    annotator = read_json(inputs.folders["annotate"] / "annotator.json")
    tests = build_test_sets(store, preparation, inputs)
    volumes = WholeVolumes.open(store, rows_of_test_r(store, preparation), preparation.crop)
    table = store.table
    for name, test in tests.items():
        write_array(folder / f"labels-{name.replace('[', '-').replace(']', '')}.npy", test.labels.astype(np.uint8))

    rows, trained = [], read_json(inputs.folders["train_segmenters"] / "rows.json")
    for network in training.networks:
        for row in training.rows:
            entries = [entry for entry in trained if entry["row"] == row]
            runs: dict[str, list[Run]] = {name: [] for name in tests}
            for entry in progress(entries, f"evaluate: {network} {row}", "segmenter"):
                where = inputs.folders["train_segmenters"] / network / f"{row}-{entry['seed']}"
                picked = {"row": row, "network": network, "segmenter_seed": entry["seed"]}
                found, test_r = evaluate_checkpoints(where, entry["seed"], tests, table.classes, inputs)
                if entry["seed"] == 0:
                    means = volumes.score(load_segmenter(where, inputs.device), test_r.pred, picked, inputs)
                    test_r.write(folder / network / row, {**picked, "steps": training.segmenter.steps}, volumes=means)
                for name, run in found.items():
                    runs[name].append(run)
            cost, text = entries[0]["cost"], entries[0]["title"]
            rows.append(Row(row, text, network, training.segmenter.steps, ROWS[row].repeated, cost, runs))

    units = {name: test.units for name, test in tests.items()}
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
    volumes.write(folder / "volumes.csv")
    write_json(folder / "scores.json", {**document, "volumes": volumes.document()})


class ImageSet(NamedTuple):
    """A test set.

    Attributes:
        images: `(N, 1, H, W)` in [-1, 1].
        labels: `(N, H, W)` class ids.
        units: what each slice is drawn with in a bootstrap: its patient; a generated slice is drawn on its own.
        part_of: the test set whose images these are, and their positions there, where other labels judge them.
    """

    images: Tensor
    labels: np.ndarray
    units: list[str]
    part_of: tuple[str, np.ndarray] | None = None


def rows_of_test_r(store: SliceStore, preparation: Prepare) -> np.ndarray:
    """Positions of test-R in the store: slices of the test patients, evenly spread, `prepare.max_test_slices` each."""
    test = store.indices("test", labelled=True)
    return test[evenly_per_patient([store.records[k].patient for k in test], preparation.max_test_slices)]


def build_test_sets(store: SliceStore, preparation: Prepare, inputs: Inputs) -> dict[str, ImageSet]:
    """test-R, and test-G with the labels of the factory and of the annotator where it could be asked."""
    test = rows_of_test_r(store, preparation)
    patients = [store.records[k].patient for k in test]
    tests = {"test_r": ImageSet(store.image_tensor(test), store.labels[test], patients)}
    generated = SliceStore.open(inputs.folders["synthesize"] / "test_g")
    names = [record.case for record in generated.records]
    images = generated.image_tensor(generated.indices())
    tests["test_g[factory]"] = ImageSet(images, np.asarray(generated.labels), names)
    painted = inputs.folders["synthesize"] / "test_g" / "annotator_labels.npy"
    if painted.is_file():
        labels, accepted = np.load(painted), np.load(painted.with_name("annotator_accepted.npy"))
        chosen = np.flatnonzero(accepted)
        tests["test_g[annotator]"] = ImageSet(
            images[torch.from_numpy(chosen)], labels[chosen], [names[k] for k in chosen], ("test_g[factory]", chosen)
        )
    return tests


def evaluate_checkpoints(
    where: Path, seed: int, tests: Mapping[str, ImageSet], classes: Sequence[str], inputs: Inputs
) -> tuple[dict[str, Run], Evaluation]:
    """Evaluate every checkpoint of a training once on each set of images.

    Args:
        where: folder of the training.
        seed: of the training.
        tests: by name, a set that is part of another after that.
        classes: names of the K classes.
        inputs: of the stage.

    Returns:
        The training as seen on each test set, and the picked checkpoint's evaluation on test-R.
    """
    files, picked = checkpoint_files(where)
    matrices: dict[str, list[np.ndarray]] = {name: [] for name in tests}
    for position, file in enumerate(files):
        network = load_segmenter(file, inputs.device)
        found: dict[str, Evaluation] = {}
        for name, test in tests.items():
            if test.part_of:
                other, rows = test.part_of
                matrices[name].append(confusion(found[other].pred[rows], test.labels, len(classes)))
                continue
            slices = [f"{unit}-{number:03d}" for number, unit in enumerate(test.units)]
            label = torch.tensor(test.labels)
            found[name] = evaluate_segmenter(
                network, test.images, label, slices, classes, device=inputs.device, precision=inputs.precision
            )
            matrices[name].append(found[name].matrices)
        if position == picked:
            test_r = found["test_r"]
    return {name: Run(seed, np.stack(each), picked) for name, each in matrices.items()}, test_r


def _floors(
    store: SliceStore, training: TrainSegmenters, tests: Mapping[str, ImageSet], inputs: Inputs
) -> dict[str, Any]:
    """Floors learn from the labelled pool's slices, on test-R and test-G alike."""
    real = store.indices("labelled", labelled=True)
    images, labels = store.image_tensor(real)[:, 0].numpy(), store.labels[real]
    seed_step(inputs.seed, "untrained")
    untrained = build_segmenter(
        **network_arguments(training.segmenter, store.table.num_classes, training.networks[0])
    ).eval()
    return {
        name: floors(images, labels, test.images[:, 0].numpy(), test.labels, store.table.num_classes, untrained)
        for name, test in tests.items()
        if name != "test_g[factory]"
    }
