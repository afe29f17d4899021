"""Stages of the toy system, put together from what every system shares."""

from functools import partial

import torch

from medseg_gan.data.phantom.birds import write_birds_phantom
from medseg_gan.data.picture_layouts import find_pictures
from medseg_gan.data.picture_preparation import prepare_pictures
from medseg_gan.data.pictures import PictureStore
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.seeding import mix_seed, torch_generator
from medseg_gan.report.document import DataTable, Document, write_document
from medseg_gan.training.cadence import steps_of
from medseg_gan.training.engine import run_training
from medseg_gan.training.handlers import Advice, Checkpoints, Rows, SampleGrid
from medseg_gan.training.pairs import pair_sources, write_foreground_pairs
from medseg_gan.training.restarts import with_restarts
from medseg_gan.training.segmenter import read_training, train_many
from medseg_gan.training.stylegan2 import image_batches
from toy_gan.recipe import TrainGan
from toy_gan.step import CHANNELS, Generator, Step, Watchdog, Z


def prepare(config, folder, inputs):
    write_birds_phantom(folder / "phantom", seed=inputs.seed, train=24, val=2, test=2, size=config.size)
    found = find_pictures(folder / "phantom", "cub")
    prepare_pictures(folder, found.pictures, size=config.size, dataset=found.dataset)


def train_gan(config, folder, inputs):
    store = PictureStore.open(inputs.folders["prepare"])
    images = store.image_tensor(store.indices("train"))
    for (arm, seed), run in zip(config.runs(), config.names(), strict=True):
        train_one(config.of_arm(arm), folder / run, images, mix_seed(inputs.seed, "toy", seed), run)


def train_one(s, folder, images, seed, name):
    if (folder / "G.pt").is_file():
        return

    def attempt(own, seed, stop):
        step = Step(s, images.shape[-1], seed)
        run_training(
            step,
            {part: getattr(step, part) for part in ("G", "D", "optimizer_G", "optimizer_D")},
            lambda done: image_batches(images, None, s.batch_size, seed, done * s.batch_size, "cpu"),
            [Advice(Watchdog(s.least_area, stop)), Rows(2), SampleGrid(step.sample, 5), Checkpoints(3)],
            folder=own,
            settings=s.model_dump(mode="json") | {"seed": seed},
            total=steps_of(s.kimg, s.batch_size),
            batch_size=s.batch_size,
            name=name,
        )
        return step

    step, given_up, _ = with_restarts(attempt, folder, seed=seed, restarts=s.restarts, name=name)
    save_checkpoint(folder / "G.pt", G=step.G.state_dict(), size=images.shape[-1], attempts=len(given_up) + 1)


def synthesize(config, folder, inputs):
    for run in inputs.section(TrainGan).names():
        saved = load_checkpoint(inputs.folders["train_gan"] / run / "G.pt")
        G = Generator(saved["size"]).requires_grad_(False)
        G.load_state_dict(saved["G"])
        made = partial(render, G, inputs.seed)
        write_foreground_pairs(folder / run, made, config.count, val_share=0.25, block=8, description=run)


def render(G, seed, indices):
    return G(torch.cat([torch.randn(1, Z, generator=torch_generator(seed, index)) for index in indices]))


def train_segmenters(config, folder, inputs):
    common = {"steps": config.count, "augment": "colour", "seed": inputs.seed}
    common["network"] = {"name": "unet", "num_classes": 2, "in_channels": CHANNELS, "width": 16}
    runs, pairs = inputs.section(TrainGan).names(), inputs.folders["synthesize"]
    train_many({run: {**common, **pair_sources(pairs / run), "folder": folder / run} for run in runs}, workers=1)


def report(config, folder, inputs):
    rows = [
        {"row": run, "picked": read_training(inputs.folders["train_segmenters"] / run)["picked"]}
        for run in inputs.section(TrainGan).names()
    ]
    table = DataTable("Trainings", [("row", "training"), ("picked", "step")], rows, name="trainings")
    write_document(folder, Document(inputs.recipe, sections=[table]))
