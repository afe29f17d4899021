"""Quality control on finished phantom runs: do predictions find the wrong pairs, do bounds hold, does filtering pay?

    python benchmarks/quality.py RUN [RUN ...] --out runs/quality               # predictions and bounds: a minute a run
    python benchmarks/quality.py RUN --out runs/quality --psi 1                 # and pairs drawn otherwise
    python benchmarks/quality.py RUN --out runs/quality --downstream --seeds 3  # and segmenters on filtered sets: hours

RUN is a run of `segthor_datasetgan` with an automatic annotator, finished up to `synthesize`; nothing in it changes.
Predictions learn from one half of the held-out pairs, bounds from the other; they are scored on test-G, which the
annotator labelled and nothing learned from. Downstream, a pool of new pairs is judged and cut into sets of equal size;
segmenters of the run's settings train on each at equal steps and are scored on test-R. Finished trainings lie in
`--out`: the same command goes on where it was interrupted. `quality.json` there has all figures.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.conformal import coverage
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.device import processor_name
from medseg_gan.machine.seeding import mix_seed, numpy_rng
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.automatic import stored_annotator
from medseg_gan.systems.datasetgan.comparison import build_test_sets, draws_of
from medseg_gan.systems.datasetgan.factory import LabelFactory, write_pairs
from medseg_gan.systems.datasetgan.interpreter.model import load_interpreter
from medseg_gan.systems.datasetgan.interpreter.vote import keep_certain
from medseg_gan.systems.datasetgan.quality.model import CLASSES, ERRORS, QualityModel, Seen, errors_of, look
from medseg_gan.systems.datasetgan.quality.scores import quality_scores, rank_correlation, read_quality
from medseg_gan.systems.datasetgan.quality.stage import EXAMPLES, QualityControl, learn_quality, true_errors
from medseg_gan.systems.datasetgan.recipe import Prepare, TrainSegmenters
from medseg_gan.systems.datasetgan.samples.images import Sampling, reserved
from medseg_gan.systems.datasetgan.segmenter_jobs import training_job
from medseg_gan.systems.plan import open_run
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.segmenter import load_segmenter, train_many
from medseg_gan.training.stylegan2 import load_generator

HALVES = 200
"""Random cuts of the held-out pairs into halves, for the scatter of coverage over calibration sets."""


def main() -> None:
    """Measure each run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, help="folder for judged pairs, trainings and figures")
    parser.add_argument("--psi", type=float, help="also judge pairs drawn with another truncation than the annotated")
    parser.add_argument("--downstream", action="store_true", help="train segmenters on filtered sets")
    parser.add_argument("--pool", type=int, default=2000, help="pairs among which the sets are chosen")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of every set")
    parser.add_argument("--portions", type=float, nargs="+", default=[0.1, 0.5], help="shares of the pool left out")
    parser.add_argument("--steps", type=int, help="optimiser steps; by default the run's")
    parser.add_argument("--seeds", type=int, default=3, help="segmenter seeds of every set")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    options = parser.parse_args()
    print(processor_name())
    try:
        found = {str(run): measure_run(run, options.out / f"{k:02d}", options) for k, run in enumerate(options.runs)}
    except MedsegError as error:
        raise SystemExit(f"error: {error}") from error
    write_json(options.out / "quality.json", {"processor": processor_name(), "runs": found})


def measure_run(run: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one run."""
    inputs = open_run(run).inputs("cpu")
    where = inputs.folders["synthesize"] / "test_g"
    truth = true_errors(where)
    held_out = inputs.folders["annotate"] / "held_out"
    if truth is None or not held_out.is_dir():
        raise MedsegError(f"{run}: no annotator labelled its test-G; wanted a run with an automatic annotator")
    store = SliceStore.open(inputs.folders["prepare"])
    factory = factory_of(inputs)
    control = learn_quality(
        out,
        factory,
        store,
        inputs.folders["annotate"],
        folds=0,
        seed=inputs.seed,
        annotated=lambda: None,  # type: ignore[arg-type, return-value]
        refit=lambda *_: None,  # type: ignore[arg-type, return-value]
    )
    accepted, errors = truth
    pairs = factory.label(np.load(where / "indices.npy")[accepted])
    seen = look(pairs, control.realism, control.plausible)
    columns = control.model.judge(seen)
    found: dict[str, Any] = {"test_g": quality_scores(columns, errors, pairs.scores.numpy())}
    found["test_g"]["rejected"] = len(np.load(where / "indices.npy")) - len(accepted)
    print(f"\n{run}: {len(accepted)} pairs of test-G labelled by the annotator")
    say_scores(found["test_g"])
    found["predictors"] = predictors(seen, columns, errors)
    found["chosen"] = after_filtering(columns, errors)
    found["halves"] = over_halves(out / EXAMPLES, seen, errors)
    if options.psi is not None:
        found["shifted"] = shifted(options.psi, factory, control, inputs, store)
    if options.downstream:
        found["downstream"] = downstream(out, factory, control, inputs, store, options)
    return found


def factory_of(inputs: Inputs, **changed: Any) -> LabelFactory:
    """The run's own factory, or one that samples otherwise."""
    sampling = Sampling(**read_json(inputs.folders["synthesize"] / "test_g" / "sampling.json")["sampling"])
    interpreter = load_interpreter(inputs.folders["train_interpreter"])
    return LabelFactory(
        load_generator(inputs.folders["train_gan"] / "G_ema.pt"), interpreter, replace(sampling, **changed)
    )


def say_scores(found: Mapping[str, Any]) -> None:
    """Print the scores of predictions on labelled pairs."""
    for name in ERRORS:
        one = found[name]
        low, high = one["coverage"]["interval"]
        print(
            f"  {name}: mean {one['mean']:.4f}, predicted {one['mean_predicted']:.4f}; rank correlation "
            f"{text(one['rank_correlation'])} (uncertainty alone {text(one['rank_correlation_of_uncertainty'])}, "
            f"a constant has none); absolute error {one['absolute_error']:.4f} (constant "
            f"{one['absolute_error_of_constant']:.4f}); bound held {one['coverage']['share']:.3f} "
            f"[{low:.3f}, {high:.3f}], mean bound {one['coverage']['mean_bound']:.4f}"
        )
    print(
        f"  classes right {found['classes_right']:.2f} (most frequent alone {found['most_frequent_class']:.2f}); "
        f"true {'/'.join(CLASSES)} by predicted: {found['confusion']}"
    )


def text(value: float | None) -> str:
    """A rank correlation, which constants do not have."""
    return "none" if value is None else f"{value:.2f}"


def predictors(seen: Seen, columns: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Rank correlation of single features beside the prediction."""
    singles = ("doubt", "disagreement", "top_disagreement", "unlike_real", "objections", "pieces", "foreground")
    found = {}
    for name in ERRORS:
        tried = {"model": columns[f"predicted_{name}"], "ensemble's expectation": seen.expected(name)}
        tried |= {feature: seen.column(feature) for feature in singles}
        found[name] = {key: rank_correlation(values, errors[name]) for key, values in tried.items()}
        print(f"  {name}, rank correlation of: " + ", ".join(f"{k} {text(v)}" for k, v in found[name].items()))
    return found


def after_filtering(columns: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Errors and coverage among the pairs kept and left out: the bound promises nothing for either."""
    kept = keep_certain(columns["predicted_wrong"], 0.1)
    parts = {"kept 90 %": kept, "left out": np.setdiff1d(np.arange(len(columns["predicted_wrong"])), kept)}
    found = {}
    for name, rows in parts.items():
        wrong, bounds = errors["wrong"][rows], columns["bound_wrong"][rows]
        if len(rows):
            found[name] = {"mean_wrong": float(wrong.mean()), **coverage(bounds, wrong)}
            print(f"  {name}: mean wrong {wrong.mean():.4f}, bound held {found[name]['share']:.3f} of {len(rows)}")
    return found


def over_halves(examples: Path, seen: Seen, errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Coverage on test-G over random cuts of the held-out pairs: the scatter that one calibration set hides."""
    with np.load(examples) as stored:
        known = Seen(stored["values"], [[] for _ in stored["values"]])
        true = {name: stored[name] for name in ERRORS}
    count, shares, ranks = len(known.values), [], []
    for cut in range(HALVES):
        learns = np.zeros(count, bool)
        learns[numpy_rng(cut, "benchmark halves").permutation(count)[: count // 2]] = True
        columns = QualityModel.split(known, true, learns).judge(seen)
        shares.append(coverage(columns["bound_wrong"], errors["wrong"])["share"])
        ranks.append(rank_correlation(columns["predicted_wrong"], errors["wrong"]) or 0.0)
    found = {"mean": float(np.mean(shares)), "quantiles": np.quantile(shares, [0.05, 0.5, 0.95]).tolist()}
    found["rank_correlation"] = np.quantile(ranks, [0.05, 0.5, 0.95]).tolist()
    print(
        f"  over {HALVES} cuts into halves: bound held {found['mean']:.3f} on average, 5 to 95 %: "
        f"{found['quantiles'][0]:.2f} to {found['quantiles'][2]:.2f}; rank correlation "
        f"{found['rank_correlation'][0]:.2f} to {found['rank_correlation'][2]:.2f}"
    )
    return found


def shifted(psi: float, factory: LabelFactory, control: QualityControl, inputs: Inputs, store: SliceStore) -> Any:
    """The same on pairs of another truncation, which are not exchangeable with those calibrated on."""
    other = LabelFactory(
        factory.source.G, factory.interpreter, replace(factory.source.sampling, psi=psi), factory.source.device
    )
    pairs = other.label(reserved("test_g", 100))
    annotator = stored_annotator(inputs, store)
    assert annotator is not None, "checked before"
    answer = annotator(pairs.images)
    rows = np.flatnonzero(answer.accepted)
    if not len(rows):
        print(f"  psi {psi:g}: the annotator accepted no pair")
        return None
    errors = errors_of(pairs.labels.numpy()[rows], answer.labels[rows])
    columns = {name: column[rows] for name, column in control.judge(pairs).items()}
    print(f"  pairs with psi {psi:g}, calibrated on psi {factory.source.sampling.psi:g}: {len(rows)} of 100 accepted")
    found = quality_scores(columns, errors, pairs.scores.numpy()[rows])
    say_scores(found)
    return found


def downstream(
    out: Path,
    factory: LabelFactory,
    control: QualityControl,
    inputs: Inputs,
    store: SliceStore,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """mIoU on test-R of segmenters on equally many pairs, chosen in different ways."""
    count = len(reserved("train", options.pool))
    pool = write_pairs(
        out / "pool",
        factory,
        reserved("train", count),
        window=store.window,
        table=store.table,
        spacing=store.typical_spacing(),
        judge=control.judge,
    )
    sets = chosen_sets(pool.folder, options)
    config = inputs.section(TrainSegmenters)
    settings = config.segmenter
    settings = settings.model_copy(update={"steps": options.steps or settings.steps})
    config = config.model_copy(update={"deciding_seeds": options.seeds, "other_seeds": 1})
    draws = draws_of(config, store, inputs)
    jobs = {
        f"{name} {seed}": training_job(
            settings,
            out / f"steps-{settings.steps}" / name.replace(" ", "-").replace("%", "percent") / str(seed),
            [TrainingSource(StoredSlices(pool.folder, rows))],
            num_classes=store.table.num_classes,
            seed=mix_seed(inputs.seed, "segmenter", seed),
            inputs=inputs,
            val=StoredSlices(store.folder, draws[seed].validation),
            checkpoints=config.checkpoints,
        )
        for name, rows in sets.items()
        for seed in range(options.seeds)
    }
    train_many(jobs, options.workers, "segmenters")
    test = build_test_sets(store, inputs.section(Prepare), inputs)["test_r"]
    judged = read_quality(pool.folder / "quality.csv")
    found: dict[str, Any] = {}
    for name, rows in sets.items():
        mious = []
        for seed in range(options.seeds):
            folder = jobs[f"{name} {seed}"]["folder"]
            pred = predict_labels(load_segmenter(folder), test.images, precision=inputs.precision).numpy()
            matrix = confusion(pred, test.labels, store.table.num_classes).sum(axis=0)
            mious.append(float(scores(matrix)["miou"]))
        found[name] = {"miou": mious, "mean_predicted_wrong": float(judged["predicted_wrong"][rows].mean())}
        base = np.array(found["unfiltered"]["miou"])
        differences = np.array(mious) - base
        print(
            f"  {name}: test-R mIoU {np.mean(mious):.3f} ± {np.std(mious):.3f} over {options.seeds} seeds, "
            f"{differences.mean():+.3f} ± {differences.std():.3f} against unfiltered; "
            f"{len(rows)} pairs, predicted wrong {found[name]['mean_predicted_wrong']:.4f}"
        )
    return found


def chosen_sets(folder: Path, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Equally many pairs of the pool: the first, others at random, and after leaving out a portion by each ranking.

    What a ranking leaves is more than a set holds, so the set is drawn from it at random: a set of the best alone would
    also be one of another portion.
    """
    judged, uncertainty = read_quality(folder / "quality.csv"), np.load(folder / "scores.npy")
    rankings = {
        "uncertainty": uncertainty,
        "quality": judged["predicted_wrong"],
        "foreground quality": judged["predicted_wrong_foreground"],
        "quality reversed": -judged["predicted_wrong"],
    }
    rng = numpy_rng(0, "benchmark sets")
    size = options.pairs
    most = int(options.pool * max(options.portions))
    if options.pool - most < size:
        raise MedsegError(
            f"--pool {options.pool} without {max(options.portions):g} leaves {options.pool - most} pairs, "
            f"--pairs wants {size}; raise --pool"
        )
    sets = {"unfiltered": np.arange(size), "random": np.sort(rng.choice(options.pool, size, replace=False))}
    for portion in options.portions:
        for name, ranks in rankings.items():
            kept = keep_certain(ranks, portion)
            sets[f"{name} -{100 * portion:g}%"] = np.sort(rng.choice(kept, size, replace=False))
    return sets


if __name__ == "__main__":
    main()
