"""Labellers side by side on a finished run's GAN: agreement with its annotator, and segmenters trained on their labels.

    python benchmarks/labellers.py RUN                      # 10, 30 and 100 annotated images, 3 draws; hours on 2 cores
    python benchmarks/labellers.py RUN --counts 10 --draws 1 --agreement-only

RUN is a run of `segthor_datasetgan` with an automatic annotator, whose stages up to `annotate` are finished; nothing
in it changes. Each draw has its own annotated images, of which smaller counts take the first. All labellers of a cell
learn from the same images, and their segmenters from the same generated ones. Finished cells lie in `--out`: the same
command goes on where it was interrupted.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.floors import most_frequent_per_pixel
from medseg_gan.evaluation.protocol import evenly_per_patient
from medseg_gan.evaluation.segmentation import confusion, scores
from medseg_gan.machine.atomic import atomic_path, read_json, write_json
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.machine.device import autocast, processor_name, resolve_device, set_threads
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.networks.segmenters import predict_labels
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.annotators import collect_accepted
from medseg_gan.systems.datasetgan.annotation.automatic import stored_annotator
from medseg_gan.systems.datasetgan.interpreter.agreement import agreement
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter
from medseg_gan.systems.datasetgan.interpreter.settings import TrainInterpreter
from medseg_gan.systems.datasetgan.interpreter.training import train_interpreter
from medseg_gan.systems.datasetgan.recipe import Annotate, Prepare, TrainSegmenters
from medseg_gan.systems.datasetgan.samples.images import Rendered, reserved
from medseg_gan.systems.datasetgan.segmenter_jobs import training_job
from medseg_gan.systems.datasetgan.stages import image_source
from medseg_gan.systems.plan import open_run
from medseg_gan.training.labelled import LabelledSlices, TrainingSource
from medseg_gan.training.segmenter import load_segmenter, train_many

TRAININGS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "average": (
        {"labeller": "average", "loss": "whole_image"},
        {"features": "whole-image", "image": "image", "average": "average"},
    ),
    "joint": ({"labeller": "joint", "loss": "whole_image"}, {"joint": "joint"}),
    "pixels": ({"labeller": "features", "loss": "pixels"}, {"features": "pixels"}),
    "pixels-shared": (
        {"labeller": "features", "loss": "pixels", "shared_batches": True},
        {"features": "pixels shared"},
    ),
    "pixels-balanced": (
        {"labeller": "features", "loss": "pixels", "class_balanced": True},
        {"features": "pixels balanced"},
    ),
}
"""What is trained: its settings, and the name here of each labeller that its members make."""

DEFAULT = ("average", "joint", "pixels")

BATCH = 8


@dataclass(frozen=True)
class Bench:
    """A finished run and what is measured on it."""

    inputs: Inputs
    out: Path
    options: argparse.Namespace

    @cached_property
    def store(self) -> SliceStore:
        """Real slices."""
        return SliceStore.open(self.inputs.folders["prepare"])

    @cached_property
    def source(self) -> Any:
        """Generated images by index."""
        features = self.inputs.section(TrainInterpreter).features
        return image_source(self.inputs, features, self.inputs.section(Annotate))

    @cached_property
    def annotator(self) -> Any:
        """The run's own."""
        annotator = stored_annotator(self.inputs, self.store)
        if annotator is None:
            raise MedsegError(f"{self.inputs.run}: a person painted; this wants an automatic annotator for more images")
        return annotator

    @cached_property
    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and labels of the held-out generated images."""
        where = self.inputs.folders["annotate"] / "held_out"
        indices = load_checkpoint(where / "latents.pt")["indices"].numpy()
        return indices, np.asarray(SliceStore.open(where).labels)

    @cached_property
    def test(self) -> tuple[Tensor, np.ndarray]:
        """test-R: real images of patients nobody learnt from, and their labels."""
        test = self.store.indices("test", labelled=True)
        patients = [self.store.records[k].patient for k in test]
        test = test[evenly_per_patient(patients, self.inputs.section(Prepare).max_test_slices)]
        return self.store.image_tensor(test), np.asarray(self.store.labels[test])

    @cached_property
    def pairs(self) -> Tensor:
        """Generated images `(N, 1, R, R)` that the labellers label for the segmenters."""
        numbers = reserved("train", self.options.pairs)
        return torch.cat([self.source.render(part).images.cpu() for part in _parts(numbers)])

    @property
    def num_classes(self) -> int:
        """K."""
        return self.store.table.num_classes

    def images_of(self, indices: range) -> Tensor:
        """Generated images, for the annotator."""
        return self.source.render(indices).images.cpu()

    def annotated(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and labels of all draws' annotated images; asked once and kept."""
        path, wanted = self.out / "annotated.npz", self.options.draws * max(self.options.counts)
        if path.is_file():
            with np.load(path) as kept:
                if len(kept["indices"]) >= wanted:
                    return kept["indices"], kept["labels"]
        candidates = reserved("annotate", wanted * self.inputs.section(Annotate).max_tries)
        found = collect_accepted(self.images_of, self.annotator, candidates, wanted)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, indices=found.indices, labels=found.labels)
        return found.indices, found.labels


class Cells:
    """Finished figures, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                self.rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # cut off by an interruption

    def has(self, **key: Any) -> bool:
        """Whether a figure is there."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, **row: Any) -> None:
        """Keep a figure and say it."""
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row))
        print(
            f"{row['what']:9} count {row['count']:<4} draw {row['draw']}  {row['labeller']:14} {row['miou']:.3f}",
            flush=True,
        )


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run of segthor_datasetgan")
    parser.add_argument("--out", type=Path, help="folder of finished cells (default: RUN-labellers, beside the run)")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 30, 100], help="annotated images")
    parser.add_argument("--draws", type=int, default=3, help="sets of annotated images")
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(DEFAULT), help="labellers to train")
    parser.add_argument("--agreement-only", action="store_true", help="leave out the segmenters, the expensive part")
    parser.add_argument("--segmenter-steps", type=int, default=1200, help="of every segmenter")
    parser.add_argument("--pairs", type=int, default=1000, help="generated images a segmenter learns from")
    parser.add_argument("--max-epochs", type=int, help="of the pixel classifiers (default: the run's)")
    parser.add_argument("--members", type=int, help="classifiers on features (default: the run's)")
    parser.add_argument("--steps", type=int, help="of the other labellers (default: the run's)")
    parser.add_argument("--image-steps", type=int, help="of the U-Nets on the image (default: the run's)")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    options = parser.parse_args()
    if options.workers > 1:
        set_threads(1)
    bench = open_bench(options)
    cells = Cells(bench.out / "cells.jsonl")
    measure(bench, cells)
    print(f"\n{processor_name()}")
    print_table(bench, cells.rows)


def open_bench(options: argparse.Namespace) -> Bench:
    """Find the run's stages and refuse cells of other settings."""
    plan = open_run(options.run)
    for name in ("prepare", "train_gan", "annotate"):
        plan.finished(name)
    inputs = plan.inputs(resolve_device("auto"))
    out = options.out or options.run.with_name(f"{options.run.name}-labellers")
    out.mkdir(parents=True, exist_ok=True)
    fixed = {name: getattr(options, name) for name in ("segmenter_steps", "pairs", "max_epochs", "members", "steps")}
    fixed |= {"image_steps": options.image_steps} if options.image_steps else {}
    fixed |= {"run": str(options.run.resolve()), "most": max(options.counts)}  # a draw begins at a multiple of it
    path = out / "settings.json"
    if path.is_file() and read_json(path) != fixed:
        raise MedsegError(f"{out} holds cells of other settings ({read_json(path)}); choose another --out")
    write_json(path, fixed)
    return Bench(inputs, out, options)


def measure(bench: Bench, cells: Cells) -> None:
    """Fill in every cell that is missing; the agreements of all first, they take minutes, the segmenters hours."""
    options = bench.options
    indices, labels = bench.annotated()
    grid = [(count, draw) for count in options.counts for draw in range(options.draws)]
    for count, draw in grid:
        start = draw * max(options.counts)
        mine = slice(start, start + count)
        agree(bench, cells, count, draw, indices[mine], labels[mine])
    if options.agreement_only:
        return
    for draw in range(options.draws):
        annotator_segmenter(bench, cells, draw)
    for count, draw in grid:
        start = draw * max(options.counts)
        mine = slice(start, start + count)
        segment(bench, cells, count, draw, indices[mine], labels[mine])


def trained(bench: Bench, count: int, draw: int, indices: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Each training's interpreter, trained or read."""
    section, options = bench.inputs.section(TrainInterpreter), bench.options
    rendered: Rendered = bench.source.render(indices)
    for name in options.trainings:
        settings, _ = TRAININGS[name]
        yield (
            name,
            train_interpreter(
                bench.out / f"count-{count}-draw-{draw}" / name,
                rendered,
                torch.from_numpy(labels).to(bench.inputs.device),
                section.model_copy(
                    update={
                        "members": options.members or section.members,
                        "max_epochs": options.max_epochs or section.max_epochs,
                        "steps": options.steps or section.steps,
                        "image_steps": options.image_steps or section.image_steps,
                        **settings,
                    }
                ),
                num_classes=bench.num_classes,
                seed=mix_seed(bench.inputs.seed, "interpreter", draw),
                workers=options.workers,
                precision=bench.inputs.precision,
            ),
        )


def agree(bench: Bench, cells: Cells, count: int, draw: int, indices: np.ndarray, labels: np.ndarray) -> None:
    """mIoU of each labeller against the annotator on held-out generated images, and of the floors."""
    key = {"what": "agreement", "count": count, "draw": draw}
    wanted = [name for training in bench.options.trainings for name in TRAININGS[training][1].values()]
    if all(cells.has(**key, labeller=name) for name in [*wanted, "position"]):
        return
    where, truth = bench.held_out
    position = most_frequent_per_pixel(labels, bench.num_classes)
    for name, guess in (("background", np.zeros_like(position)), ("position", position)):
        if not cells.has(**key, labeller=name):
            cells.add(**key, labeller=name, **_scores(np.broadcast_to(guess, truth.shape), truth, bench.num_classes))
    for training, interpreter in trained(bench, count, draw, indices, labels):
        found = agreement(interpreter, bench.source, where, truth, bench.num_classes)
        for labeller, name in TRAININGS[training][1].items():
            own = labeller == interpreter.labeller
            more = (
                {"disagreement": found["disagreement"], "calibration_error": found["calibration_error"]} if own else {}
            )
            if not cells.has(**key, labeller=name):
                cells.add(**key, labeller=name, miou=found["labellers"][labeller], **more)


def segment(bench: Bench, cells: Cells, count: int, draw: int, indices: np.ndarray, labels: np.ndarray) -> None:
    """test-R of a segmenter trained on what each labeller makes of the same generated images."""
    key = {"what": "test-R", "count": count, "draw": draw}
    wanted = [name for training in bench.options.trainings for name in TRAININGS[training][1].values()]
    missing = [name for name in [*wanted, "position", "annotated only"] if not cells.has(**key, labeller=name)]
    if not missing:
        return
    truth = bench.test[1]
    position = most_frequent_per_pixel(labels, bench.num_classes)
    for name, guess in (("background", np.zeros_like(position)), ("position", position)):
        if not cells.has(**key, labeller=name):
            cells.add(**key, labeller=name, **_scores(np.broadcast_to(guess, truth.shape), truth, bench.num_classes))
    sets: dict[str, tuple[Tensor, Tensor]] = {}
    if "annotated only" in missing:
        own = torch.cat([bench.source.render(part).images.cpu() for part in _parts(indices)])
        sets["annotated only"] = own, torch.from_numpy(labels)
    interpreters = dict(trained(bench, count, draw, indices, labels))
    for name, made in label_pairs(bench, interpreters).items():
        if name in missing:
            sets[name] = bench.pairs, made
    for name, miou in train_and_score(bench, sets, f"count-{count}-draw-{draw}", draw).items():
        cells.add(**key, labeller=name, **miou)


def annotator_segmenter(bench: Bench, cells: Cells, draw: int) -> None:
    """The ceiling: the annotator labels the generated images itself; those it rejects are left out."""
    key = {"what": "test-R", "count": 0, "draw": draw, "labeller": "annotator"}
    if cells.has(**key):
        return
    answers = [bench.annotator(part) for part in bench.pairs.split(BATCH)]
    accepted = torch.from_numpy(np.concatenate([answer.accepted for answer in answers]))
    labels = torch.from_numpy(np.concatenate([answer.labels for answer in answers]))
    found = train_and_score(bench, {"annotator": (bench.pairs[accepted], labels[accepted])}, "annotator", draw)
    cells.add(**key, **found["annotator"], pairs=int(accepted.sum()))


def label_pairs(bench: Bench, interpreters: dict[str, Interpreter]) -> dict[str, Tensor]:
    """Labels `(N, R, R)` of the generated images by every labeller; each image is rendered once for all."""
    made: dict[str, list[Tensor]] = defaultdict(list)
    for part in _parts(reserved("train", bench.options.pairs)):
        rendered = bench.source.render(part)
        for training, interpreter in interpreters.items():
            with autocast(bench.inputs.device, bench.inputs.precision):
                found = interpreter.predict_each(rendered.images, rendered.maps)
            for labeller, name in TRAININGS[training][1].items():
                made[name].append(found[labeller].cpu())
    return {name: torch.cat(parts) for name, parts in made.items()}


def train_and_score(
    bench: Bench, sets: dict[str, tuple[Tensor, Tensor]], cell: str, draw: int
) -> dict[str, dict[str, Any]]:
    """Train a segmenter on each set, all of one draw with the same seed, and score its last step on test-R."""
    settings = bench.inputs.section(TrainSegmenters).segmenter
    settings = settings.model_copy(update={"steps": bench.options.segmenter_steps})
    folders = {name: bench.out / "segmenters" / cell / f"{name.replace(' ', '-')}-{draw}" for name in sets}
    jobs = {
        name: training_job(
            settings,
            folders[name],
            [TrainingSource(LabelledSlices(images, labels))],
            num_classes=bench.num_classes,
            seed=mix_seed(bench.inputs.seed, "segmenter", draw),
            inputs=bench.inputs,
        )
        for name, (images, labels) in sets.items()
    }
    train_many(jobs, bench.options.workers, cell)
    images, truth = bench.test
    result = {}
    for name, folder in folders.items():
        network = load_segmenter(folder, bench.inputs.device)
        pred = predict_labels(network, images, device=bench.inputs.device, precision=bench.inputs.precision)
        result[name] = _scores(pred.numpy(), truth, bench.num_classes)
    return result


def print_table(bench: Bench, rows: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over draws, and each labeller against `average`, draw by draw."""
    who = read_json(bench.inputs.folders["annotate"] / "annotator.json")
    print(
        f"annotated by {who['who']} trained on {who['real_slices']} real labelled slices of {who['real_patients']} "
        f"patients; {len(bench.held_out[0])} held-out images; segmenter steps {bench.options.segmenter_steps}"
    )
    for what in ("agreement", "test-R"):
        mine = [row for row in rows if row["what"] == what]
        if not mine:
            continue
        counts = sorted({row["count"] for row in mine} - {0})
        print(f"\n{what:18}" + "".join(f"{f'{count} annotated':>16}{'- average':>16}" for count in counts))
        for name in dict.fromkeys(row["labeller"] for row in mine):
            line = f"{name:18}"
            for count in counts:
                own = _by_draw(mine, name, count)
                other = _by_draw(mine, "average", count)
                paired = [own[draw] - other[draw] for draw in own if draw in other]
                line += f"{_spread(own.values()):>16}{_spread(paired, sign=name != 'average'):>16}"
            print(line)
    differ = {
        name: [row["disagreement"] for row in rows if row["labeller"] == name and "disagreement" in row]
        for name in dict.fromkeys(row["labeller"] for row in rows)
    }
    print("\ndisagreement of the members on held-out images, Jensen-Shannon divergence in nats, all cells")
    for name in (name for name in differ if differ[name]):
        print(f"{name:18}{np.mean(differ[name]):>16.4f}")
    print("\nmean ± standard deviation over draws of annotated images; mIoU, background included")


def _by_draw(rows: list[dict[str, Any]], name: str, count: int) -> dict[int, float]:
    """Figures of a labeller by draw; the annotator's count for every number of annotated images."""
    return {row["draw"]: row["miou"] for row in rows if row["labeller"] == name and row["count"] in (count, 0)}


def _spread(values: Iterable[float], sign: bool = False) -> str:
    found = np.array(list(values))
    if not len(found) or (sign is False and not found.any()):
        return ""
    text = f"{found.mean():+.3f}" if sign else f"{found.mean():.3f}"
    return text + (f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else "")


def _scores(pred: np.ndarray, truth: np.ndarray, num_classes: int) -> dict[str, Any]:
    found = scores(confusion(pred, truth, num_classes).sum(axis=0))
    return {"miou": found["miou"], "per_class": found["iou_per_class"]}


def _parts(indices: Any) -> list[Any]:
    return [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]


if __name__ == "__main__":
    main()
