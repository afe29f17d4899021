"""Quality control of a run: it learns from annotated pairs, judges all others, and is tested on test-G."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.plausibility import Plausibility
from medseg_gan.evaluation.random_conv import RandomConvExtractor
from medseg_gan.evaluation.realism import Realism, looked_at
from medseg_gan.machine.atomic import atomic_path, read_json, write_json
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.machine.seeding import numpy_rng
from medseg_gan.systems.datasetgan.factory import LabelFactory, Pairs
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.quality.model import ERRORS, FEATURES, QualityModel, Seen, errors_of, look
from medseg_gan.systems.datasetgan.quality.scores import class_counts, quality_scores, read_quality
from medseg_gan.systems.datasetgan.samples.images import Rendered
from medseg_gan.training.log import say

EXAMPLES = "quality_examples.npz"

Refit = Callable[[Path, Rendered, Tensor], Interpreter]
"""Trains an interpreter as the run's own was, on other annotated images: folder, images, labels."""


@dataclass(frozen=True)
class Examples:
    """Annotated pairs whose labels come from an interpreter that did not learn from them.

    Attributes:
        seen: what can be seen of them.
        errors: their true errors, by `ERRORS`.
        folds: `(n,)` 0 and 1 for the halves that learn and calibrate, or the numbers of the folds.
        kind: `held_out`, `cross_validated` or `none`.
    """

    seen: Seen
    errors: dict[str, np.ndarray]
    folds: np.ndarray
    kind: str


@dataclass(frozen=True)
class QualityControl:
    """A run's quality model with what it looks at.

    Attributes:
        model: predicts.
        realism: distance to the slices of the GAN's pool.
        plausible: what annotated label maps look like.
    """

    model: QualityModel
    realism: Realism
    plausible: Plausibility

    def judge(self, pairs: Pairs) -> dict[str, np.ndarray]:
        """Columns for pairs, see `QualityModel.judge`."""
        return self.model.judge(look(pairs, self.realism, self.plausible))


def learn_quality(
    folder: Path,
    factory: LabelFactory,
    store: SliceStore,
    annotation: Path,
    *,
    folds: int,
    seed: int,
    annotated: Callable[[], Rendered],
    refit: Refit,
) -> QualityControl:
    """Learn what wrong labels look like, and leave `quality.json` and the examples; kept when called again.

    Held-out slices that an automatic annotator labelled are cut in halves, one to learn from, one to calibrate on.
    Where a person painted there are none: the interpreter is trained anew without each fold of the painted slices, and
    judged on that. With neither, the ensemble's own expectation stands alone, without a bound.

    Args:
        folder: of the stage.
        factory: makes the pairs.
        store: real slices; those of the pool `gan` are what images are compared with.
        annotation: folder of the stage `annotate`.
        folds: parts of a person's slices; 0 for no training anew.
        seed: of halves and folds.
        annotated: the annotated images with their features; called only where the interpreter is trained anew.
        refit: trains an interpreter.
    """
    if (folder / "quality.json").is_file():
        return load_quality(folder, store, annotation)
    taught = SliceStore.open(annotation / "annotated")
    realism, plausible = _measures(store, taught)
    who = read_json(annotation / "annotator.json")
    if (annotation / "held_out" / "cases.json").is_file():
        examples = _held_out(factory, annotation / "held_out", realism, plausible, seed)
        model = QualityModel.split(examples.seen, examples.errors, examples.folds == 0)
    elif who["kind"] == "person" and folds and len(taught) >= folds:
        examples = _out_of_fold(folder / "folds", factory, taught, realism, folds, seed, annotated(), refit)
        model = QualityModel.cross_fitted(examples.seen, examples.errors, examples.folds)
    else:
        none = np.zeros(0)
        examples = Examples(Seen(np.zeros((0, len(FEATURES))), []), dict.fromkeys(ERRORS, none), none, "none")
        model = QualityModel.cross_fitted(examples.seen, examples.errors, examples.folds)
    with atomic_path(folder / EXAMPLES) as temporary:
        np.savez(temporary, values=examples.seen.values, folds=examples.folds, **examples.errors)  # type: ignore[arg-type]
    learned = int((examples.folds == 0).sum()) if examples.kind == "held_out" else len(examples.folds)
    judge = who.get("judge", who)
    record = {"version": 1, "annotator": {name: judge[name] for name in ("kind", "who")}, "kind": examples.kind}
    record |= {"learned_from": learned, "sentence": model.bounds["wrong"].sentence(), "model": model.plain()}
    write_json(folder / "quality.json", record)
    shutil.rmtree(folder / "folds", ignore_errors=True)
    say(f"synthesize: quality learned from {learned} annotated pairs; {record['sentence']}")
    return QualityControl(model, realism, plausible)


def load_quality(folder: Path, store: SliceStore, annotation: Path) -> QualityControl:
    """What `learn_quality` left; arguments as there.

    Raises:
        MedsegError: `quality.json` is missing or was edited.
    """
    model = QualityModel.from_plain(plain_model(folder))
    realism, plausible = _measures(store, SliceStore.open(annotation / "annotated"))
    return QualityControl(model, realism, plausible)


def plain_model(folder: Path) -> dict[str, Any]:
    """The quality model of `quality.json` as plain values, known to be one.

    Raises:
        MedsegError: the file is missing, cannot be read, or holds no such model.
    """
    path = folder / "quality.json"
    try:
        record = read_json(path)
    except MedsegError as error:
        raise MedsegError(f"{path} is missing or was cut off; use --rerun synthesize") from error
    model = record.get("model") if isinstance(record, dict) else None
    try:
        QualityModel.from_plain(model)  # type: ignore[arg-type]
    except MedsegError as error:
        raise MedsegError(f"{path}: {error}") from error
    return dict(model)  # type: ignore[arg-type]


def _measures(store: SliceStore, taught: SliceStore) -> tuple[Realism, Plausibility]:
    """What pairs are compared with: slices of the GAN's pool, and label maps that the annotator made."""
    real = store.indices("gan")
    real = real[looked_at(len(real))]  # not all of them in memory
    realism = Realism(store.image_tensor(real), [store.records[k].patient for k in real], RandomConvExtractor())
    return realism, Plausibility.learned(np.asarray(taught.labels), taught.table)


def measure_quality(folder: Path) -> None:
    """Count the classes of all pairs and, where an annotator labelled test-G, score the predictions on it."""
    record = read_json(folder / "quality.json")
    columns = {name: read_quality(folder / name / "quality.csv") for name in ("train", "test_g")}
    record["classes"] = {name: class_counts(found) for name, found in columns.items()}
    if (folder / "train" / "dropped.csv").is_file():
        record["classes"]["dropped"] = class_counts(read_quality(folder / "train" / "dropped.csv"))
    record["measured"] = _measured(folder / "test_g", columns["test_g"])
    write_json(folder / "quality.json", record)


def true_errors(test_g: Path) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """Positions in test-G that the annotator accepted, and the factory's errors there; None without an annotator."""
    if not (test_g / "annotator_labels.npy").is_file():
        return None
    accepted = np.flatnonzero(np.load(test_g / "annotator_accepted.npy"))
    truth = np.load(test_g / "annotator_labels.npy")[accepted]
    return accepted, errors_of(np.asarray(SliceStore.open(test_g).labels)[accepted], truth)


def _measured(test_g: Path, columns: dict[str, np.ndarray]) -> dict[str, Any] | None:
    found = true_errors(test_g)
    if found is None or not len(found[0]):
        return None
    accepted, errors = found
    own = {name: column[accepted] for name, column in columns.items()}
    scored = quality_scores(own, errors, np.load(test_g / "scores.npy")[accepted])
    return {**scored, "rejected": len(columns["case"]) - len(accepted)}


def _held_out(factory: LabelFactory, folder: Path, realism: Realism, plausible: Plausibility, seed: int) -> Examples:
    """The held-out slices, labelled by the factory as any other, in random halves."""
    indices = load_checkpoint(folder / "latents.pt")["indices"].numpy()
    pairs = factory.label(indices)
    truth = np.asarray(SliceStore.open(folder).labels)
    halves = np.zeros(len(indices), np.int64)
    halves[numpy_rng(seed, "quality halves").permutation(len(indices))[len(indices) // 2 :]] = 1
    return Examples(look(pairs, realism, plausible), errors_of(pairs.labels.numpy(), truth), halves, "held_out")


def _out_of_fold(
    folder: Path,
    factory: LabelFactory,
    taught: SliceStore,
    realism: Realism,
    folds: int,
    seed: int,
    annotated: Rendered,
    refit: Refit,
) -> Examples:
    """The painted slices, each labelled by an interpreter that the other folds taught."""
    truth = np.asarray(taught.labels)
    numbers = numpy_rng(seed, "quality folds").permutation(len(truth)) % folds
    values = np.zeros((len(truth), len(FEATURES)))
    errors = {name: np.zeros(len(truth)) for name in ERRORS}
    objections: list[list[str]] = [[] for _ in truth]
    for fold in range(folds):
        say(f"synthesize: quality, interpreter without fold {fold + 1} of {folds}")
        own, others = np.flatnonzero(numbers == fold), np.flatnonzero(numbers != fold)
        labels = torch.from_numpy(truth[others]).to(factory.source.device)
        interpreter = refit(folder / f"{fold:02d}", annotated.take(torch.from_numpy(others)), labels)
        without = LabelFactory(factory.source.G, interpreter, factory.source.sampling, factory.source.device)
        pairs = without.label(annotated.indices[torch.from_numpy(own)].cpu().numpy())
        seen = look(pairs, realism, Plausibility.learned(truth[others], taught.table))
        values[own] = seen.values
        for name, found in errors_of(pairs.labels.numpy(), truth[own]).items():
            errors[name][own] = found
        for row, found_objections in zip(own, seen.objections, strict=True):
            objections[row] = found_objections
    return Examples(Seen(values, objections), errors, numbers, "cross_validated")
