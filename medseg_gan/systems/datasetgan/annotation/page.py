"""A run's annotation page: its images, the HU rule and interpreters from what is painted so far as pre-labels."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg_gan.annotate.files import exported_images, read_manifest
from medseg_gan.annotate.guide import Guide, Predictions, Rule
from medseg_gan.annotate.work import AnnotationWork
from medseg_gan.data.lungs import lungs_of_slice
from medseg_gan.data.slices import to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.labels import LabelTable, lookup_table
from medseg_gan.machine.atomic import read_json
from medseg_gan.machine.device import autocast, resolve_device
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.running.plain_yaml import read_yaml
from medseg_gan.running.recipe import import_object, list_recipes
from medseg_gan.running.stages import Plan
from medseg_gan.systems.datasetgan.annotation.annotators import LUNGS, same_images
from medseg_gan.systems.datasetgan.interpreter.settings import InterpreterTraining, TrainInterpreter
from medseg_gan.systems.datasetgan.interpreter.training import train_interpreter
from medseg_gan.systems.datasetgan.recipe import Annotate, DatasetGanRecipe
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Sampling
from medseg_gan.training.stylegan2 import load_generator

LUNG_RULE = "HU rule for lungs"

EXTRA = "pip install 'medseg-gan[annotate]'"


@dataclass(frozen=True)
class Quick:
    """The interpreter that a person waits for: the recipe's, with fewer members and steps.

    Attributes:
        members: classifiers on features.
        image_members: U-Nets on the image.
        steps: of each.
    """

    members: int = 3
    image_members: int = 1
    steps: int = 200


def annotate_on_page(
    plan: Plan, *, port: int = 7860, open_browser: bool = True, device: str = "auto", say: Callable[[str], None] = print
) -> None:
    """Serve the annotation page of a run until it is ended with Ctrl-C; a finished annotation is only told.

    Args:
        plan: of the run.
        port: on 127.0.0.1, which no other machine reaches.
        open_browser: open the page in the default browser.
        device: where interpreters are trained: `auto`, `cpu` or `cuda`.
        say: where lines go.

    Raises:
        MedsegError: the run does not wait for a person, the port is taken, or gradio is missing.
    """
    stage = plan.folders["annotate"]
    person, command = stage / "person", next_command(plan)
    if not (person / "manifest.json").is_file():
        raise _not_waiting(plan, stage, command)
    if (stage / "done.json").is_file():
        images = read_json(stage / "annotator.json")["sampled"]
        say(
            f"the annotation of {plan.run} is finished: {images} images were answered and taken over; go on with "
            f"{command}, or paint anew after adding --rerun annotate --until annotate"
        )
        return
    guide = build_guide(plan, device)
    guide.work.items()  # a mask of another run or a damaged list is told now
    try:
        serve = import_object("medseg_gan.annotate.server:serve")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "medseg_gan"):
            raise
        raise MedsegError(
            f"medseg-gan annotate needs the package {package}, which is not installed; {EXTRA}"
        ) from error
    serve(guide, title=f"{plan.recipe.header.name}", port=port, open_browser=open_browser, say=say, command=command)


def build_guide(plan: Plan, device: str = "auto", quick: Quick | None = None) -> Guide:
    """The annotation folder of a run with all help that the run can give.

    Raises:
        MedsegError: the folder holds no export, or one for other classes or of another version.
    """
    settings = plan.recipe.settings
    assert isinstance(settings, DatasetGanRecipe)
    table = lookup_table(settings.prepare.labels)
    folder = plan.folders["annotate"] / "person"
    work = AnnotationWork(folder, table)
    spacing = read_manifest(folder)["spacing"]
    rules: dict[str, Rule] = {}
    if set(LUNGS) <= set(table.classes):
        rules[LUNG_RULE] = lung_rule(table, math.sqrt(spacing[0] * spacing[1]))
    generator = plan.folders["train_gan"] / "G_ema.pt"
    train = None
    if generator.is_file():
        sampling = Sampling(
            seed=mix_seed(settings.run.seed, "latents"),
            psi=settings.annotate.truncation_psi,
            precision=plan.precision(),
        )
        train = PageTraining(
            generator, sampling, folder, table, settings.train_interpreter, settings.run.seed, device, quick or Quick()
        )
    return Guide(work, rules, train)


def lung_rule(table: LabelTable, pixel_mm: float) -> Rule:
    """Left and right lung by their HU, in the ids of any table that has both."""
    ids = np.array([0, table.id_of("left_lung"), table.id_of("right_lung")], np.uint8)

    def label_of(hu: np.ndarray) -> np.ndarray | None:
        lungs = lungs_of_slice(hu.astype(np.float32), pixel_mm)
        return None if lungs is None or not lungs.any() else ids[lungs]

    return label_of


@dataclass(frozen=True)
class PageTraining:
    """Trains an interpreter from the slices painted so far; called as `guide.Train` says.

    Attributes:
        generator: file of the averaged generator.
        sampling: how the exported images were drawn; number k of the folder has the sample index k.
        folder: of the annotation.
        table: classes.
        config: the recipe's interpreter, for its features.
        seed: of the run.
        device: `auto`, `cpu` or `cuda`.
        quick: how much is trained.
    """

    generator: Path
    sampling: Sampling
    folder: Path
    table: LabelTable
    config: TrainInterpreter
    seed: int
    device: str
    quick: Quick

    def __call__(
        self, numbers: Sequence[int], labels: np.ndarray, folder: Path, say: Callable[[str], None]
    ) -> Predictions:
        """Train on the painted images and label all of them.

        Raises:
            MedsegError: the generator does not draw the exported images, or the masks teach nothing.
        """
        device, quick = resolve_device(self.device), self.quick
        say("rendering the painted images")
        G = load_generator(self.generator, device)
        source = ImageSource(FeatureExtractor(G, self.config.features), self.sampling, device)
        exported = exported_images(self.folder)
        painted = source.render(np.array(numbers))
        window = read_manifest(self.folder)["window"]
        if not same_images(to_hu(painted.images[:, 0].cpu().numpy(), window), exported[list(numbers)], window):
            raise MedsegError(
                f"{self.generator} does not draw the images of {self.folder}; interpreters cannot be trained here"
            )
        total = quick.members + quick.image_members
        for done in range(total):  # members in the folder are kept, so that one more is trained each time
            say(f"training member {done + 1} of {total}")
            images_too = done >= quick.members
            interpreter = train_interpreter(
                folder,
                painted,
                torch.from_numpy(labels).to(device),
                InterpreterTraining(
                    features=self.config.features,
                    labeller="average" if images_too else "features",
                    loss="whole_image",
                    members=min(done + 1, quick.members),
                    steps=quick.steps,
                    image_members=max(1, done + 1 - quick.members),
                    image_width=self.config.image_width,
                ),
                num_classes=self.table.num_classes,
                seed=mix_seed(self.seed, "annotation page"),
                precision=self.sampling.precision,
            )
        say("labelling the other images")
        answers = []
        for start in range(0, len(exported), self.sampling.block):
            rendered = source.render(range(start, min(start + self.sampling.block, len(exported))))
            with autocast(device, self.sampling.precision):
                answers.append(interpreter.predict(rendered.images, rendered.maps))
        return Predictions(
            labels=torch.cat([answer.labels for answer in answers]).cpu().numpy(),
            scores=torch.cat([answer.scores for answer in answers]).cpu().numpy(),
        )


def next_command(plan: Plan) -> str:
    """What to type to go on with a run, from what it wrote down; the user's data folder it did not."""
    header, run = plan.recipe.header, plan.run
    made = read_yaml(run / "recipe.yaml", str(run / "recipe.yaml")).get("made")
    made = made if isinstance(made, dict) else {}
    shipped = header.name in {other.name for other in list_recipes()}
    words = ["medseg-gan", "recipe", header.name if shipped else f"{header.name}.yaml", "--out", str(run)]
    started = plan.folders["prepare"] / "started.json"
    data = read_json(started).get("data") if started.is_file() else None
    words += ["--data", "DATA"] if isinstance(data, dict) and data.get("kind") == "folder" else []
    words += ["--profile", str(made["profile"])] if made.get("profile") else []
    words += [word for text in made.get("sets") or () for word in ("--set", str(text))]
    return shlex.join(words)


def _not_waiting(plan: Plan, stage: Path, command: str) -> MedsegError:
    """Why there is nothing to paint."""
    settings = plan.recipe.settings
    assert isinstance(settings, DatasetGanRecipe)
    annotation: Annotate = settings.annotate
    by_person = "for a person to paint, make a run with --set annotate.annotator=person and another --out"
    if (stage / "annotator.json").is_file():
        return MedsegError(f"{plan.run} was annotated by {read_json(stage / 'annotator.json')['who']}; {by_person}")
    if annotation.annotator not in ("auto", "person"):
        return MedsegError(f"{plan.run} is annotated by annotate.annotator={annotation.annotator}; {by_person}")
    if not (plan.folders["train_gan"] / "done.json").is_file():
        return MedsegError(f"{plan.run} has no finished GAN yet, and so no images to paint; go on with {command}")
    return MedsegError(f"{plan.run} has exported no images yet; {command} makes them (it ends with exit code 3)")
