"""bf16 against fp32 in training: short runs of the demo's GAN, same seed, images and draws, side by side.

    python benchmarks/precision.py                    # 8 thousand images each, some minutes on two cores
    python benchmarks/precision.py --kimg 36 --seeds 1
    python benchmarks/precision.py --kimg 3 --constant-lr --seeds 0 1 2 3 4 5 6 7 8 9   # how often is a generator lost?
    python benchmarks/precision.py --kimg 3 --constant-lr --seeds 0 --nudges 4          # is it the seed, or chance?

The runs part after a few steps, as two seeds would: what has to agree is where losses and distances go, not each value.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from phantom_training import DEMO, phantom_slices

from medseg_gan.machine.device import processor_name
from medseg_gan.machine.seeding import torch_generator
from medseg_gan.training.engine import read_stats
from medseg_gan.training.pool import run_jobs
from medseg_gan.training.stylegan2 import train_stylegan2
from medseg_gan.training.stylegan2_config import StyleGAN2Training

PRECISIONS = ("fp32", "bf16")
DISTANCE = "frechet_distance[random-conv-v1]"
TERMS = ("loss_G", "loss_D", "sign_real", "r1", DISTANCE)
ROWS = 8
NUDGE = 1e-4
LOST = 10.0
"""Distance that no sound run of this size has after its first thousand images."""


def train(
    folder: Path, precision: str, kimg: float, seed: int, patients: int, constant_lr: bool, nudge: int
) -> list[dict[str, Any]]:
    """One run; the rows of its statistics."""
    settings = DEMO | ({"lr_decay_from": 1.0} if constant_lr else {})
    every = {"metric_kimg": kimg / ROWS, "checkpoint_kimg": kimg, "sample_kimg": kimg}
    section = StyleGAN2Training(total_kimg=kimg, metric_images=300, **every, **settings)
    images, groups = phantom_slices(1, patients, per_patient=10)
    if nudge:  # far below a grey level, yet enough for another course
        noise = torch.randn(images.shape, generator=torch_generator(seed, "nudge", nudge))
        images = (images + NUDGE * noise).clamp(-1, 1)
    train_stylegan2(section, images, groups, folder, seed=seed, precision=precision, log_kimg=kimg / ROWS)
    return read_stats(folder)


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A line for each number of images, the terms of both precisions beside each other."""
    merged: dict[int, dict[tuple[str, str], float]] = {}
    for precision, rows in runs.items():
        for row in rows:
            cell = merged.setdefault(int(row["images"]), {})
            cell.update({(term, precision): row[term] for term in TERMS if term in row})
    lines = ["images  " + "".join(f"{term.split('[')[0]:>20s}" for term in TERMS)]
    lines.append(" " * 8 + "".join(f"{'fp32':>12s}{'bf16':>8s}" for _ in TERMS))
    for images, cell in sorted(merged.items()):
        pairs = ([cell.get((term, precision)) for precision in PRECISIONS] for term in TERMS)
        texts = (["-" if value is None else f"{value:.3f}" for value in pair] for pair in pairs)
        lines.append(f"{images:<8d}" + "".join(f"{a:>12s}{b:>8s}" for a, b in texts))
    return lines


def ends(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """A line for each seed with the last values of both precisions, and how many generators were lost."""
    lines = ["seed  " + "".join(f"{name.split('[')[0] + ' fp32 / bf16':>34s}" for name in ("loss_D", DISTANCE))]
    lost = dict.fromkeys(PRECISIONS, 0)
    for seed, both in runs.items():
        texts = []
        for term in ("loss_D", DISTANCE):
            last = {one: [row[term] for row in both[one] if term in row][-1] for one in PRECISIONS}
            texts.append(" / ".join(f"{last[one]:.3f}" for one in PRECISIONS))
        for one in PRECISIONS:
            lost[one] += last[one] > LOST
        lines.append(f"{seed:<6s}" + "".join(f"{text:>34s}" for text in texts))
    counts = ", ".join(f"{one} {number} of {len(runs)}" for one, number in lost.items())
    return [*lines, f"generators lost (distance above {LOST:g} at the end): {counts}"]


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kimg", type=float, default=8.0, help="thousand images of each run")
    parser.add_argument("--patients", type=int, default=20, help="of ten slices each")
    parser.add_argument("--constant-lr", action="store_true", help="as the first part of a longer run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--nudges", type=int, default=0, help="further runs of each seed, with images a trifle off")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, of one thread each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor_name()}, torch {torch.__version__}; {options.kimg:g} kimg, {10 * options.patients} slices")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        names = {f"{seed}.{nudge}": (seed, nudge) for seed in options.seeds for nudge in range(options.nudges + 1)}
        jobs = {
            f"{name} {one}": {
                "folder": Path(scratch) / f"{name}-{one}",
                "precision": one,
                "kimg": options.kimg,
                "seed": seed,
                "patients": options.patients,
                "constant_lr": options.constant_lr,
                "nudge": nudge,
            }
            for name, (seed, nudge) in names.items()
            for one in PRECISIONS
        }
        rows = run_jobs(train, jobs, options.workers, "precision")
    runs = {name: {one: rows[f"{name} {one}"] for one in PRECISIONS} for name in names}
    if len(runs) == 1:
        print("\n".join(table(*runs.values())))
    else:
        print("\n".join(ends(runs)))
    speeds = {
        one: [row["img_per_s"] for both in runs.values() for row in both[one] if "img_per_s" in row]
        for one in PRECISIONS
    }
    print("images/s " + ", ".join(f"{one} {sorted(speed)[len(speed) // 2]:.0f}" for one, speed in speeds.items()))
    print(f"{DISTANCE} of 300 generated images from the training slices; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
