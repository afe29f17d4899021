"""What a run of DatasetGAN can hand to other programs: its pairs, its segmenters and its factory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import UsageError, did_you_mean
from medseg_gan.export.bundle import write_segmenter_bundle
from medseg_gan.export.dataset_zip import write_training_images
from medseg_gan.export.dicom_series import Origin
from medseg_gan.export.folder import refuse_existing
from medseg_gan.export.nnunet import write_nnunet
from medseg_gan.export.optional import import_exporter
from medseg_gan.export.shards import write_shards
from medseg_gan.export.slices import Selection
from medseg_gan.machine.atomic import read_json
from medseg_gan.running.stages import Plan
from medseg_gan.systems.datasetgan.draws import draw_of
from medseg_gan.systems.datasetgan.export.bundle import write_factory_bundle
from medseg_gan.systems.datasetgan.export.card import CardSource, data_card, factory_card, pool_card, segmenter_card
from medseg_gan.systems.datasetgan.recipe import DatasetGanRecipe
from medseg_gan.training.segmenter import load_segmenter, read_training
from medseg_gan.training.stylegan2 import load_generator

DATA = ("synthetic", "real", "hybrid")
WITH_PAIRS = ("synthetic", "hybrid")
"""What holds generated pairs, which --num counts."""

CHOICES = {
    "nnunet": DATA,
    "dicom-seg": DATA,
    "shards": DATA,
    "dataset-zip": ("gan",),
    "onnx": ("segmenter",),
    "bundle": ("segmenter", "factory"),
}
"""What each format can hold; the first is the default."""


def export(
    plan: Plan,
    to: str,
    out: Path | None = None,
    *,
    what: str | None = None,
    row: str | None = None,
    network: str | None = None,
    dataset_id: int = 500,
    file_format: str = "nii",
    num: int | None = None,
    licence: str | None = None,
) -> Path:
    """Export from a finished run.

    Args:
        plan: of the run.
        to: one of `CHOICES`.
        out: folder to make, for `nnunet` the folder `nnUNet_raw`; by default under `RUN/export`.
        what: `synthetic`, `real` or `hybrid` slices, those of the `gan`, the `segmenter` or the `factory`.
        row: training set of the segmenter; by default `hybrid`.
        network: of the segmenter; by default the recipe's first.
        dataset_id: for nnU-Net.
        file_format: `nii` or `png`, for nnU-Net.
        num: generated pairs at most; by default all that were kept.
        licence: terms of the export.

    Returns:
        The new folder.

    Raises:
        MedsegError: a stage is not finished, an optional package is missing, or the disk is full.
        UsageError: a combination that does not exist, or a folder that does.
    """
    what = what or CHOICES[to][0]
    if what not in CHOICES[to]:
        raise UsageError(f"--to {to} has no --what {what}; wanted {' or '.join(CHOICES[to])}")
    if num is not None and what not in WITH_PAIRS:
        raise UsageError(f"--num counts generated pairs and has no meaning with --what {what}; leave --num out")
    run = _Run(plan, licence)
    if what in DATA:
        return _export_data(run, to, out, what, dataset_id, file_format, num)
    if what == "gan":
        return _export_pool(run, out or run.default(to))
    if what == "factory":
        return _export_factory(run, out or run.default("bundle-factory"))
    network = network or run.settings.train_segmenters.networks[0]
    return _export_segmenter(run, to, out, row or "hybrid", network)


class _Run:
    """A run's folders and settings, each stage checked to be finished when it is asked for."""

    def __init__(self, plan: Plan, licence: str | None) -> None:
        self.plan = plan
        self.settings: DatasetGanRecipe = plan.recipe.settings
        self.cards = CardSource(plan.recipe, self.stage, licence)

    def stage(self, name: str) -> Path:
        """Folder of a finished stage."""
        return self.plan.finished(name)

    def default(self, name: str) -> Path:
        """Where an export goes when nobody says."""
        return self.plan.run / "export" / name

    def origin(self, stage: str, window: tuple[float, float]) -> Origin:
        """What identifiers derive from: the run's seed, settings and data, by the fingerprint of a stage."""
        folder = self.stage(stage)
        digest = hashlib.sha256(f"export {read_json(folder / 'done.json')['fingerprint']}".encode()).hexdigest()
        started = read_json(folder / "started.json")["attempts"][0]["started"]
        return Origin(digest, datetime.fromtimestamp(started, tz=timezone.utc), window)


def _export_data(
    run: _Run, to: str, out: Path | None, what: str, dataset_id: int, file_format: str, num: int | None
) -> Path:
    if to == "nnunet":
        train, test = _selections(run, what, num)
        return write_nnunet(
            out or run.default("nnUNet_raw"),
            train,
            test,
            data_card(run.cards, what, train, test),
            name=f"{_camel(run.plan.recipe.header.name)}{what.capitalize()}",
            dataset_id=dataset_id,
            file_format="png" if file_format == "png" else "nii",
            seed=run.settings.run.seed,
        )
    where = out or run.default(f"{to}-{what}")
    refuse_existing(where)
    if to == "shards":
        train, _ = _selections(run, what, num)
        return write_shards(where, train, data_card(run.cards, what, train, []))
    write_dicom: Callable[..., Path] = import_exporter("medseg_gan.export.dicom_seg:write_dicom", "--to dicom-seg")
    train, _ = _selections(run, what, num)
    origin = run.origin("prepare" if what == "real" else "synthesize", train[0].store.window)
    return write_dicom(where, train, data_card(run.cards, what, train, []), origin, "medseg-gan label factory")


def _selections(run: _Run, what: str, num: int | None) -> tuple[list[Selection], list[Selection]]:
    """Slices to train on and to test on; generated pairs come without test slices, so that none of them is real."""
    train: list[Selection] = []
    if what != "real":
        pairs = SliceStore.open(run.stage("synthesize") / "train")
        scores = np.load(pairs.folder / "scores.npy", allow_pickle=False)
        train.append(Selection(pairs, pairs.indices()[:num], scores))
    if what == "synthetic":
        return train, []
    store = SliceStore.open(run.stage("prepare"))
    hybrid = what == "hybrid"
    real = _few(run, store) if hybrid else store.indices("labelled", labelled=True)
    train.append(Selection(store, real, clip=hybrid))
    return train, [Selection(store, store.indices("test", labelled=True), clip=hybrid)]


def _export_pool(run: _Run, out: Path) -> Path:
    store = SliceStore.open(run.stage("prepare"))
    return write_training_images(out, store, store.indices("gan"), pool_card(run.cards, store))


def _few(run: _Run, store: SliceStore) -> np.ndarray:
    """The real slices of the row `hybrid`, first seed."""
    config = run.settings.train_segmenters
    return draw_of(config, store, run.settings.run.seed).few


def _export_segmenter(run: _Run, to: str, out: Path | None, row: str, network: str) -> Path:
    trained = run.stage("train_segmenters")
    config, prepare = run.settings.train_segmenters, run.settings.prepare
    for option, name, known in (("--network", network, config.networks), ("--row", row, config.rows)):
        if name not in known:
            raise UsageError(
                f"{option} {name}: the run trained none; it has {', '.join(known)}{did_you_mean(name, known)}"
            )
    where = out or run.default(f"{to}-{row}-{network}")
    refuse_existing(where)
    folder = trained / network / f"{row}-0"
    store = SliceStore.open(run.stage("prepare"))
    facts: dict[str, Any] = {"size": store.size, "window": store.window, "classes": store.table.classes}
    if to == "onnx":
        write_onnx: Callable[..., Path] = import_exporter("medseg_gan.export.onnx:write_onnx", "--to onnx")
        return write_onnx(where, load_segmenter(folder), segmenter_card(run.cards, row, network), **facts)
    return write_segmenter_bundle(
        where,
        load_segmenter(folder),
        read_training(folder)["network"],
        segmenter_card(run.cards, row, network),
        crop=prepare.crop,
        spacing=prepare.spacing,
        **facts,
    )


def _export_factory(run: _Run, out: Path) -> Path:
    refuse_existing(out)
    pairs = SliceStore.open(run.stage("synthesize") / "train")
    generator = run.stage("train_gan") / "G_ema.pt"
    return write_factory_bundle(
        out,
        factory_card(run.cards),
        generator=generator,
        interpreter=run.stage("train_interpreter"),
        sampling=read_json(pairs.folder / "sampling.json")["sampling"],
        window=pairs.window,
        spacing=pairs.records[0].spacing,
        classes=pairs.table.classes,
        size=pairs.size,
        z_dim=load_generator(generator).z_dim,
    )


def _camel(name: str) -> str:
    """A recipe's name as nnU-Net's data sets are named: letters and digits."""
    return "".join(part.capitalize() for part in "".join(c if c.isalnum() else " " for c in name).split())
