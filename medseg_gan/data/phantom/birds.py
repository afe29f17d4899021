"""Write procedural pictures of one textured figure each in the layout of CUB-200-2011 (Caltech birds)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_gan.data.phantom import figures
from medseg_gan.data.phantom.figures import COLOURS, blend, blurred_field, draw_pose, paint
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json, write_json, write_text
from medseg_gan.machine.pool import in_order
from medseg_gan.machine.seeding import numpy_rng

EDITION = 1  # rises whenever the same seed gives another picture
FIGURES = {"disc": figures.disc, "square": figures.square, "star": figures.star, "bird": figures.bird}
TEXTURES = {"stripes": figures.stripes, "dots": figures.dots, "patches": figures.patches}
CLASSES = tuple(f"{figure}_{texture}" for figure in FIGURES for texture in TEXTURES)
AREA = (0.10, 0.30)  # part of the picture
SHIFT = 0.18  # of the centre, sides of the picture
TURN = 25.0  # degrees
NOISE = 0.012  # sd, of the full range
BLOCK = 64  # pictures a process writes at a time


def draw_bird(seed: int, number: int, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """One picture, a pure function of seed and number; another size shows the same.

    Classes take turns with the number. Figure and background draw two colours each from one palette, independently
    of the class.

    Args:
        seed: of the set.
        number: of the picture, from 0.
        size: pixels per side.

    Returns:
        `(H, W, 3)` uint8 RGB, `(H, W)` uint8 mask (1 where the figure covers at least half a pixel), and the class,
        0 to 11.
    """
    rng, class_id = numpy_rng("bird", seed, number), number % len(CLASSES)
    figure = list(FIGURES.values())[class_id // len(TEXTURES)]
    texture = list(TEXTURES.values())[class_id % len(TEXTURES)]
    ground_a, ground_b, figure_a, figure_b = COLOURS[rng.permutation(len(COLOURS))[:4]]
    pose = draw_pose(rng, figure, area=AREA, shift=SHIFT, turn=TURN)
    phases, contrast, brightness = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.85, 1.1), rng.uniform(-0.06, 0.06)
    ground = blend(ground_a, ground_b, np.clip(0.5 + 0.35 * blurred_field(rng, size), 0, 1))
    coverage, share = paint(figure, pose, texture, phases, size)
    image = ground + coverage[..., None] * (blend(figure_a, figure_b, share) - ground)
    image = (image - 0.5) * np.float32(contrast) + np.float32(0.5 + brightness)
    image += np.float32(NOISE) * rng.standard_normal(image.shape, np.float32)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), (coverage >= 0.5).astype(np.uint8), class_id


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of a mask's foreground, pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def picture_name(number: int) -> str:
    """`<class>/<name>.png` of a picture, as `images.txt` has it."""
    class_id = number % len(CLASSES)
    return f"{class_id + 1:03d}.{CLASSES[class_id]}/{CLASSES[class_id]}_{number + 1:06d}.png"


@dataclass(frozen=True)
class Block:
    """Pictures that one process writes in one go."""

    root: Path
    seed: int
    size: int
    numbers: range


def write_block(block: Block) -> list[tuple[int, int, int, int]]:
    """Write pictures and segmentations; the boxes come back.

    Not by way of a temporary name: `images.txt` says that a set is complete, and a flush to disk for each of thousands
    of small files takes longer than drawing them.
    """
    boxes = []
    for number in block.numbers:
        image, mask, _ = draw_bird(block.seed, number, block.size)
        name = picture_name(number)
        Image.fromarray(mask * np.uint8(255)).save(block.root / "segmentations" / name, compress_level=1)
        Image.fromarray(image).save(block.root / "images" / name, compress_level=1)  # noise hardly compresses
        boxes.append(bounding_box(mask))
    return boxes


def write_birds_phantom(
    root: Path,
    *,
    seed: int = 0,
    train: int = 6000,
    val: int = 300,
    test: int = 400,
    size: int = 64,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the picture phantom in the layout of CUB-200-2011; a complete one is kept.

    Args:
        root: folder to fill.
        seed: of the whole set.
        train: pictures of the training split.
        val: pictures of the validation split.
        test: pictures of the test split.
        size: pixels per side.
        workers: processes.
        progress: called with (pictures done, pictures in all).

    Raises:
        MedsegError: `root` holds a phantom of other settings.
    """
    settings = {
        "phantom": "birds", "edition": EDITION, "seed": seed, "train": train, "val": val, "test": test, "size": size,
    }  # fmt: skip
    root, count = Path(root), train + val + test
    record = root / "phantom.json"
    if record.exists() and read_json(record) != settings:
        raise MedsegError(f"{root} holds a phantom of other settings; name another folder or remove that one")
    if (root / "images.txt").exists():  # written last
        return
    write_json(record, settings)
    for folder in {Path(picture_name(number)).parent for number in range(len(CLASSES))}:
        (root / "images" / folder).mkdir(parents=True, exist_ok=True)
        (root / "segmentations" / folder).mkdir(parents=True, exist_ok=True)
    blocks = [Block(root, seed, size, range(k, min(k + BLOCK, count))) for k in range(0, count, BLOCK)]
    boxes: list[tuple[int, int, int, int]] = []
    for part in in_order(write_block, blocks, workers):
        boxes += part
        if progress:
            progress(len(boxes), count)
    _write_lists(root, boxes, train, val)


def _write_lists(root: Path, boxes: list[tuple[int, int, int, int]], train: int, val: int) -> None:
    """The text files; ids count from 1, and `images.txt`, which makes the set complete, comes last."""
    splits = [0 if k < train else 1 if k < train + val else 2 for k in range(len(boxes))]
    lists = {
        "classes.txt": [f"{k + 1} {k + 1:03d}.{name}" for k, name in enumerate(CLASSES)],
        "image_class_labels.txt": [f"{k + 1} {k % len(CLASSES) + 1}" for k in range(len(boxes))],
        "bounding_boxes.txt": [f"{k + 1} {x:.1f} {y:.1f} {w:.1f} {h:.1f}" for k, (x, y, w, h) in enumerate(boxes)],
        "train_test_split.txt": [f"{k + 1} {int(split != 2)}" for k, split in enumerate(splits)],
        "train_val_test_split.txt": [f"{k + 1} {split}" for k, split in enumerate(splits)],
        "images.txt": [f"{k + 1} {picture_name(k)}" for k in range(len(boxes))],
    }
    for name, lines in lists.items():
        write_text(root / name, "\n".join(lines) + "\n")
