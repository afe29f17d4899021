"""How hard the thorax phantom is, on real-only rows: all real slices against ten of each of three patients.

    python benchmarks/phantom_difficulty.py              # the recipe's demo phantom, about six minutes on 2 quiet cores
    python benchmarks/phantom_difficulty.py --steps 1000 --seed 1

No generated image is involved. Every row trains the recipe's demo segmenter at equal steps; three draws of patients.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from medseg_gan import run_recipe
from medseg_gan.data.phantom.patient import EDITION
from medseg_gan.data.slices import SliceStore
from medseg_gan.evaluation.floors import floors
from medseg_gan.evaluation.protocol import evenly_per_patient
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.device import processor_name
from medseg_gan.networks.segmenters import build_segmenter, predict_labels
from medseg_gan.systems.datasetgan.draws import draw_of
from medseg_gan.systems.plan import plan_recipe
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.segmenter import load_segmenter, train_many

DRAWS = 3


def main() -> None:
    """Prepare the phantom without its GAN patients, train the rows and print what they reach on test-R."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps of every row")
    parser.add_argument("--seed", type=int, default=0, help="of phantom, pools and segmenters")
    parser.add_argument(
        "--set", action="append", default=[], metavar="prepare.X=VALUE", help="as of `medseg-gan recipe`"
    )
    parser.add_argument("--work", type=Path, help="folder to keep (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, options.work or Path(scratch))


def measure(options: argparse.Namespace, work: Path) -> None:
    """Train and score the rows in `work`."""
    sets = [f"run.seed={options.seed}", "prepare.phantom.gan_patients=1", "prepare.phantom.annotator_patients=1"]
    sets += options.set
    settings = plan_recipe("segthor_datasetgan", None, work / "run", "demo", sets).recipe.settings
    run = run_recipe("segthor_datasetgan", out=work / "run", profile="demo", sets=sets, until="prepare")
    store = SliceStore.open(run / "01-prepare")
    rows, how = settings.train_segmenters, settings.train_segmenters.segmenter
    draws = [draw_of(rows, store, options.seed, draw) for draw in range(DRAWS)]
    chosen = {f"few-{k}": draw.few for k, draw in enumerate(draws)} | {"spread-0": draws[0].spread}
    chosen = {"all-0": draws[0].real, "all-1": draws[1].real} | chosen
    jobs = {
        name: {
            "folder": work / "segmenters" / f"{name}-{options.steps}",
            "network": {"name": how.name, "num_classes": store.table.num_classes, "width": how.width},
            "sources": [TrainingSource(StoredSlices(store.folder, indices), balanced=True)],
            "seed": int(name[-1]),
            "steps": options.steps,
            "batch_size": how.batch_size,
            "lr": how.lr,
            "optimizer": how.optimizer,
            "loss": how.loss,
            "augment": "slice" if how.augment else "none",
            "val": StoredSlices(store.folder, draws[0].validation),
        }
        for name, indices in chosen.items()
    }
    train_many(jobs, workers=2)

    test = store.indices("test", labelled=True)
    test = test[evenly_per_patient([store.records[k].patient for k in test], settings.prepare.max_test_slices)]
    images, labels, real = store.image_tensor(test), np.asarray(store.labels[test]), store.indices("labelled", True)
    untrained = build_segmenter(how.name, store.table.num_classes, width=how.width).eval()
    bare = floors(
        store.image_tensor(real)[:, 0].numpy(),
        store.labels[real],
        images[:, 0].numpy(),
        labels,
        store.table.num_classes,
        untrained,
    )
    patients = len({store.records[k].patient for k in draws[0].real.tolist()})
    print(f"thorax phantom edition {EDITION}, seed {options.seed}; {processor_name()}; {options.steps} steps")
    print(f"test-R: {len(test)} slices of {len({store.records[k].patient for k in test.tolist()})} patients")
    print("floors: " + ", ".join(f"{name} {found['miou']:.3f}" for name, found in bare.items()))
    print("row      slices  mIoU   " + " / ".join(store.table.classes[1:]))
    miou: dict[str, list[float]] = {}
    for name, job in jobs.items():
        pred = predict_labels(load_segmenter(job["folder"]), images).numpy()
        found = scores(confusion(pred, labels, store.table.num_classes).sum(axis=0))
        miou.setdefault(name[:-2], []).append(found["miou"])
        shown = " / ".join(f"{iou:.2f}" for iou in found["iou_per_class"][1:])
        print(f"{name:9s} {len(chosen[name]):5d}  {found['miou']:.3f}  {shown}")
    gap = np.mean(miou["all"]) - np.mean(miou["few"])
    print(f"all real (of {patients} patients) minus {rows.few_patients} patients x {rows.few_slices}: {gap:.3f}")


if __name__ == "__main__":
    main()
