"""Write procedural scenes of one object on a shelf or in a tray in the layout of the Amazon Picking Challenge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_gan.data.phantom import figures
from medseg_gan.data.phantom.figures import COLOURS, blend, blurred_field, draw_pose, paint
from medseg_gan.errors import MedsegError
from medseg_gan.machine.atomic import read_json, write_json
from medseg_gan.machine.pool import in_order
from medseg_gan.machine.seeding import numpy_rng

EDITION = 1  # rises whenever the same seed gives another picture
SURFACES = ("shelf", "tray")
FIGURES = {
    "carton": figures.carton,
    "ball": figures.disc,
    "scissors": figures.scissors,
    "bottle": figures.bottle,
    "cube": figures.square,
}
TEXTURES = {"stripes": figures.stripes, "dots": figures.dots, "patches": figures.patches}
OBJECTS = tuple(f"{texture}_{figure}" for texture in TEXTURES for figure in FIGURES)
AREA = (0.08, 0.24)  # part of the picture
NOISE = 0.012  # sd, of the full range
EMPTY = "scene-empty"


def draw_surface(rng: np.random.Generator, surface: str, colours: np.ndarray, size: int) -> np.ndarray:
    """A shelf's compartment or a tray as one camera sees it, `(size, size, 3)` float32.

    Args:
        rng: the camera's stream.
        surface: `shelf` or `tray`.
        colours: `(2, 3)` of the wall or floor, and of the boards or rim.
        size: pixels per side.
    """
    zoom, shift = rng.uniform(0.9, 1.1), rng.uniform(-0.06, 0.06, 2)
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * np.float32(zoom)
    x, y = (axis + np.float32(shift[0]))[None], (axis + np.float32(shift[1]))[:, None]
    if surface == "shelf":
        depth = np.maximum(np.maximum(np.abs(x) - 0.42, y - 0.36), -0.44 - y)  # walls, board below, board above
        shade = 0.9 + 0.2 * y
    else:
        depth = (np.abs(x) ** 4 + np.abs(y) ** 4) ** 0.25 - 0.43  # a rim with round corners
        shade = 1.0 + 0.03 * np.sin(60 * x) + 0 * y  # ribs of the floor
    image = (
        blend(colours[0], colours[1], np.clip(0.5 + depth * size, 0, 1))
        * np.broadcast_to(shade, depth.shape)[..., None]
    )
    return image + np.float32(0.025) * blurred_field(rng, size)[..., None]


def draw_frame(
    seed: int, surface: str, kind: int, scene: int | None, frame: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """One frame, a pure function of its arguments; another size shows the same.

    An object keeps its figure and texture, a scene its colours and light; the frames of a scene differ in pose and
    camera. Object and surface draw two colours each from one palette.

    Args:
        seed: of the set.
        surface: one of `SURFACES`.
        kind: of the object, a position in `OBJECTS`.
        scene: number of the scene; None for the empty one.
        frame: number within the scene.
        size: pixels per side.

    Returns:
        `(H, W, 3)` uint8 RGB and `(H, W)` uint8 mask (1 where the object covers at least half a pixel).
    """
    place = ("shelf", seed, surface, kind, -1 if scene is None else scene)
    rng, camera = numpy_rng(*place), numpy_rng(*place, frame)
    wall, board, first, second = COLOURS[rng.permutation(len(COLOURS))[:4]]
    light, phases = rng.uniform(0.8, 1.05), rng.uniform(0, 2 * np.pi, 3)
    figure = list(FIGURES.values())[kind % len(FIGURES)]
    texture = list(TEXTURES.values())[kind // len(FIGURES)]
    pose = draw_pose(camera, figure, area=AREA, shift=0.2, turn=180)
    image = draw_surface(camera, surface, np.stack([wall, board]), size)
    coverage = np.zeros((size, size), np.float32)
    if scene is not None:
        coverage, share = paint(figure, pose, texture, phases, size)
        image += coverage[..., None] * (blend(first, second, share) - image)
    image *= np.float32(light * camera.uniform(0.95, 1.05))
    image += np.float32(NOISE) * camera.standard_normal(image.shape, np.float32)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), (coverage >= 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """One scene to write: a plain value that travels to a worker process."""

    root: Path
    seed: int
    surface: str
    kind: int
    number: int | None
    frames: int
    size: int

    @property
    def folder(self) -> Path:
        """Where the frames lie."""
        name = EMPTY if self.number is None else f"scene-{self.number:04d}"
        return self.root / "training" / self.surface / OBJECTS[self.kind] / name


def write_scene(scene: Scene) -> None:
    """Write the frames of a scene, with masks unless it is empty."""
    masks = scene.folder / "masks"
    (scene.folder if scene.number is None else masks).mkdir(parents=True, exist_ok=True)
    for frame in range(scene.frames):
        image, mask = draw_frame(scene.seed, scene.surface, scene.kind, scene.number, frame, scene.size)
        if scene.number is not None:
            Image.fromarray(mask * np.uint8(255)).save(masks / f"frame-{frame:06d}.mask.png", compress_level=1)
        Image.fromarray(image).save(scene.folder / f"frame-{frame:06d}.color.png", compress_level=1)


def write_shelf_phantom(
    root: Path,
    *,
    seed: int = 0,
    objects: int = 10,
    scenes: int = 30,
    frames: int = 5,
    size: int = 64,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the scene phantom in the layout of the Amazon Picking Challenge; a complete one is kept.

    `root/training/<surface>/<object>/scene-XXXX/frame-NNNNNN.color.png` with `masks/frame-NNNNNN.mask.png`, and one
    `scene-empty` without masks for each object and surface.

    Args:
        root: folder to fill.
        seed: of the whole set.
        objects: kinds of object, at most `len(OBJECTS)`.
        scenes: of each object on each surface, besides the empty one.
        frames: of each scene.
        size: pixels per side.
        workers: processes.
        progress: called with (scenes done, scenes in all).

    Raises:
        MedsegError: more kinds of object than there are, or `root` holds a phantom of other settings.
    """
    if not 1 <= objects <= len(OBJECTS):
        raise MedsegError(f"{objects} kinds of object were asked for, the shelf phantom has 1 to {len(OBJECTS)}")
    settings = {
        "phantom": "shelf", "edition": EDITION, "seed": seed, "objects": objects, "scenes": scenes, "frames": frames,
        "size": size,
    }  # fmt: skip
    root = Path(root)
    record, complete = root / "phantom.json", {**settings, "complete": True}
    found = read_json(record) if record.exists() else settings
    if found == complete:
        return
    if found != settings:
        raise MedsegError(f"{root} holds a phantom of other settings; name another folder or remove that one")
    write_json(record, settings)
    todo = [
        Scene(root, seed, surface, kind, number, frames, size)
        for surface in SURFACES
        for kind in range(objects)
        for number in (None, *range(scenes))
    ]
    for done, _ in enumerate(in_order(write_scene, todo, workers), start=1):
        if progress:
            progress(done, len(todo))
    write_json(record, complete)
