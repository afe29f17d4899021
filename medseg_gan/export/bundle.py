"""MONAI bundles: configurations, weights and facts in the folders that `python -m monai.bundle run` expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg_gan import __version__
from medseg_gan.data.transforms import OUTSIDE_HU
from medseg_gan.data.volumes import HU_RANGE
from medseg_gan.export.card import RESEARCH_ONLY, Card, write_card
from medseg_gan.export.folder import new_folder
from medseg_gan.machine.atomic import atomic_path, write_json, write_text
from medseg_gan.machine.checkpoint import plain

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
APACHE = "Apache License 2.0, see https://www.apache.org/licenses/LICENSE-2.0, for the code and configurations.\n"
MODEL = "model.pt"


def write_bundle(
    out: Path,
    card: Card,
    *,
    inference: Mapping[str, Any],
    metadata: Mapping[str, Any],
    write_models: Callable[[Path], None],
) -> Path:
    """Write a bundle: `configs/`, `models/`, `docs/`, `LICENSE`, `card.json`.

    Args:
        out: folder to make.
        card: facts about what it holds.
        inference: `configs/inference.json`, with `run`.
        metadata: of `configs/metadata.json`, what `base_metadata` does not know.
        write_models: writes the weights into the folder it is given.

    Raises:
        MedsegError: the disk is full.
    """
    with new_folder(out) as folder:
        (folder / "models").mkdir()
        write_models(folder / "models")
        write_json(folder / "configs" / "inference.json", inference)
        write_json(folder / "configs" / "metadata.json", {**base_metadata(card), **metadata})
        write_text(folder / "docs" / "data_license.txt", card.licence + "\n")
        write_text(folder / "LICENSE", APACHE)
        write_card(folder, card, readme="docs/README.md")
    return out


def base_metadata(card: Card) -> dict[str, Any]:
    """What the metadata of all our bundles says."""
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "nibabel": version("nibabel"),
            "pytorch-ignite": version("pytorch-ignite"),
            "fire": "0.7.1",  # of `python -m monai.bundle`
        },
        "name": card.title,
        "task": card.title,
        "description": card.summary,
        "authors": "made by a run of medseg-gan",
        "copyright": card.licence,
        "intended_use": RESEARCH_ONLY,
        "data_source": ", ".join(f"{name}: {value}" for name, value in card.made_from.items()),
        "data_type": "nibabel",
        "synthetic": card.synthetic,
        "notices": list(card.notices),
    }


def write_segmenter_bundle(
    out: Path,
    network: nn.Module,
    arguments: Mapping[str, Any],
    card: Card,
    *,
    size: int,
    window: tuple[float, float],
    classes: Sequence[str],
    crop: float = 1.0,
    spacing: float | None = None,
) -> Path:
    """Write a trained segmenter as a bundle that labels CT volumes.

    It reads volumes in HU of any orientation, treats every slice as the run did, and writes labels on the volume's own
    grid. A U-Net needs MONAI alone; networks on ResNet need medseg-gan to be built.

    Args:
        out: folder to make.
        network: the trained network.
        arguments: of `build_segmenter`, with which it was built.
        card: facts about the network.
        size: pixels a side of what the network sees.
        window: HU at -1 and 1.
        classes: name of each class.
        crop: centred share of the field of view that the network sees.
        spacing: in-plane mm that volumes are resampled to first; None keeps each scan's own.
    """
    state = plain("model", {name: value.cpu().contiguous() for name, value in network.state_dict().items()})

    def write_models(folder: Path) -> None:
        with atomic_path(folder / MODEL) as temporary:
            torch.save(state, temporary)

    definition = network_definition(arguments)
    metadata: dict[str, Any] = {
        "image_classes": f"one channel, CT slices, {window[0]:g} to {window[1]:g} HU scaled to [-1, 1]",
        "label_classes": "one channel, class ids",
        "pred_classes": f"{len(classes)} channels, logits",
        "eval_metrics": dict(card.quality),
        "network_data_format": _data_format(size, classes, int(arguments.get("in_channels", 1))),
    }
    if definition["_target_"].startswith("medseg_gan."):
        packages = base_metadata(card)["required_packages_version"]
        metadata["required_packages_version"] = {**packages, "medseg-gan": __version__}
    return write_bundle(
        out,
        card,
        inference=segmenter_inference(definition, size=size, window=window, crop=crop, spacing=spacing),
        metadata=metadata,
        write_models=write_models,
    )


def network_definition(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI's configuration of a network of `build_segmenter`; a U-Net is named as the MONAI class it is."""
    width, channels = arguments.get("width", 16), arguments.get("in_channels", 1)
    shape = {"spatial_dims": 2, "in_channels": channels, "out_channels": arguments["num_classes"]}
    if arguments["name"] == "unet":
        levels = [width, 2 * width, 2 * width, 4 * width, 4 * width]
        layers = {"channels": levels, "strides": [1, 2, 2, 2], "norm": "batch", "act": "relu"}
        return {"_target_": "monai.networks.nets.UNet", **shape, **layers}
    if arguments["name"] == "basic_unet":
        levels = [width, 2 * width, 4 * width, 8 * width, 8 * width, width]
        layers = {"features": levels, "norm": "batch", "act": "relu", "upsample": "nontrainable"}
        return {"_target_": "monai.networks.nets.BasicUNet", **shape, **layers}
    return {"_target_": "medseg_gan.networks.segmenters.build_segmenter", **arguments}


def segmenter_inference(
    definition: Mapping[str, Any], *, size: int, window: tuple[float, float], crop: float, spacing: float | None
) -> dict[str, Any]:
    """`configs/inference.json` of a segmenter, with the run's own preprocessing and its inverse."""
    inverse = {"keys": "pred", "orig_keys": "image", "transform": "@preprocessing", "nearest_interp": True}
    files = {"output_dir": "@output_dir", "output_postfix": "seg", "resample": False, "separate_folder": False}
    weights = {"load_path": f"$@bundle_root + '/models/{MODEL}'", "load_dict": {"model": "@network"}}
    return {
        "imports": ["$import glob", "$import monai", "$import numpy as np"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(definition),
        "network": "$@network_def.to(@device)",
        **_preparation(size, window, crop, spacing),
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SliceInferer", "roi_size": [size, size], "sw_batch_size": 8, "spatial_dim": 2},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "Invertd", **inverse},
                {"_target_": "SaveImaged", "keys": "pred", "output_dtype": "$np.uint8", **files},
            ],
        },
        "handlers": [{"_target_": "CheckpointLoader", "map_location": "@device", **weights}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _preparation(size: int, window: tuple[float, float], crop: float, spacing: float | None) -> dict[str, Any]:
    """What `build_preprocessing` and the slice store do to a volume, in MONAI's words: the network sees the same.

    How slices are padded and resized depends on the volume, which no transform of MONAI can be told; the two classes
    are made in the configuration, so that a U-Net needs MONAI alone.
    """
    low, high = window
    turn = {"_target_": "Orientationd", "keys": "image", "labels": [["L", "R"], ["P", "A"], ["I", "S"]]}
    call = {"_target_": "Lambdad", "keys": "image"}
    steps: list[Any] = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {**turn, "axcodes": "LPS"},
        {**call, "func": f"$lambda x: x.clamp({HU_RANGE[0]}, {HU_RANGE[1]})"},
    ]
    if spacing is not None:
        steps.append({"_target_": "Spacingd", "keys": "image", "pixdim": [spacing, spacing, -1]})
    steps += [
        {**call, "func": "@require_square_pixels"},
        {"_target_": "Padd", "keys": "image", "padder": f"$@PadToSquare(value={OUTSIDE_HU})"},
    ]
    if crop < 1:
        steps.append({"_target_": "CenterScaleCropd", "keys": "image", "roi_scale": [crop, crop, 1.0]})
    steps += [
        f"$@ResizeSlicesd('image', ({size}, {size}, -1))",
        {**call, "func": "$lambda x: x.round()"},
        {**turn, "axcodes": "PLS"},  # rows to the back, columns to the left: a slice is then as the network saw it
        {**call, "func": f"$lambda x: ((x - {low!r}) * {2 / (high - low)!r} - 1).clamp(-1, 1)"},
    ]
    return {
        "require_square_pixels": "$lambda x: torch._assert(abs(x.pixdim[0] - x.pixdim[1]) <= 0.02 * max(x.pixdim[:2]), "
        "'pixels must be square, resample the volume') or x",
        "PadToSquare": "$type('PadToSquare', (monai.transforms.Pad,), {'compute_pad_width': lambda self, shape: "
        "((0, 0), *((m // 2, m - m // 2) for m in (int(max(shape[:2]) - side) for side in shape[:2])), (0, 0))})",
        "ResizeSlicesd": "$type('ResizeSlicesd', (monai.transforms.Resized,), {'__call__': lambda self, data, lazy=None"
        ": {**data, 'image': self.resizer(data['image'], **(dict(mode='area') if data['image'].shape[1] % "
        f"{size} == 0 else dict(mode='trilinear', anti_aliasing=True)))}}}})",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
    }


def _data_format(size: int, classes: Sequence[str], channels: int) -> dict[str, Any]:
    common = {"spatial_shape": [size, size], "dtype": "float32", "is_patch_data": False}
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "hounsfield",
                "modality": "CT",
                "num_channels": channels,
                "value_range": [-1, 1],
                "channel_def": {str(k): "image" for k in range(channels)},
                **common,
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": len(classes),
                "value_range": [],
                "channel_def": {str(number): name for number, name in enumerate(classes)},
                **common,
            }
        },
    }
