"""What augmentation (ADA) does with few slices: with and without it, on 100 and on 500 phantom slices.

    python benchmarks/small_data.py --out runs/small-data             # 40 thousand images in each of four arms
    python benchmarks/small_data.py --out runs/small-data --kimg 100

Arms of one size see the same images from the same seed. Every arm is measured against slices of other patients, which
nothing is trained on. `small-data.json` has all curves, `curves.png` p, r_t and the distance, `samples.png` generated
images, and each arm's folder its training; a training cut off goes on when the command is given again. p can reach 0.5
within a fifth of a run; an arm in which it stayed below 0.05 shows nothing about ADA and says so.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from phantom_training import DEMO, phantom_slices
from torch import Tensor

from medseg_gan.evaluation.frechet import (
    FrechetDistance,
    extractor_for,
    feature_statistics,
    half_floor,
    metric_name,
)
from medseg_gan.machine.atomic import atomic_path, write_json
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.machine.device import processor_name
from medseg_gan.machine.seeding import torch_generator
from medseg_gan.training.engine import read_stats
from medseg_gan.training.grid import image_grid
from medseg_gan.training.handlers import save_samples
from medseg_gan.training.pool import run_jobs
from medseg_gan.training.stylegan2 import GENERATOR, load_generator, train_stylegan2
from medseg_gan.training.stylegan2_config import StyleGAN2Training
from stylegan2_ada_pytorch import Generator

PER_PATIENT = 10
SIZES = (100, 500)
HELD_OUT = 300  # slices, of patients numbered after all others
GENERATED = 300
POINTS = 10  # of the Fréchet curve
ENGAGED = 0.05  # p below which augmentation did nothing
SAMPLES = 32


def held_out() -> Tensor:
    """`(300, 1, 64, 64)` slices of patients that no arm has."""
    return phantom_slices(1 + max(SIZES) // PER_PATIENT, HELD_OUT // PER_PATIENT, PER_PATIENT)[0]


def run_arm(folder: Path, slices: int, ada: str, kimg: float, seed: int) -> dict[str, Any]:
    """Train one arm, and measure its checkpoints against the held-out slices.

    Returns:
        Curves of p, r_t and the distance as points (thousand images, value), and largest p.
    """
    images, groups = phantom_slices(1, slices // PER_PATIENT, PER_PATIENT)
    settings = {**DEMO, "ada": ada, "ada_kimg": 0.4 * kimg, "total_kimg": kimg}  # p 0.5 after a fifth of the run
    section = StyleGAN2Training(**settings, checkpoint_kimg=kimg / POINTS, sample_kimg=kimg)
    train_stylegan2(section, images, groups, folder, seed=seed, log_kimg=kimg / 100, keep=2 * POINTS)
    rows = read_stats(folder)
    curves = {name: [(row["images"] / 1000, row[name]) for row in rows if name in row] for name in ("p", "r_t")}
    distances = measure(folder)
    largest = max(p for _, p in curves["p"])
    return {"slices": slices, "ada": ada, **curves, "distance": distances, "largest_p": largest, "title": ""}


def measure(folder: Path) -> list[tuple[float, float]]:
    """Distance of the averaged generator of every checkpoint from the held-out slices."""
    G, real, extractor = load_generator(folder / GENERATOR), held_out(), extractor_for(None)
    statistics = feature_statistics(real, extractor)
    points = []
    for path in sorted(folder.glob("checkpoint-*.pt")):
        G.load_state_dict(load_checkpoint(path)["G_ema"])
        metric = FrechetDistance(extractor, statistics)
        for images in generate(G, GENERATED).split(50):
            metric.update(images)
        points.append((int(path.stem.removeprefix("checkpoint-")) / 1000, metric.compute()))
    return points


@torch.no_grad()
def generate(G: Generator, number: int) -> Tensor:
    """`(number, 1, 64, 64)` images of fixed latents."""
    z = torch.randn(number, G.z_dim, generator=torch_generator(0, "small data"))
    return torch.cat([G(part, noise_mode="const") for part in z.split(50)])


def name_of(slices: int, ada: str) -> str:
    return f"{slices}-{'ada' if ada == 'ada' else 'none'}"


def title_of(arm: dict[str, Any]) -> str:
    """Name of an arm, and whether it shows anything about ADA."""
    title = f"{arm['slices']} slices, {'ADA' if arm['ada'] == 'ada' else 'no augmentation'}"
    return title + (" (ADA never engaged)" if arm["ada"] == "ada" and arm["largest_p"] < ENGAGED else "")


def draw_curves(path: Path, arms: list[dict[str, Any]], floor: float, metric: str) -> None:
    """p, r_t and the distance of all arms, side by side."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, name, label in zip(panels, ("p", "r_t", "distance"), ("p", "r_t", metric), strict=True):
        for arm in arms:
            colour, style = ("C0", "C1")[arm["slices"] != SIZES[0]], "-" if arm["ada"] == "ada" else "--"
            axes.plot(*zip(*arm[name], strict=True), color=colour, linestyle=style, label=arm["title"])
        axes.set_xlabel("thousand images")
        axes.set_ylabel(label)
    panels[2].axhline(floor, color="0.6", linewidth=1, label="held-out, half against half")
    panels[2].set_yscale("log")
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_samples(path: Path, sheets: dict[str, Tensor]) -> None:
    """A sheet of images for each name."""
    figure = Figure(figsize=(6 * ((len(sheets) + 1) // 2), 7), layout="constrained")
    panels = np.ravel(figure.subplots(2, (len(sheets) + 1) // 2))
    for axes in panels:
        axes.set_axis_off()
    for axes, (title, images) in zip(panels, sheets.items(), strict=False):
        axes.imshow(image_grid(images, 8), cmap="gray")
        axes.set_title(title, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def main() -> None:
    """Train four arms, two at a time, and write and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--kimg", type=float, default=40.0, help="thousand images of each arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="arms at once, of one thread each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    keys = [(slices, ada) for slices in SIZES for ada in ("off", "ada")]
    jobs = {
        name_of(*key): {
            "folder": options.out / name_of(*key),
            "slices": key[0],
            "ada": key[1],
            "kimg": options.kimg,
            "seed": options.seed,
        }
        for key in keys
    }
    results = run_jobs(run_arm, jobs, options.workers, "small data")
    arms = [results[name] for name in jobs]
    for arm in arms:
        arm["title"] = title_of(arm)
    extractor, real = extractor_for(None), held_out()
    metric, floor = metric_name(extractor), half_floor(real, extractor)
    about = {"processor": processor_name(), "kimg": options.kimg, "seed": options.seed, "metric": metric}
    about |= {"held_out": len(real), "generated": GENERATED, "floor_half_against_half": floor}
    write_json(options.out / "small-data.json", {**about, "arms": arms})
    draw_curves(options.out / "curves.png", arms, floor, metric)
    sheets = {
        arm["title"]: generate(load_generator(job["folder"] / GENERATOR), SAMPLES)
        for arm, job in zip(arms, jobs.values(), strict=True)
    }
    draw_samples(options.out / "samples.png", {**sheets, "held-out slices": real[:: len(real) // SAMPLES][:SAMPLES]})
    for arm, sheet in zip(arms, sheets.values(), strict=True):
        save_samples(options.out / f"samples-{name_of(arm['slices'], arm['ada'])}.png", sheet)

    print(f"{processor_name()}, torch {torch.__version__}; {options.kimg:g} kimg each, seed {options.seed}")
    print(f"{metric} of {GENERATED} images from {len(real)} slices of other patients; half against half {floor:.3f}")
    print(f"{'arm':45s} {'best':>8s} {'at kimg':>8s} {'last':>8s} {'largest p':>10s} {'last r_t':>9s}")
    for arm in arms:
        when, best = min(arm["distance"], key=lambda point: point[1])
        last, r_t = arm["distance"][-1][1], arm["r_t"][-1][1]
        print(f"{arm['title']:45s} {best:8.3f} {when:8.1f} {last:8.3f} {arm['largest_p']:10.2f} {r_t:9.2f}")
    print(f"{options.out / 'small-data.json'}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
