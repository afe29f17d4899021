"""The annotation page's own work for each slice, and how good its pre-labels are; no person is timed.

    .venv/bin/python benchmarks/annotation_page.py runs/segthor_datasetgan-demo [--painted 5]

RUN is a finished demo run on the phantom. Thirty of its generated slices are exported as for a person; the stand-in
annotator plays the person: the first slices get its masks through the page's own saving path, an interpreter is trained
from them, and the pre-labels of the others are compared with the stand-in's masks.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from medseg_gan.annotate.page import Page
from medseg_gan.annotate.strokes import label_to_layer
from medseg_gan.annotate.times import dice_by_class
from medseg_gan.annotate.work import AnnotationWork
from medseg_gan.data.slices import SliceStore, to_unit
from medseg_gan.errors import WaitingForPerson
from medseg_gan.labels import LabelTable
from medseg_gan.machine.device import processor_name
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.systems.datasetgan.annotation.annotators import annotate_by_person
from medseg_gan.systems.datasetgan.annotation.page import LUNG_RULE, build_guide
from medseg_gan.systems.datasetgan.recipe import DatasetGanRecipe
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Sampling, reserved
from medseg_gan.systems.plan import open_run
from medseg_gan.training.segmenter import load_segmenter
from medseg_gan.training.stylegan2 import load_generator

COUNT = 30


def export_for_a_person(run: Path, into: Path) -> Path:
    """A copy of a run that waits for a person, without what comes later."""
    shutil.copytree(
        run, into, ignore=shutil.ignore_patterns("0[3-9]-*", "report", "phantom", "checkpoint-*", "samples")
    )
    plan = open_run(into)
    settings = plan.recipe.settings
    assert isinstance(settings, DatasetGanRecipe)
    seed = mix_seed(settings.run.seed, "latents")
    sampling = Sampling(seed, settings.annotate.truncation_psi, precision=plan.precision())
    source = ImageSource(FeatureExtractor(load_generator(into / "02-train_gan" / "G_ema.pt")), sampling, "cpu")
    store = SliceStore.open(into / "01-prepare")
    with suppress(WaitingForPerson):
        annotate_by_person(
            into / "03-annotate" / "person",
            lambda indices: source.render(indices).images,
            reserved("annotate", COUNT),
            COUNT,
            window=store.window,
            spacing=store.typical_spacing(),
            table=store.table,
            next_command="",
        )
    return into


def masks_of_the_stand_in(run: Path, work: AnnotationWork) -> np.ndarray:
    """`(N, H, W)`: what the run's own annotator says to the exported slices."""
    network = load_segmenter(run / "03-annotate" / "stand_in", "cpu")
    images = np.stack([to_unit(work.open(name).image, work.window) for name in work.names])
    return predict_labels(network, torch.from_numpy(images)[:, None].float(), device="cpu", precision="fp32").numpy()


def mean_dice(found: np.ndarray | None, wanted: np.ndarray, table: LabelTable) -> dict[str, float]:
    """Dice by class of one slice; a slice in which nothing was found scores 0."""
    return dice_by_class(np.zeros_like(wanted) if found is None else found, wanted, table.classes)


def show(title: str, scores: list[dict[str, float]], table: LabelTable) -> None:
    """Print the mean over slices for each class."""
    words = []
    for name in table.classes[1:]:
        values = [score[name] for score in scores if name in score]
        words.append(f"{name} {np.mean(values):.3f}" if values else f"{name} -")
    total = np.mean([np.mean(list(score.values())) for score in scores if score])
    print(f"{title}: mean Dice {total:.3f} over {len(scores)} slices ({', '.join(words)})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--painted", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        plan = open_run(export_for_a_person(chosen.run, Path(temporary) / "run"))
        guide = build_guide(plan, "cpu")
        work, table = guide.work, guide.work.table
        wanted = masks_of_the_stand_in(chosen.run, work)
        low, high = work.window
        view = ((low + high) / 2, high - low)
        page = Page(guide, "")
        page.build("benchmark")
        seconds: dict[str, list[float]] = {"open": [], "pre-label by the HU rule": [], "save": []}
        for k, name in enumerate(work.names[: chosen.painted]):
            start = time.perf_counter()
            update = page.choose(None, None, name, *view)
            seconds["open"].append(time.perf_counter() - start)
            start = time.perf_counter()
            page.pre_label(update[page.session], update[page.editor], LUNG_RULE, *view)
            seconds["pre-label by the HU rule"].append(time.perf_counter() - start)
            painted = update[page.editor] | {"layers": [label_to_layer(wanted[k], table)]}
            start = time.perf_counter()
            page.save(update[page.session], painted)
            seconds["save"].append(time.perf_counter() - start)
        print(f"{processor_name()}, {torch.get_num_threads()} threads, {wanted.shape[1]}x{wanted.shape[2]} slices")
        for what, values in seconds.items():
            print(f"{what}: median {1000 * statistics.median(values):.0f} ms")
        start, cpu = time.perf_counter(), time.process_time()
        guide.start()
        guide.wait()
        took = f"{time.perf_counter() - start:.1f} s, {time.process_time() - cpu:.1f} s of CPU"
        print(f"{guide.said} ({took})")
        rest = range(chosen.painted, COUNT)
        kind = guide.kinds[0]
        show(kind, [mean_dice(guide.pre_label(work.names[k], kind), wanted[k], table) for k in rest], table)
        rule, lungs = guide.rules[LUNG_RULE], [table.id_of("left_lung"), table.id_of("right_lung")]
        of_lungs = np.where(np.isin(wanted, lungs), wanted, 0)
        found = [mean_dice(rule(work.open(work.names[k]).image), of_lungs[k], table) for k in rest]
        show("HU rule, against the lungs alone", found, table)


if __name__ == "__main__":
    main()
