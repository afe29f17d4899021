"""Stages of the layered GAN up to the final segmenters: images, alternate training, pairs, U-Nets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg_gan.data.phantom import birds, shelf
from medseg_gan.data.picture_layouts import find_pictures
from medseg_gan.data.picture_preparation import prepare_pictures
from medseg_gan.data.pictures import FoundPictures, PictureStore
from medseg_gan.data.pseudo_masks import build_detector, write_pseudo_masks
from medseg_gan.data.stanford import CARS, DOGS
from medseg_gan.data.volumes import is_volume_file
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import write_json
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.running.mistakes import refuse_missing_file
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.layered.ct import prepare_ct
from medseg_gan.systems.layered.recipe import Phantom, Prepare, Synthesize, TrainGan, TrainSegmenters
from medseg_gan.systems.layered.training import TrainedLayers, train_layered
from medseg_gan.training.labelled import StoredPictures, TrainingSource
from medseg_gan.training.log import Progress, say
from medseg_gan.training.pairs import pair_sources, write_foreground_pairs
from medseg_gan.training.pool import process_count, run_jobs
from medseg_gan.training.segmenter import train_many

CEILING = "supervised"
"""Name of the training on real masks."""
PSEUDO = {DOGS: "dog", CARS: "car"}
"""Data sets without masks, whose ground truth is a detector's, and what it looks for."""


def prepare(config: Prepare, folder: Path, inputs: Inputs) -> None:
    """Find pictures and masks, bring them to one size, and keep their splits."""
    workers = config.workers or os.cpu_count() or 1
    if config.layout == "ct":
        counts = prepare_ct(config, folder, inputs, workers)
    else:
        phantom = "" if inputs.data else draw_phantom(config.phantom, folder / "phantom", inputs.seed, workers)
        found = pictures_in(inputs.data or folder / "phantom", config.layout)
        if config.mask_weights and found.dataset in PSEUDO:
            found = with_pseudo_masks(found, config, folder / "pseudo_masks", inputs)
        refuse_unscored(found)
        with Progress(len(found.pictures), "prepare: pictures", "picture") as bar:
            counts = prepare_pictures(
                folder,
                found.pictures,
                size=config.size,
                dataset=found.dataset,
                classes=found.classes,
                workers=workers,
                on_done=bar.update,
            )
        counts |= {"phantom": phantom, "notes": list(found.notes)}
    write_json(folder / "counts.json", counts)
    for split, number in counts["splits"].items():
        say(f"prepare: {split}: {number['pictures']} pictures, {number['labelled']} with masks")
    for note in counts["notes"]:
        say(f"prepare: {note}")


def check_mask_weights(config: Prepare, inputs: Inputs) -> None:
    """Refuse weights of the detector that are not there.

    Raises:
        MedsegError: the file does not exist.
    """
    refuse_missing_file("prepare.mask_weights", config.mask_weights)


def refuse_unscored(found: FoundPictures) -> None:
    """Training needs no mask, judging it does: better told now than after days.

    Raises:
        MedsegError: no test picture has a mask.
    """
    if any(picture.split == "test" and (picture.mask or picture.empty) for picture in found.pictures):
        return
    weights = ", or --set prepare.mask_weights=FILE for pseudo masks" if found.dataset in PSEUDO else ""
    raise MedsegError(
        f"no test picture of {found.dataset} has a mask, so nothing could be scored; "
        f"give PNG masks of some test pictures{weights}"
    )


def pictures_in(root: Path, layout: str) -> FoundPictures:
    """The pictures of a folder; one that holds CT instead is told how to be read."""
    try:
        return find_pictures(root, layout)
    except MedsegError as error:
        volume = next((path for path in sorted(root.rglob("*")) if is_volume_file(path)), None)
        if volume is None:
            raise
        raise MedsegError(
            f"{root} is not laid out as a picture dataset but holds volumes ({volume.relative_to(root)}); for CT use "
            "the recipe segthor_layered, or --set prepare.layout=ct"
        ) from error


def with_pseudo_masks(found: FoundPictures, config: Prepare, out: Path, inputs: Inputs) -> FoundPictures:
    """The same pictures with masks by Mask R-CNN, as the paper scores these sets; the data folder is not written to."""
    assert config.mask_weights and inputs.data
    detector = build_detector(Path(config.mask_weights), inputs.device)
    category = PSEUDO[found.dataset]
    with Progress(len(found.pictures), "prepare: pseudo masks", "picture") as bar:
        write_pseudo_masks(found.pictures, out, detector, category=category, device=inputs.device, on_done=bar.update)
    return find_pictures(inputs.data, config.layout, out)


def draw_phantom(config: Phantom, root: Path, seed: int, workers: int) -> str:
    """Write the phantom in its data set's layout; returns its name and edition."""
    with Progress(None, "prepare: phantom", "picture") as bar:
        if config.kind == "birds":
            birds.write_birds_phantom(
                root,
                seed=seed,
                train=config.train,
                val=config.val,
                test=config.test,
                size=config.size,
                workers=workers,
                progress=bar.reach,
            )
            return f"bird phantom, edition {birds.EDITION}"
        shelf.write_shelf_phantom(
            root,
            seed=seed,
            objects=config.objects,
            scenes=config.scenes,
            frames=config.frames,
            size=config.size,
            workers=workers,
            progress=bar.reach,
        )
        return f"shelf phantom, edition {shelf.EDITION}"


def train_gan(config: TrainGan, folder: Path, inputs: Inputs) -> None:
    """Train every arm with every seed, as many at a time as there are processes."""
    jobs = {
        f"{arm}-{seed}": {
            "store": inputs.folders["prepare"],
            "folder": folder / f"{arm}-{seed}",
            "settings": config.of_arm(arm),
            "name": f"train_gan {arm} {seed}",
            "seed": mix_seed(inputs.seed, "layered", seed),  # arms of a seed begin alike, so they compare in pairs
            "device": inputs.device,
            "precision": inputs.precision,
        }
        for arm, seed in config.runs()
    }
    run_jobs(train_layered, jobs, process_count(config.workers, inputs.device), "train_gan")


def synthesize(config: Synthesize, folder: Path, inputs: Inputs) -> None:
    """Render pairs of every trained generator; a finished folder is kept."""
    for arm, seed in inputs.section(TrainGan).runs():
        write_foreground_pairs(
            folder / f"{arm}-{seed}",
            trained_layers(inputs, arm, seed).render_pairs,
            config.num_pairs,
            val_share=config.val_share,
            block=config.block_size,
            description=f"synthesize: {arm}-{seed}",
        )


def trained_layers(inputs: Inputs, arm: str, seed: int) -> TrainedLayers:
    """A trained generator as a source of pictures by index."""
    where = inputs.folders["train_gan"] / f"{arm}-{seed}"
    return TrainedLayers.load(where, mix_seed(inputs.seed, "latents", seed), inputs.device, inputs.precision)


def train_segmenters(config: TrainSegmenters, folder: Path, inputs: Inputs) -> None:
    """A U-Net from scratch on each generator's pairs, and one on real masks.

    The step is picked on synthetic validation pairs, of the ceiling on real ones: nothing synthetic sees a real mask.
    """
    training = inputs.section(TrainGan)
    channels = PictureStore.open(inputs.folders["prepare"]).channels
    common: dict[str, Any] = {
        "network": {"name": config.name, "num_classes": 2, "in_channels": channels, "width": config.width},
        "steps": config.steps,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "optimizer": "adam_step",
        "augment": "colour",
        "checkpoints": config.checkpoints,
        "device": inputs.device,
        "precision": inputs.precision,
    }
    jobs: dict[str, Mapping[str, Any]] = {}
    for arm, seed in training.runs():
        jobs[f"{arm}-{seed}"] = {
            **common,
            **pair_sources(inputs.folders["synthesize"] / f"{arm}-{seed}"),
            "folder": folder / f"{arm}-{seed}",
            "seed": mix_seed(inputs.seed, "segmenter", seed),
        }
    ceiling = ceiling_job(inputs.folders["prepare"])
    if config.supervised and ceiling:
        seed = mix_seed(inputs.seed, "segmenter", 0)
        jobs[CEILING] = {**common, **ceiling, "folder": folder / CEILING, "loss": "ce", "seed": seed}
    train_many(jobs, process_count(config.workers, inputs.device))


def ceiling_job(prepared: Path) -> dict[str, Any] | None:
    """Sources of the supervised ceiling: real training masks, the step picked on real validation masks if any."""
    store = PictureStore.open(prepared)
    masks, val = store.indices("train", labelled=True), store.indices("val", labelled=True)
    if not len(masks):
        return None
    return {
        "sources": [TrainingSource(StoredPictures(prepared, masks))],
        "val": StoredPictures(prepared, val) if len(val) else None,
    }


def has_ceiling(folder: Path) -> bool:
    """Whether `train_segmenters` found real masks to train on."""
    return (folder / CEILING).is_dir()
