"""Amazon Picking Challenge 2016, training set for object segmentation (Zeng et al., 2017): shelf and tray scenes."""

from __future__ import annotations

import random
from pathlib import Path

from medseg_gan.data.pictures import FoundPictures, Picture, refuse_unmasked_test
from medseg_gan.data.splits import Split
from medseg_gan.errors import MedsegError

NAME = "Amazon Picking Challenge"
EMPTY = "scene-empty"
SHARE = 0.1  # of the scenes for val, and again for test
IMAGE_ENDING, MASK_ENDING = ".color.png", ".mask.png"


def holds_apc(root: Path) -> bool:
    """Whether a folder, or `training` in it, has scenes two levels down."""
    return next(_base(root).glob("*/*/scene-*"), None) is not None


def _base(root: Path) -> Path:
    return root / "training" if (root / "training").is_dir() else root


def find_apc(root: Path) -> FoundPictures:
    """Frames of `training/<surface>/<object>/scene-*/frame-*.color.png`, masks in `scene-*/masks/frame-*.mask.png`.

    `root` is `training` or the folder above. Frames of `scene-empty` have no mask and are all background. The split is
    by scene, as GENESIS-V2 (Engelcke et al., 2021) has it: sorted, shuffled with seed 0, the first tenth val, the next
    test, the rest train. A class is an object; empty scenes have none.

    Raises:
        MedsegError: fewer than three scenes, a scene without frames, or test frames without masks.
    """
    base = _base(root)
    scenes = sorted(path.relative_to(base).as_posix() for path in base.glob("*/*/scene-*") if path.is_dir())
    if len(scenes) < 3:
        raise MedsegError(f"{base} has {len(scenes)} scenes, wanted at least 3 as <surface>/<object>/scene-XXXX")
    classes = tuple(sorted({scene.split("/")[1] for scene in scenes}))
    splits = cut_scenes(scenes)
    pictures = []
    for scene in scenes:
        folder = base / scene
        empty = folder.name == EMPTY
        frames = sorted(folder.glob(f"frame-*{IMAGE_ENDING}"))
        if not frames:
            raise MedsegError(f"{folder} has no frame-*{IMAGE_ENDING}; copy the scene again or remove its folder")
        for frame in frames:
            mask = folder / "masks" / f"{frame.name.removesuffix(IMAGE_ENDING)}{MASK_ENDING}"
            pictures.append(
                Picture(
                    name=frame.relative_to(root).as_posix(),
                    image=frame,
                    mask=mask if not empty and mask.is_file() else None,
                    split=splits[scene],
                    class_id=None if empty else classes.index(folder.parent.name),
                    empty=empty,
                    threshold=0.0,
                )
            )
    refuse_unmasked_test(pictures, base)
    return FoundPictures(pictures, NAME, classes)


def cut_scenes(scenes: list[str]) -> dict[str, Split]:
    """Split of each scene; at least one scene each for val and test."""
    order = sorted(scenes)
    random.Random(0).shuffle(order)
    share = max(int(SHARE * len(order)), 1)
    return {scene: "val" if k < share else "test" if k < 2 * share else "train" for k, scene in enumerate(order)}
