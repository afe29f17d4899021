"""A run of DatasetGAN as its stages leave it, with random weights: nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from medseg_gan.data.slices import SliceRecord, SliceStore, write_store
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import write_json, write_text
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.networks.interpreter import PixelClassifier
from medseg_gan.networks.segmenters import build_segmenter
from medseg_gan.running.recipe import resolved_text
from medseg_gan.systems.datasetgan.factory import LabelFactory, write_pairs
from medseg_gan.systems.datasetgan.interpreter.model import load_interpreter
from medseg_gan.systems.datasetgan.samples.images import FIRST_INDEX, Sampling
from medseg_gan.systems.plan import plan_recipe
from medseg_gan.training.stylegan2 import load_generator, save_generator
from stylegan2_ada_pytorch import Generator

SIZE, WINDOW, TABLE, SPACING = 16, (-1000.0, 400.0), lookup_table("paper"), (2.0, 2.0, 3.0)
SETS = (f"prepare.size={SIZE}", "synthesize.num_pairs=4", "train_interpreter.labeller=features")


def finished_run(run: Path, pairs: int = 4) -> Path:
    """Folders of all stages but the report."""
    plan = plan_recipe("segthor_datasetgan", out=run, profile="smoke", sets=SETS)
    write_text(run / "recipe.yaml", resolved_text(plan.recipe))
    folders = plan.folders
    _prepare(folders["prepare"])
    _networks(folders)
    interpreter = load_interpreter(folders["train_interpreter"])
    factory = LabelFactory(load_generator(folders["train_gan"] / "G_ema.pt"), interpreter, Sampling(seed=3, block=4))
    first = FIRST_INDEX["train"]
    store = {"window": WINDOW, "table": TABLE, "spacing": SPACING}
    write_pairs(folders["synthesize"] / "train", factory, range(first, first + pairs), **store)
    who = {"kind": "segmenter", "who": "a segmenter (unet)", "real_slices": 5, "real_patients": 2, "rejected": {}}
    write_json(folders["annotate"] / "annotator.json", who)
    write_json(folders["train_interpreter"] / "agreement.json", {"agreement_miou": 0.5, "held_out_images": 4})
    _scores(folders)
    for number, (name, folder) in enumerate(folders.items()):
        if name != "report":
            write_json(folder / "started.json", {"attempts": [{"started": 1.7e9 + number}]})
            write_json(folder / "done.json", {"fingerprint": f"{number:064x}"})
    return run


def _prepare(folder: Path) -> None:
    rng = np.random.default_rng(0)
    records = [
        SliceRecord(f"patient-{p:03d}-01", f"patient-{p:03d}", 5 * k, SPACING, np.eye(4).tolist(), pool, pool != "gan")
        for p, pool in enumerate(("gan", *["labelled"] * 4, "test"), start=1)
        for k in range(3)
    ]
    images = rng.integers(-1024, 2000, (len(records), SIZE, SIZE)).astype(np.int16)
    labels = rng.integers(0, TABLE.num_classes, images.shape).astype(np.uint8)
    labels[:3] = 255
    write_store(folder, images, labels, records, WINDOW, TABLE)
    pools = {name: {"patients": 1, "slices": 3, "labelled_slices": 0} for name in ("gan", "labelled", "test")}
    write_json(folder / "counts.json", {"pools": pools, "phantom": "thorax phantom, edition 2"})


def _networks(folders: dict[str, Path]) -> None:
    torch.manual_seed(0)
    small = {"channel_base": 256, "channel_max": 16}
    G = Generator(8, 0, 8, SIZE, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=small)
    save_generator(folders["train_gan"] / "G_ema.pt", G, images_seen=1)
    classifier = PixelClassifier(96, (8, 4), TABLE.num_classes)
    save_checkpoint(folders["train_interpreter"] / "classifier-00.pt", network=classifier)
    facts = {"variant": "editgan", "labeller": "features", "vote": "majority", "num_classes": TABLE.num_classes}
    facts |= {"depth": 96, "hidden": [8, 4], "order": "linear-bn-relu"}
    facts |= {"classifiers": ["classifier-00.pt"], "image_networks": []}
    write_json(folders["train_interpreter"] / "interpreter.json", {"version": 1, **facts})
    network = {"name": "unet", "num_classes": TABLE.num_classes, "width": 16}
    trained = folders["train_segmenters"] / "unet" / "hybrid-0"
    save_checkpoint(
        trained / "weights-0000006.pt", network=network, step=6, state=build_segmenter(**network).state_dict()
    )
    write_json(trained / "training.json", {"network": network, "picked": 6, "checkpoints": [{"step": 6}]})


def _scores(folders: dict[str, Path]) -> None:
    cost = {"annotated_synthetic": 4}
    rows = [{"row": "hybrid", "seed": 0, "cost": cost, "title": "hybrid: 4 synthetic + 4 real of 2 patients only"}]
    write_json(folders["train_segmenters"] / "rows.json", rows)
    scored = {"row": "hybrid", "network": "unet", "segmenter_seeds": [0, 1]}
    scored["scores"] = {"test_r": {"clean": {"miou": 0.25}}}
    document = {"rows": [scored], "score_name": "mIoU", "test_patients": 1}
    write_json(folders["evaluate"] / "scores.json", document)


def pairs_of(run: Path) -> SliceStore:
    """The generated pairs."""
    return SliceStore.open(run / "05-synthesize" / "train")
