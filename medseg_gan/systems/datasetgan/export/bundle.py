"""The label factory as a MONAI bundle, and the functions that its configuration calls."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medseg_gan import __version__
from medseg_gan.data.slices import to_hu
from medseg_gan.errors import MedsegError
from medseg_gan.export.bundle import MODEL, write_bundle
from medseg_gan.export.card import Card
from medseg_gan.export.folder import new_folder
from medseg_gan.export.slices import to_nifti
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.names import check_name
from medseg_gan.systems.datasetgan.factory import LabelFactory
from medseg_gan.systems.datasetgan.interpreter.model import load_interpreter
from medseg_gan.systems.datasetgan.samples.images import FIRST_INDEX, Sampling
from medseg_gan.training.segmenter import FINISHED, picked_weights
from medseg_gan.training.stylegan2 import load_generator

FACTORY, INTERPRETER = "factory.json", "interpreter"
PART = 64  # pairs in memory at a time


def write_factory_bundle(
    out: Path,
    card: Card,
    *,
    generator: Path,
    interpreter: Path,
    sampling: Mapping[str, Any],
    window: tuple[float, float],
    spacing: tuple[float, float, float],
    classes: Sequence[str],
    size: int,
    z_dim: int,
) -> Path:
    """Write generator and interpreter as a bundle that makes image-label pairs; it needs medseg-gan to run.

    Args:
        out: folder to make.
        card: facts about the factory.
        generator: `G_ema.pt`.
        interpreter: folder of `train_interpreter`.
        sampling: the run's `Sampling`, as plain values.
        window: HU at -1 and 1.
        spacing: mm of row, column and slice thickness.
        classes: name of each class.
        size: pixels a side.
        z_dim: size of a latent.
    """

    def write_models(folder: Path) -> None:
        shutil.copyfile(generator, folder / MODEL)
        _copy_interpreter(interpreter, folder / INTERPRETER)
        facts = {"version": 1, "sampling": dict(sampling), "window": list(window), "spacing": list(spacing)}
        write_json(folder / FACTORY, facts | {"classes": list(classes)})

    return write_bundle(
        out, card, inference=_INFERENCE, metadata=_metadata(size, classes, z_dim), write_models=write_models
    )


def open_factory(models: str, device: str = "cpu") -> BundledFactory:
    """The factory in a bundle's `models` folder; called by its configuration."""
    return BundledFactory(Path(models), str(device))


class BundledFactory:
    """Makes the pairs of a run, and more of them: pair k is the run's k-th before any were dropped."""

    def __init__(self, models: Path, device: str = "cpu") -> None:
        """Read the factory.

        Raises:
            MedsegError: a file is missing or damaged.
        """
        facts = read_json(models / FACTORY)
        self.window, self.spacing = tuple(facts["window"]), tuple(facts["spacing"])
        self.factory = LabelFactory(
            load_generator(models / MODEL, device),
            load_interpreter(models / INTERPRETER, device),
            Sampling(**facts["sampling"]),
            device,
        )

    def write(self, folder: str, num: int, first: int = 0) -> Path:
        """Write pairs as `images/generated-….nii.gz` in HU, `labels/…` and `pairs.json`.

        Args:
            folder: to make.
            num: pairs.
            first: number of the first pair.

        Raises:
            MedsegError: no pair was asked for, the folder holds something, or the disk is full.
        """
        if num < 1 or first < 0:
            raise MedsegError(f"num is {num} and first {first}; wanted at least 1 and 0")
        out, pairs = Path(folder), []
        start = FIRST_INDEX["train"] + first
        with new_folder(out) as temporary:
            (temporary / "images").mkdir()
            (temporary / "labels").mkdir()
            for begin in range(start, start + num, PART):
                indices = range(begin, min(begin + PART, start + num))
                made = self.factory.label(indices)
                images = to_hu(made.images[:, 0].numpy(), self.window)
                for index, image, label, score in zip(indices, images, made.labels, made.scores, strict=True):
                    self._write_pair(temporary, f"generated-{index:010d}", image, label.numpy())
                    pairs.append({"name": f"generated-{index:010d}", "uncertainty": round(float(score), 6)})
            write_json(temporary / "pairs.json", {"synthetic": True, "notice": "research only", "pairs": pairs})
        return out

    def _write_pair(self, folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
        words = "SYNTHETIC, drawn by a GAN, research only"
        nibabel.save(to_nifti(image, self.spacing, f"{words}; CT, HU"), folder / "images" / f"{name}.nii.gz")
        nibabel.save(to_nifti(label, self.spacing, f"{words}; labels"), folder / "labels" / f"{name}.nii.gz")


def _copy_interpreter(source: Path, target: Path) -> None:
    """The files that `load_interpreter` reads, and no others."""
    plan = read_json(source / "interpreter.json")
    for name in (*plan["classifiers"], *plan.get("joint_networks", ()), *plan["image_networks"]):
        check_name(name, source / "interpreter.json")
    target.mkdir()
    shutil.copyfile(source / "interpreter.json", target / "interpreter.json")
    for name in (*plan["classifiers"], *plan.get("joint_networks", ())):
        shutil.copyfile(source / name, target / name)
    for name in plan["image_networks"]:
        (target / name).mkdir()
        weights = picked_weights(source / name)
        for file in (FINISHED, weights.name):
            shutil.copyfile(source / name / file, target / name / file)


_INFERENCE: dict[str, Any] = {
    "bundle_root": ".",
    "output_dir": "$@bundle_root + '/generated'",
    "num": 16,
    "first": 0,
    "device": "$'cuda' if torch.cuda.is_available() else 'cpu'",
    "factory": {
        "_target_": "medseg_gan.systems.datasetgan.export.bundle.open_factory",
        "models": "$@bundle_root + '/models'",
        "device": "@device",
    },
    "run": ["$@factory.write(@output_dir, @num, @first)"],
}


def _metadata(size: int, classes: Sequence[str], z_dim: int) -> dict[str, Any]:
    shape = {"spatial_shape": [size, size], "is_patch_data": False}
    ids = {str(number): name for number, name in enumerate(classes)}
    image = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1, "dtype": "int16", **shape}
    label = {
        "type": "image",
        "format": "segmentation",
        "num_channels": 1,
        "dtype": "uint8",
        "channel_def": ids,
        **shape,
    }
    latent = {"type": "noise", "format": "latent", "num_channels": z_dim, "spatial_shape": [1], "dtype": "float32"}
    return {
        "required_packages_version": {"medseg-gan": __version__, "fire": "0.7.1"},
        "label_classes": ", ".join(f"{number} {name}" for number, name in ids.items()),
        "network_data_format": {"inputs": {"latent": latent}, "outputs": {"image": image, "label": label}},
    }
