"""Find the latent of a given slice or image, with images and figures that show how close it comes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from torch import Tensor

from medseg_gan import __version__
from medseg_gan.data.single_slice import is_picture, load_picture, load_slice
from medseg_gan.errors import UsageError
from medseg_gan.machine.atomic import write_json
from medseg_gan.sampling.files import save_picture, save_sheet
from medseg_gan.sampling.generate import out_folder
from medseg_gan.sampling.latents import Drawing, check_drawing, class_label
from medseg_gan.sampling.source import Source, discriminator_of, open_source
from medseg_gan.sampling.stored_latents import save_latents
from medseg_gan.training.feature_maps import DiscriminatorMaps, RandomMaps
from medseg_gan.training.log import Progress, say
from medseg_gan.training.projection import Projection, ProjectionSettings, Space, project

Features = Literal["random", "discriminator"]


def project_image(
    source: str | Path,
    image: str | Path,
    out: str | Path | None = None,
    *,
    space: Space = "w",
    steps: int = 500,
    seed: int = 0,
    index: int | None = None,
    class_id: int | None = None,
    features: Features = "random",
    noise_maps: bool = True,
    window: tuple[float, float] | None = None,
    device: str = "auto",
    say: Callable[[str], None] = say,
) -> Path:
    """Find the latent whose picture is nearest to a slice.

    Example:
        folder = project_image("runs/segthor_datasetgan-demo", "scan.nii.gz", index=40, space="w+")

    Args:
        source: a run folder or a weight file, see `open_source`.
        image: a picture file, or a volume (NIfTI, NRRD, MetaImage, DICOM), which is prepared as the run's slices were.
        out: folder of the results; None: `projected/<digest of the slice>-<space>`, in the run if there is one.
        space: `w` or `w+`, see `ProjectionSettings`.
        steps: of the search.
        seed: of its random numbers; the same seed gives the same result.
        index: slice of a volume, from 0 at the feet.
        class_id: of a conditional generator.
        features: `random` (frozen random convolutions) or `discriminator` (the one trained with the generator).
        noise_maps: whether the noise maps are searched too.
        window: HU at -1 and 1 for a volume; None: the run's.
        device: `auto`, `cpu` or `cuda`.
        say: prints a line.

    Returns:
        The folder with `target.png`, `projected.png`, `side_by_side.png` (target, projection, difference),
        `projected.pt` (for `generate_images(latents=...)`) and `projection.json`. They show the slice that was given:
        where it is a patient's, they belong with the patient's data.

    Raises:
        UsageError: arguments that contradict each other or the generator.
        MedsegError: an unusable file.
    """
    if not 1 <= steps <= 1_000_000:
        raise UsageError(f"--steps {steps}: wanted 1 to 1000000")
    found = open_source(source, device)
    check_drawing(found, Drawing(class_id=class_id))
    target, hu_range = load_target(found, Path(image).expanduser(), index, window)
    digest = hashlib.sha256(target.numpy().tobytes()).hexdigest()
    folder = out_folder(source, out, f"projected/{digest[:8]}-{space}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder")
    maps = RandomMaps() if features == "random" else DiscriminatorMaps(discriminator_of(found))
    settings = ProjectionSettings(space=space, steps=steps, seed=seed, noise_maps=noise_maps)
    with Progress(steps, "project", "step") as bar:

        def on_step(distance: float) -> None:
            bar.note(f"distance {distance:.4f}")
            bar.update()

        label = class_label(found, class_id)
        result = project(found.G, target.to(found.device), maps.to(found.device), settings, label, on_step)
    reached = figures(result, target, hu_range)
    _write(folder, found, target, result, space)
    record = {
        "version": 1,
        "medseg_gan": __version__,
        "source": found.identity(),
        "target_sha256": digest,
        "index": index,
        "class": class_id,
        "features": maps.name,
        "settings": asdict(settings),
        **reached,
        "history": result.history,
    }
    write_json(folder / "projection.json", record)
    say(f"{folder}: {in_words(reached)}")
    return folder


def load_target(
    source: Source, path: Path, index: int | None, window: tuple[float, float] | None
) -> tuple[Tensor, float | None]:
    """The slice as the generator would draw it.

    Returns:
        `(1, C, R, R)` in [-1, 1], and the HU between -1 and 1, None for a picture file.

    Raises:
        UsageError: the window is missing or makes no sense, or `index` or `window` is given for a picture.
        MedsegError: the file is not usable.
    """
    G = source.G
    if is_picture(path):
        if index is not None or window is not None:
            raise UsageError(f"{path} is an image; --index and --window are for volumes, leave them out")
        return load_picture(path, G.img_resolution, G.img_channels)[None], None
    used = window or (source.slices.window if source.slices else None)
    if used is None:
        raise UsageError(
            f"{source.path.name} does not say which HU it was trained on; give --window LOW HIGH, or a run"
        )
    if not (math.isfinite(used[0]) and math.isfinite(used[1]) and used[0] < used[1]):
        raise UsageError(f"--window {used[0]:g} {used[1]:g}: wanted two HU, the lower one first")
    crop, resampled = (source.slices.crop, source.slices.resampled) if source.slices else (1.0, None)
    image = load_slice(path, size=G.img_resolution, window=used, index=index, crop=crop, spacing=resampled)
    return image.expand(G.img_channels, -1, -1)[None].contiguous(), used[1] - used[0]


def figures(result: Projection, target: Tensor, hu_range: float | None) -> dict[str, float]:
    """How near the projection and, to compare, the mean picture come; pictures are clipped to [-1, 1] first.

    Returns:
        `mae` and `mae_mean_image` in [-1, 1], `psnr` in dB, and for volumes `mae_hu`, `mae_hu_mean_image`.
    """
    difference = result.image.cpu().clamp(-1, 1) - target
    at_start = (result.mean_image.cpu().clamp(-1, 1) - target).abs().mean().item()
    mae, mse = difference.abs().mean().item(), difference.square().mean().item()
    found = {"mae": mae, "mae_mean_image": at_start, "psnr": 10 * math.log10(4 / max(mse, 1e-12))}
    if hu_range is not None:
        found |= {"mae_hu": mae * hu_range / 2, "mae_hu_mean_image": at_start * hu_range / 2}
    return found


def in_words(reached: dict[str, float]) -> str:
    """`mean difference 21 HU (mean picture: 140 HU), PSNR 28.3 dB`."""
    if "mae_hu" in reached:
        text = f"mean difference {reached['mae_hu']:.0f} HU (mean picture: {reached['mae_hu_mean_image']:.0f} HU)"
    else:
        text = f"mean difference {reached['mae']:.3f} in [-1, 1] (mean picture: {reached['mae_mean_image']:.3f})"
    return f"{text}, PSNR {reached['psnr']:.1f} dB"


def _write(folder: Path, source: Source, target: Tensor, result: Projection, space: str) -> None:
    image = result.image.cpu()
    save_picture(folder / "target.png", target)
    save_picture(folder / "projected.png", image)
    difference = (image.clamp(-1, 1) - target).abs()  # black is none, white half the range and more
    save_sheet(folder / "side_by_side.png", [target, image, (2 * difference - 1).clamp(-1, 1)], 3)
    save_latents(folder / "projected.pt", source, result.ws, result.noise, space)
