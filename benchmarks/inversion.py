"""Nobody paints: real masks inverted into the generator against as many painted generated slices, on a phantom run.

    python benchmarks/inversion.py runs/segthor_datasetgan-demo --out runs/inversion
    python benchmarks/inversion.py runs/segthor_datasetgan-demo --out runs/inversion --seeds 3 --segmenter-steps 1200

Three arms, each with as many seeds as asked for; a seed draws other slices and trains other networks:

    inverted   an interpreter that learnt from real slices of few patients, projected into W+, with their own masks
    painted    an interpreter that learnt from as many generated slices, labelled by the run's stand-in annotator
    real       no factory: segmenters trained on the very slices that `inverted` had

The interpreters have the run's settings. Each is judged on the run's held-out generated slices by the stand-in, which
the real slices of no arm have taught, and by a segmenter trained on pairs that it labelled, on the test patients. A
finished cell is a line of `cells.jsonl`; given again, the command goes on with the others. `inversion.json` has all.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceStore
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.machine.device import processor_name
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.annotators import collect_accepted
from medseg_gan.systems.datasetgan.annotation.automatic import stored_annotator
from medseg_gan.systems.datasetgan.annotation.inversion import (
    Errors,
    invert,
    keep_examples,
    mean_image,
    reconstruction_errors,
    teaching_examples,
)
from medseg_gan.systems.datasetgan.comparison import build_test_sets
from medseg_gan.systems.datasetgan.draws import Draw, draw_real_slices
from medseg_gan.systems.datasetgan.factory import LabelFactory, write_pairs
from medseg_gan.systems.datasetgan.interpreter.agreement import agreement
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.interpreter.settings import TrainInterpreter
from medseg_gan.systems.datasetgan.recipe import Annotate, Inversion, Prepare, TrainSegmenters
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Rendered, reserved
from medseg_gan.systems.datasetgan.segmenter_jobs import training_job
from medseg_gan.systems.datasetgan.stages import fit_interpreter, image_source
from medseg_gan.systems.plan import open_run
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.pool import run_jobs
from medseg_gan.training.segmenter import load_segmenter, train_segmenter

ARMS = ("inverted", "painted", "real")
CELLS = "cells.jsonl"


def run_cell(run: Path, out: Path, arm: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """One arm with one seed: slices, interpreter, pairs, segmenter and their scores; a line of `cells.jsonl`."""
    inputs, folder = open_run(run).inputs("cpu"), out / f"{arm}-{seed}"
    store = SliceStore.open(inputs.folders["prepare"])
    draw = draw_slices(store, seed, options["images"], options["patients"], inputs)
    cell: dict[str, Any] = {"arm": arm, "seed": seed}
    if arm == "real":
        sources = StoredSlices(store.folder, draw.few)
        cell |= {"real_slices": len(draw.few)}
    else:
        source = image_source(
            inputs,
            inputs.section(TrainInterpreter).features,
            inputs.section(Annotate),
        )
        make = inverted_examples if arm == "inverted" else painted_examples
        examples, labels, facts = make(folder, source, store, draw, seed, options, inputs)
        interpreter = teach(folder / "interpreter", examples, labels, store.table.num_classes, seed, inputs)
        cell |= facts | judge(interpreter, source, store, inputs)
        if options["segmenter_steps"]:
            factory = LabelFactory(source.G, interpreter, source.sampling)
            about: dict[str, Any] = {"window": store.window, "table": store.table, "spacing": store.typical_spacing()}
            write_pairs(folder / "pairs", factory, reserved("train", options["pairs"]), **about)
            pairs = SliceStore.open(folder / "pairs")
            sources = StoredSlices(pairs.folder, pairs.indices())
    if options["segmenter_steps"]:
        cell |= segment(folder / "segmenter", sources, store, draw, seed, options["segmenter_steps"], arm, inputs)
    line = json.dumps(cell) + "\n"
    with open(out / CELLS, "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return cell


def draw_slices(store: SliceStore, seed: int, images: int, patients: int, inputs: Inputs) -> Draw:
    """The run's own draw of few labelled patients for a segmenter seed, and its validation patients."""
    config = inputs.section(TrainSegmenters)
    return draw_real_slices(
        store,
        seed=inputs.seed,
        draw=seed,
        num_real=images,
        few_patients=patients,
        few_slices=-(-images // patients),
        val_slices=config.val_slices,
    )


Examples = tuple[Rendered, Tensor, dict[str, Any]]


def inverted_examples(
    folder: Path, source: ImageSource, store: SliceStore, draw: Draw, seed: int, options: dict[str, Any], inputs: Inputs
) -> Examples:
    """Real slices projected into W+, with their masks."""
    real, how = store.image_tensor(draw.few), Inversion(**options["inversion"])
    generator, before = inputs.folders["train_gan"] / "G_ema.pt", time.process_time()
    whole = not (folder / "projected").exists()  # parts that an earlier call left cost nothing now
    found = invert(folder / "projected", source, generator, real, draw.few, how.steps, workers=1)
    seconds = (time.process_time() - before) / len(real)
    errors = reconstruction_errors(found.images.cpu(), real, mean_image(source))
    per_slice = keep_examples(folder / "annotated", store, source, found, errors, how)
    annotated = SliceStore.open(folder / "annotated")
    used = torch.tensor([number for number, item in enumerate(per_slice) if item["weight"]])
    labels = torch.from_numpy(np.array(annotated.labels))
    image_from = how.image_from if labeller_of(inputs) in ("image", "average") else "reconstruction"  # as in a run
    examples, labels = teaching_examples(folder / "annotated", found.take(used), labels, store, image_from)
    facts = error_facts(errors, store) | {
        "inverted": len(real),
        "patients": len({store.records[k].patient for k in draw.few.tolist()}),
        "dropped": len(real) - len(used),
        "examples": len(labels),
        "cpu_seconds_a_slice": round(seconds, 2) if whole else None,
        **mask_fit(found, real, store, draw.few, inputs),
        "slices": per_slice,
    }
    return examples, labels, facts


def painted_examples(
    folder: Path, source: ImageSource, store: SliceStore, draw: Draw, seed: int, options: dict[str, Any], inputs: Inputs
) -> Examples:
    """Generated slices that the run's stand-in labelled; each seed has slices of its own."""
    wanted, tries = options["images"], inputs.section(Annotate).max_tries
    annotator = stored_annotator(inputs, store)
    assert annotator is not None, "the phantom has a stand-in"
    candidates = reserved("annotate", wanted * tries, start=seed * wanted * tries)
    found = collect_accepted(lambda part: source.render(part).images, annotator, candidates, wanted)
    facts = {"painted": len(found.indices), "sampled": found.sampled, "examples": len(found.indices)}
    return source.render(found.indices), torch.from_numpy(found.labels), facts


def error_facts(errors: Errors, store: SliceStore) -> dict[str, Any]:
    """Quartiles of the reconstruction errors."""
    hu = errors.mean_difference * (store.window[1] - store.window[0]) / 2
    at = (0, 0.25, 0.5, 0.75, 1)
    return {
        "error_quartiles": np.quantile(errors.relative, at).round(3).tolist(),
        "mean_difference_hu_quartiles": np.quantile(hu, at).round(1).tolist(),
    }


def mask_fit(found: Rendered, real: Tensor, store: SliceStore, few: np.ndarray, inputs: Inputs) -> dict[str, Any]:
    """How well the real masks fit the reconstructions, by the stand-in; and the real slices, for comparison."""
    network = load_segmenter(inputs.folders["annotate"] / "stand_in")
    truth, classes = np.array(store.labels[few]), store.table.num_classes
    fit = {}
    for name, images in (("mask_fit_reconstruction", found.images), ("mask_fit_real", real)):
        labels = predict_labels(network, images, precision=inputs.precision).numpy()
        fit[name] = scores(confusion(labels, truth, classes).sum(axis=0))["miou"]
    return fit


def teach(folder: Path, examples: Rendered, labels: Tensor, num_classes: int, seed: int, inputs: Inputs) -> Interpreter:
    """An interpreter with the run's settings."""
    config = inputs.section(TrainInterpreter)
    config = config.model_copy(update={"labeller": labeller_of(inputs), "workers": 1})
    others = {name: where for name, where in inputs.folders.items() if name != "train_interpreter"}
    own = replace(inputs, folders=others, seed=mix_seed(inputs.seed, "inversion benchmark", seed))
    return fit_interpreter(folder, examples, labels, config, own, num_classes)


def labeller_of(inputs: Inputs) -> str:
    """The run's labeller; the mean of both ensembles where the run chose by its slices, for others may choose else."""
    labeller = inputs.section(TrainInterpreter).labeller
    return "average" if labeller == "auto" else labeller


def judge(interpreter: Interpreter, source: ImageSource, store: SliceStore, inputs: Inputs) -> dict[str, Any]:
    """Agreement with the stand-in on the run's held-out generated slices."""
    where = inputs.folders["annotate"] / "held_out"
    indices = load_checkpoint(where / "latents.pt")["indices"].numpy()
    truth = np.asarray(SliceStore.open(where).labels)
    found = agreement(interpreter, source, indices, truth, store.table.num_classes)
    return {
        "interpreter_miou": found["agreement_miou"],
        "interpreter_iou_per_class": [round(value, 4) for value in found["per_class_iou"]],
        "labellers": found["labellers"],
    }


def segment(
    folder: Path, slices: StoredSlices, store: SliceStore, draw: Draw, seed: int, steps: int, arm: str, inputs: Inputs
) -> dict[str, Any]:
    """Train a segmenter, pick its checkpoint on the validation patients, and score it on the test patients."""
    config = inputs.section(TrainSegmenters)
    settings = config.segmenter.model_copy(update={"steps": steps})
    job = training_job(
        settings,
        folder,
        [TrainingSource(slices, balanced=arm == "real")],
        num_classes=store.table.num_classes,
        seed=mix_seed(inputs.seed, "segmenter", seed),
        inputs=inputs,
        val=StoredSlices(store.folder, draw.validation),
        checkpoints=config.checkpoints,
    )
    train_segmenter(**job)
    test = build_test_sets(store, inputs.section(Prepare), inputs)["test_r"]
    pred = predict_labels(load_segmenter(folder), test.images, precision=inputs.precision).numpy()
    found = scores(confusion(pred, test.labels, store.table.num_classes).sum(axis=0))
    return {
        "test_r": found["miou"],
        "test_r_iou_per_class": [round(float(value), 4) for value in found["iou_per_class"]],
        "test_slices": len(test.labels),
    }


def finished_cells(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Cells of earlier calls; a line cut off by an interruption does not count."""
    cells = {}
    if (out / CELLS).is_file():
        for line in (out / CELLS).read_text(encoding="utf-8").splitlines():
            try:
                cell = json.loads(line)
            except json.JSONDecodeError:
                continue
            cells[cell["arm"], cell["seed"]] = cell
    return cells


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and the differences of arms seed by seed."""
    result: dict[str, Any] = {}
    for name in ("interpreter_miou", "test_r"):
        by = {(cell["arm"], cell["seed"]): cell[name] for cell in cells if name in cell}
        for arm in ARMS:
            values = [value for (other, _), value in sorted(by.items()) if other == arm]
            if values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                result.setdefault(arm, {})[name] = {"mean": float(np.mean(values)), "sd": spread, "seeds": len(values)}
        for other in ("painted", "real"):
            seeds = sorted(seed for arm, seed in by if arm == "inverted" and (other, seed) in by)
            if seeds:
                gaps = [by["inverted", seed] - by[other, seed] for seed in seeds]
                result.setdefault(f"inverted minus {other}", {})[name] = gaps
    return result


def say_results(cells: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """The table, and what the inversion itself did."""
    print(f"{'arm':20s} {'interpreter mIoU':>22s} {'test-R mIoU':>22s}")
    for arm in ARMS:
        figures = [found.get(arm, {}).get(name) for name in ("interpreter_miou", "test_r")]
        print(f"{arm:20s} " + " ".join(f"{_figure(one):>22s}" for one in figures))
    for other in ("painted", "real"):
        for name, gaps in found.get(f"inverted minus {other}", {}).items():
            print(f"inverted minus {other}, {name}, seed by seed: {', '.join(f'{gap:+.3f}' for gap in gaps)}")
    for cell in cells:
        if cell["arm"] == "inverted":
            print(
                f"seed {cell['seed']}: {cell['inverted']} slices of {cell['patients']} patients, error (1: the mean "
                f"picture) {cell['error_quartiles']}, HU off {cell['mean_difference_hu_quartiles']}, dropped "
                f"{cell['dropped']}; masks fit reconstructions {cell['mask_fit_reconstruction']:.3f}, real slices "
                f"{cell['mask_fit_real']:.3f}; {cell['cpu_seconds_a_slice']} CPU s a slice"
            )


def _figure(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    return f"{one['mean']:.3f}" + (f" ± {one['sd']:.3f}" if one["sd"] is not None else "") + f" ({one['seeds']})"


def main() -> None:
    """Run the cells that lack, two at a time, and write and print what came of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished phantom run of segthor_datasetgan")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--images", type=int, default=30, help="slices of each arm")
    parser.add_argument("--patients", type=int, default=3, help="whose real slices they are")
    parser.add_argument("--pairs", type=int, default=1000, help="generated pairs that train a segmenter")
    parser.add_argument("--segmenter-steps", type=int, default=1200, help="0: interpreters only")
    defaults = Inversion()
    parser.add_argument("--steps", type=int, default=defaults.steps, help="of each projection")
    parser.add_argument("--max-error", type=float, default=defaults.max_error)
    parser.add_argument("--max-repeats", type=int, default=defaults.max_repeats)
    parser.add_argument("--image-from", choices=("real", "reconstruction"), default=defaults.image_from)
    parser.add_argument("--workers", type=int, default=2, help="cells at once, of one thread each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    inversion = {name: getattr(options, name) for name in ("steps", "max_error", "max_repeats")}
    about = {
        "images": options.images,
        "patients": options.patients,
        "pairs": options.pairs,
        "segmenter_steps": options.segmenter_steps,
        "inversion": {**inversion, "image_from": options.image_from},
    }
    path = options.out / "settings.json"
    if path.is_file() and read_json(path) != about:
        raise SystemExit(f"{options.out} holds cells of other settings; choose another --out")
    write_json(path, about)
    done = finished_cells(options.out)
    keys = [(arm, seed) for seed in range(options.seeds) for arm in options.arms]
    jobs = {
        f"{arm} {seed}": {"run": options.run, "out": options.out, "arm": arm, "seed": seed, "options": about}
        for arm, seed in keys
        if (arm, seed) not in done
    }
    run_jobs(run_cell, jobs, options.workers, "inversion", total=len(keys))
    cells = [cell for _, cell in sorted(finished_cells(options.out).items())]
    found = summary(cells)
    machine = {"processor": processor_name(), "torch": torch.__version__}
    write_json(options.out / "inversion.json", {**machine, "settings": about, "summary": found, "cells": cells})
    print(f"{machine['processor']}, torch {torch.__version__}; {about}")
    say_results(cells, found)
    print(options.out / "inversion.json")


if __name__ == "__main__":
    main()
