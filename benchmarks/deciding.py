"""The deciding rows on many unseen phantom patients: does any way of using the factory beat what needs no factory?

    python benchmarks/deciding.py RUN                 # a finished run of segthor_datasetgan on the phantom
    python benchmarks/deciding.py RUN --patients 100

A run tests on a dozen patients, whose variety hides differences of a few hundredths. Here the same trained segmenters
meet patients of a phantom with another seed; nothing is trained or picked anew.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from medseg_gan import run_recipe
from medseg_gan.data.slices import SliceStore
from medseg_gan.evaluation.floors import floors
from medseg_gan.evaluation.protocol import Run, clean_protocol, compare, evenly_per_patient
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.device import processor_name
from medseg_gan.networks.segmenters import build_segmenter, predict_labels
from medseg_gan.systems.datasetgan.rows import COMPARISONS
from medseg_gan.systems.datasetgan.segmenter_jobs import network_arguments
from medseg_gan.systems.plan import open_run
from medseg_gan.training.segmenter import load_segmenter


def unseen_patients(settings: object, count: int, work: Path) -> SliceStore:
    """Slices of `count` patients from a phantom that no run has seen, prepared as the run's own."""
    prepare = settings.prepare  # type: ignore[attr-defined]
    sets = [
        f"run.seed={settings.run.seed + 10_000}",  # type: ignore[attr-defined]
        f"prepare.size={prepare.size}",
        f"prepare.phantom.matrix={prepare.phantom.matrix}",
        "prepare.phantom.gan_patients=1",
        "prepare.phantom.annotator_patients=1",
        f"prepare.phantom.labelled_patients={count + 2}",
        f"prepare.phantom.test_patients={count}",
    ]
    return SliceStore.open(
        run_recipe("segthor_datasetgan", out=work, profile="demo", sets=sets, until="prepare", say=lambda _: None)
        / "01-prepare"
    )


def main() -> None:
    """Score every row of a run on unseen patients and print rows and comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    settings = open_run(options.run).recipe.settings
    trained = options.run / "06-train_segmenters"
    entries, training = read_json(trained / "rows.json"), settings.train_segmenters
    with tempfile.TemporaryDirectory() as scratch:
        store = unseen_patients(settings, options.patients, Path(scratch) / "unseen")
        test = store.indices("test", labelled=True)
        test = test[evenly_per_patient([store.records[k].patient for k in test], settings.prepare.max_test_slices)]
        images, labels = store.image_tensor(test), np.asarray(store.labels[test])
    patients, classes = [store.records[k].patient for k in test], store.table.num_classes

    own = SliceStore.open(options.run / "01-prepare")
    real = own.indices("labelled", labelled=True)
    untrained = build_segmenter(**network_arguments(training.segmenter, classes, training.networks[0])).eval()
    bare = floors(
        own.image_tensor(real)[:, 0].numpy(), own.labels[real], images[:, 0].numpy(), labels, classes, untrained
    )
    annotator = read_json(options.run / "03-annotate" / "annotator.json")
    seen = f"{len(test)} slices of {len(set(patients))} unseen patients"
    print(f"{processor_name()}; {seen}; {training.segmenter.steps} steps")
    cost = f"{annotator['real_slices']} real slices of {annotator['real_patients']} patients"
    print(f"annotated by {annotator['who']}, which cost {cost}")
    print("floors: " + ", ".join(f"{name} {found['miou']:.3f}" for name, found in bare.items()))
    for network in training.networks:
        runs: dict[str, list[Run]] = {}
        titles = {entry["row"]: entry["title"] for entry in entries}
        for entry in entries:
            segmenter = load_segmenter(trained / network / f"{entry['row']}-{entry['seed']}")
            matrices = confusion(predict_labels(segmenter, images).numpy(), labels, classes)
            runs.setdefault(entry["row"], []).append(Run(entry["seed"], matrices[None], 0))
        print(f"\n{network}: mIoU (sd over segmenter seeds), 95 % over patients, {' / '.join(store.table.classes[1:])}")
        for row, found in runs.items():
            clean = clean_protocol(found, patients, options.resamples, 0)
            of_classes = np.mean([scores(run.clean.sum(axis=0))["iou_per_class"] for run in found], axis=0)[1:]
            low, high = clean["interval"]
            shown = " / ".join(f"{iou:.2f}" for iou in of_classes)
            print(
                f"{row:16s} {clean['miou']:.3f} ({clean['sd']:.3f})  {low:.3f} to {high:.3f}  {shown}   {titles[row]}"
            )
        for a, b in COMPARISONS:
            if a in runs and b in runs:
                found = compare(runs[a], runs[b], patients, resamples=options.resamples)
                low, high = found["interval"]
                told = f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f}) {found['ordering']}"
                print(f"{a} minus {b}: {told}, {found['pairs']} pairs")


if __name__ == "__main__":
    main()
