"""How far the thorax phantom is from real CT: a segmenter trained on phantom lungs alone, scored on real slices.

    python benchmarks/phantom_transfer.py --real DIR      # a folder of real chest CT; about two minutes on 2 cores

The truth on real slices is the HU rule (`medseg_gan.data.lungs`), so the score is agreement with it. The same rule is
also compared with the phantom's sharp lungs, which it has never seen.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from medseg_gan import run_recipe
from medseg_gan.data.lungs import derive_lungs
from medseg_gan.data.phantom.patient import EDITION, LUNG_IDS, draw_patient
from medseg_gan.data.phantom.thorax import patient_volumes
from medseg_gan.data.slices import SliceStore
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.device import processor_name
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.training.labelled import StoredSlices, TrainingSource
from medseg_gan.training.segmenter import load_segmenter, train_segmenter

LUNGS = "prepare.labels=lungs"


def main() -> None:
    """Train on the phantom, score on the real slices, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder of real chest CT")
    parser.add_argument("--steps", type=int, default=500, help="optimiser steps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"thorax phantom edition {EDITION}, seed {options.seed}; {processor_name()}; {options.steps} steps")
    rule_on_phantom(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        transfer(options, Path(scratch))


def rule_on_phantom(seed: int, patients: int = 20, slices: int = 12) -> None:
    """Dice of the HU rule's lungs against the sharp truth, slice by slice."""
    dice: dict[str, list[float]] = {"right": [], "left": []}
    untold = 0
    for number in range(1, patients + 1):
        hu, truth, affine = patient_volumes(draw_patient(seed, number), 256, slices)
        found = derive_lungs(hu, tuple(np.abs(np.diag(affine)[:3])))
        untold += int((~found.told_apart).sum())
        for name, truth_id, rule_id in (("right", LUNG_IDS[0], 2), ("left", LUNG_IDS[1], 1)):
            for k in np.flatnonzero(found.told_apart):
                a, b = truth[..., k] == truth_id, found.left_right[..., k] == rule_id
                if a.sum() > 200:
                    dice[name].append(2 * (a & b).sum() / (a.sum() + b.sum()))
    for name, values in dice.items():
        print(
            f"HU rule on the phantom, {name} lung: "
            f"median Dice {np.median(values):.3f}, 5 % {np.quantile(values, 0.05):.3f}"
        )
    print(f"not told apart: {untold} of {patients * slices} slices")


def transfer(options: argparse.Namespace, work: Path) -> None:
    """Train on phantom lungs at 64 x 64 and score on every real slice whose lungs the rule tells apart."""
    sets = [LUNGS, f"run.seed={options.seed}", "run.threads=1"]  # two threads collapse on a busy machine
    few = ["prepare.phantom.gan_patients=1", "prepare.phantom.annotator_patients=1"]
    quiet = {"profile": "demo", "until": "prepare", "say": lambda line: None}
    phantom = run_recipe("segthor_datasetgan", out=work / "phantom", sets=sets + few, **quiet) / "01-prepare"
    real = run_recipe("segthor_datasetgan", options.real, work / "real", sets=sets, **quiet) / "01-prepare"
    train_segmenter(
        work / "segmenter",
        {"name": "unet", "num_classes": 3, "width": 16},
        [TrainingSource(StoredSlices(phantom, SliceStore.open(phantom).indices("labelled", True)), balanced=True)],
        seed=options.seed,
        steps=options.steps,
        description="training on phantom lungs",
    )
    store = SliceStore.open(real)
    scored = store.indices(labelled=True)
    pred = predict_labels(load_segmenter(work / "segmenter"), store.image_tensor(scored)).numpy()
    dice = scores(confusion(pred, np.asarray(store.labels[scored]), 3).sum(axis=0))["dice_per_class"]
    patients = len({store.records[k].patient for k in scored})
    print(f"on {len(scored)} real slices of {patients} patients: Dice left {dice[1]:.3f}, right {dice[2]:.3f}")


if __name__ == "__main__":
    main()
