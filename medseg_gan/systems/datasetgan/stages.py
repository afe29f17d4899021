"""Stages of DatasetGAN up to the generated pairs: slices, GAN, annotation, interpreter, synthesis."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.annotate.answers import answers_sha256
from medseg_gan.data.phantom.patient import EDITION
from medseg_gan.data.phantom.thorax import write_thorax_phantom
from medseg_gan.data.preparation import Preprocessing, describe, prepare_store
from medseg_gan.data.records import Case, find_cases
from medseg_gan.data.slices import SliceRecord, SliceStore, to_hu, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.labels import lookup_table
from medseg_gan.machine import processes
from medseg_gan.machine.atomic import read_json, write_array, write_json, write_text
from medseg_gan.machine.checkpoint import load_checkpoint
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.annotation.annotators import (
    Annotator,
    Collected,
    annotate_by_person,
    collect_accepted,
)
from medseg_gan.systems.datasetgan.annotation.automatic import (
    annotator_kind,
    build_annotator,
    judge_kind,
    stored_annotator,
)
from medseg_gan.systems.datasetgan.annotation.inversion import (
    choose_slices,
    invert_labelled_slices,
    teaching_examples,
)
from medseg_gan.systems.datasetgan.annotation.repainting import ANSWERS
from medseg_gan.systems.datasetgan.factory import LabelFactory, num_generated, write_pairs
from medseg_gan.systems.datasetgan.interpreter.agreement import agreement
from medseg_gan.systems.datasetgan.interpreter.masks import without_ignored
from medseg_gan.systems.datasetgan.interpreter.model import Interpreter, load_interpreter
from medseg_gan.systems.datasetgan.interpreter.selection import RESULT, Held, choose_labeller, load_selection
from medseg_gan.systems.datasetgan.interpreter.settings import TrainInterpreter
from medseg_gan.systems.datasetgan.interpreter.training import train_interpreter as train_ensemble
from medseg_gan.systems.datasetgan.quality.stage import learn_quality, measure_quality
from medseg_gan.systems.datasetgan.recipe import (
    Annotate,
    FewSlices,
    Prepare,
    Synthesize,
    TrainGan,
)
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import (
    ImageSource,
    Rendered,
    Sampling,
    render_again,
    reserved,
    save_latents,
)
from medseg_gan.training.log import Progress, progress, say
from medseg_gan.training.pool import process_count
from medseg_gan.training.stylegan2 import load_generator, train_stylegan2


def prepare(config: Prepare, folder: Path, inputs: Inputs) -> None:
    """Turn volumes into slices and cut their patients into pools; without data, draw the phantom first."""
    workers = config.workers or os.cpu_count() or 1
    cohort: list[Case] = []
    if inputs.data is None:
        phantom = folder / "phantom"
        size = config.phantom
        with Progress(None, "prepare: phantom", "patient") as bar:
            write_thorax_phantom(
                phantom,
                seed=inputs.seed,
                gan_patients=size.gan_patients,
                labelled_patients=size.labelled_patients,
                annotator_patients=size.annotator_patients,
                slices_per_patient=size.slices_per_patient,
                annotator_slices=size.annotator_slices,
                matrix=size.matrix,
                workers=workers,
                progress=bar.reach,
            )
        cases = find_cases(phantom, "segthor")
        cohort = find_cases(phantom / "annotator", "segthor")
    else:
        cases = find_cases(inputs.data, config.layout, config.patient_pattern)
    share, least = config.test_share, config.min_test_patients
    if inputs.data is None and config.phantom.test_patients:
        least = config.phantom.test_patients
        share = least / config.phantom.labelled_patients
    how = Preprocessing(lookup_table(config.labels), config.size, config.crop, config.spacing, config.min_lung_cm2)
    with Progress(len(cases) + len(cohort), "prepare: slices", "volume") as bar:
        counts = prepare_store(
            folder,
            cases,
            how,
            seed=inputs.seed,
            window=config.window,
            cohort=cohort,
            test_share=share,
            min_test=least,
            gan_share=config.gan_share,
            workers=workers,
            on_done=bar.update,
        )
    counts["phantom"] = f"thorax phantom, edition {EDITION}" if inputs.data is None else ""
    write_json(folder / "counts.json", counts)
    write_text(folder / "preprocessing.txt", describe(how))
    for pool, numbers in counts["pools"].items():
        say(f"prepare: pool {pool}: {numbers['slices']} slices of {numbers['patients']} patients")
    for reason, count in counts["left_out"].items():
        if count:
            say(f"prepare: {count} slices left out, {reason}")


def check_init_from(config: TrainGan, inputs: Inputs) -> None:
    """Refuse weights that are not there.

    Raises:
        MedsegError: the file does not exist.
    """
    if config.init_from and not Path(config.init_from).expanduser().is_file():
        raise MedsegError(f"train_gan.init_from: {config.init_from} is no file; give the path of the weights")


def train_gan(config: TrainGan, folder: Path, inputs: Inputs) -> None:
    """Train StyleGAN2-ADA on the `gan` pool; labels are not looked at."""
    store = SliceStore.open(inputs.folders["prepare"])
    pool = store.indices("gan")
    if config.config == "auto" and config.gpus != (running := processes.count()):
        say(f"train_gan: `config: auto` is made for gpus {config.gpus}, {running} processes run; see train_gan.gpus")
    train_stylegan2(
        config,
        store.image_tensor(pool),
        [store.records[k].patient for k in pool],
        folder,
        seed=mix_seed(inputs.seed, "train_gan"),
        device=inputs.device,
        precision=inputs.precision,
    )


def annotate(config: Annotate, folder: Path, inputs: Inputs) -> None:
    """Collect generated slices with an annotator's masks, and held-out ones that judge the interpreter."""
    store = SliceStore.open(inputs.folders["prepare"])
    spacing = store.typical_spacing()
    kind = annotator_kind(config, inputs)
    source = image_source(inputs, "editgan", config)
    who: dict[str, Any]

    def images_of(indices: range) -> Tensor:
        return source.render(indices).images.cpu()

    def keep_held_out(annotator: Annotator) -> None:
        further = reserved("held_out", config.held_out * config.max_tries)
        found = collect_accepted(images_of, annotator, further, config.held_out)
        _keep(folder / "held_out", found, source, store, spacing)

    if kind == "inversion":
        who = invert_labelled_slices(config, folder, source, store, inputs)
        if judge := judge_kind(inputs):
            annotator, who["judge"] = build_annotator(judge, config, folder, store, spacing, inputs)
            keep_held_out(annotator)
        write_json(folder / "annotator.json", who)
        return
    candidates = reserved("annotate", config.num_images * config.max_tries)
    if kind == "person":
        found = annotate_by_person(
            folder / "person",
            images_of,
            candidates,
            config.num_images,
            window=store.window,
            spacing=spacing,
            table=store.table,
            next_command=inputs.command,
            earlier=earlier_annotations(inputs.run, folder.name),
        )
        who = {"kind": kind, "who": f"{config.num_images} generated slices painted by hand"}
        who |= {"real_slices": 0, "real_patients": 0, ANSWERS: answers_sha256(folder / "person")}
    else:
        annotator, who = build_annotator(kind, config, folder, store, spacing, inputs)
        found = collect_accepted(images_of, annotator, candidates, config.num_images)
        keep_held_out(annotator)
    _keep(folder / "annotated", found, source, store, spacing)
    write_json(folder / "annotator.json", {**who, "sampled": found.sampled, "rejected": dict(found.rejected)})


def check_annotator(config: Annotate, inputs: Inputs) -> None:
    """Refuse an annotator who cannot label this, and too few real slices to invert once they are prepared.

    Raises:
        MedsegError: see `annotator_kind` and `choose_slices`.
    """
    if annotator_kind(config, inputs) == "inversion" and "prepare" in inputs.folders:
        store = SliceStore.open(inputs.folders["prepare"])
        choose_slices(config, inputs.section(FewSlices), store, inputs.seed)


def earlier_annotations(run: Path, name: str) -> list[Path]:
    """A person's folders in what `--rerun` moved away, newest first: hours of work that identical images get back."""
    found = (run / "replaced").glob(f"*/{name}/person/manifest.json")
    return sorted((path.parent for path in found), reverse=True)


def image_source(inputs: Inputs, variant: str, config: Annotate, block: int = 8) -> ImageSource:
    """The trained generator as a source of images by index."""
    G = load_generator(inputs.folders["train_gan"] / "G_ema.pt", inputs.device)
    sampling = Sampling(
        seed=mix_seed(inputs.seed, "latents"), psi=config.truncation_psi, block=block, precision=inputs.precision
    )
    return ImageSource(FeatureExtractor(G, variant), sampling, inputs.device)


def _keep(
    folder: Path, found: Collected, source: ImageSource, store: SliceStore, spacing: tuple[float, float, float]
) -> None:
    """Images and masks as a slice store, with the latents that render them again."""
    rendered = source.render(found.indices)
    save_latents(folder / "latents.pt", source, rendered)
    records = [
        SliceRecord(f"generated-{index:010d}", "generated", 0, spacing, None, "generated", True)
        for index in found.indices
    ]
    hu = to_hu(rendered.images[:, 0].cpu().numpy(), store.window)
    write_store(folder, hu, found.labels, records, store.window, store.table)


def fit_interpreter(
    folder: Path, rendered: Rendered, labels: Tensor, config: TrainInterpreter, inputs: Inputs, num_classes: int
) -> Interpreter:
    """Train an interpreter by the recipe's settings on some annotated images; where it says `auto`, as was chosen."""
    chosen = load_selection(inputs.folders.get("train_interpreter", folder))
    preparation = inputs.section(Prepare)
    return train_ensemble(
        folder,
        rendered,
        without_ignored(labels, config.ignore, lookup_table(preparation.labels)),
        config.model_copy(update={"labeller": chosen.labeller, "loss": chosen.loss}) if chosen else config,
        num_classes=num_classes,
        seed=mix_seed(inputs.seed, "interpreter"),
        precision=inputs.precision,
        workers=process_count(config.workers, inputs.device),
        calibration=chosen.calibration if chosen else None,
    )


def train_interpreter(config: TrainInterpreter, folder: Path, inputs: Inputs) -> None:
    """Train the style interpreter on the annotated slices' features, and compare it with the annotator."""
    annotation = inputs.section(Annotate)
    source = image_source(inputs, config.features, annotation)
    where = inputs.folders["annotate"]
    annotated = SliceStore.open(where / "annotated")
    rendered = render_again(where / "annotated" / "latents.pt", source, config.feature_storage)
    labels = torch.from_numpy(np.array(annotated.labels)).to(inputs.device)
    who = read_json(where / "annotator.json")
    if who["kind"] == "inversion":
        store, own_image = SliceStore.open(inputs.folders["prepare"]), config.labeller in ("image", "average")
        image_from = annotation.inversion.image_from if own_image else "reconstruction"  # as the features are
        rendered, labels = teaching_examples(where / "annotated", rendered, labels, store, image_from)
    held_out = _held_out(where / "held_out", source)
    taught = without_ignored(labels, config.ignore, annotated.table)
    choose_labeller(folder, rendered, taught, config, inputs, annotated.table.num_classes, held_out)
    interpreter = fit_interpreter(folder, rendered, labels, config, inputs, annotated.table.num_classes)
    counts = {"sampled": who["sampled"], "rejected": sum(who["rejected"].values()), "reasons": who["rejected"]}
    result: dict[str, Any] = {}
    if held_out is not None:
        result = agreement(interpreter, source, held_out.indices, held_out.labels, annotated.table.num_classes)
    if (folder / RESULT).is_file():
        result["selection"] = read_json(folder / RESULT)
    write_json(folder / "agreement.json", {**result, **counts})


def _held_out(folder: Path, source: ImageSource) -> Held | None:
    """The images that judge labellers; None where a person painted."""
    if not (folder / "cases.json").is_file():
        return None
    indices = load_checkpoint(folder / "latents.pt")["indices"].numpy()
    return Held(source, indices, np.array(SliceStore.open(folder).labels))


def synthesize(config: Synthesize, folder: Path, inputs: Inputs) -> None:
    """Let the factory make the training pairs and test-G, and the annotator label test-G once more."""
    annotation = inputs.section(Annotate)
    store = SliceStore.open(inputs.folders["prepare"])
    interpreter = load_interpreter(inputs.folders["train_interpreter"], inputs.device)
    source = image_source(inputs, interpreter.variant, annotation)
    sampling = replace(source.sampling, block=config.block_size)
    factory = LabelFactory(source.G, interpreter, sampling, inputs.device)
    teaching = inputs.section(TrainInterpreter)
    quality = learn_quality(
        folder,
        factory,
        store,
        inputs.folders["annotate"],
        folds=config.quality_folds,
        seed=inputs.seed,
        annotated=lambda: render_again(inputs.folders["annotate"] / "annotated" / "latents.pt", source),
        refit=partial(fit_interpreter, config=teaching, inputs=inputs, num_classes=store.table.num_classes),
    )
    generated = num_generated(config.num_pairs, config.dropped)
    for name, indices, dropped in (
        ("test_g", reserved("test_g", config.num_test_g), 0.0),  # unfiltered
        ("train", reserved("train", generated), config.dropped),
    ):
        with Progress(len(indices), f"synthesize: {name}", "image") as bar:
            write_pairs(
                folder / name,
                factory,
                indices,
                window=store.window,
                table=store.table,
                spacing=store.typical_spacing(),
                drop_uncertain=dropped,
                quirk=config.quirk and name == "train",
                judge=quality.judge,
                drop_by="predicted_wrong" if config.filter == "quality" else "scores",
                on_done=bar.reach,
            )
    annotator = stored_annotator(inputs, store)
    if annotator is not None:
        test = SliceStore.open(folder / "test_g")
        parts = np.array_split(test.indices(), max(1, len(test) // 16))
        answers = [annotator(test.image_tensor(part)) for part in progress(parts, "synthesize: test_g labels", "block")]
        write_array(folder / "test_g" / "annotator_accepted.npy", np.concatenate([one.accepted for one in answers]))
        write_array(folder / "test_g" / "annotator_labels.npy", np.concatenate([one.labels for one in answers]))
    measure_quality(folder)
