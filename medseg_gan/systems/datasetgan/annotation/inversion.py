"""No painting: real labelled slices as latents of the generator, so that their own masks teach the interpreter."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.slices import SliceRecord, SliceStore, to_hu, write_store
from medseg_gan.errors import MedsegError
from medseg_gan.losses.projection import feature_distance, pyramid_distance
from medseg_gan.machine.atomic import read_json, save_png, write_array, write_json
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.seeding import mix_seed
from medseg_gan.running.stages import Inputs
from medseg_gan.systems.datasetgan.draws import draw_real_slices
from medseg_gan.systems.datasetgan.recipe import Annotate, FewSlices, Inversion, Prepare
from medseg_gan.systems.datasetgan.samples.images import ImageSource, Rendered, save_latents
from medseg_gan.training.feature_maps import RandomMaps
from medseg_gan.training.grid import image_grid
from medseg_gan.training.log import say
from medseg_gan.training.pool import process_count, run_jobs
from medseg_gan.training.projection import ProjectionSettings, project, w_statistics
from medseg_gan.training.stylegan2 import load_generator

RECORD = "inversion.json"
"""In the stage's folder: which slices were inverted, how far each reconstruction is off, and its weight."""

TOGETHER = 8
"""Slices projected at once, and what an interruption can lose."""

PIXEL_WEIGHT = ProjectionSettings.pixel_weight


def draw_few(config: FewSlices, store: SliceStore, seed: int) -> np.ndarray:
    """The few real slices of the first segmenter seed: those that are inverted, and then of every segmenter seed.

    Raises:
        MedsegError: the labelled pool has too few patients.
    """
    few = {"few_patients": config.few_patients, "few_slices": config.few_slices}
    return draw_real_slices(store, seed=seed, draw=0, num_real=0, val_slices=0, **few).few


def choose_slices(config: Annotate, few_slices: FewSlices, store: SliceStore, seed: int) -> np.ndarray:
    """Positions of the `num_images` real labelled slices to invert, evenly from `draw_few`.

    Raises:
        MedsegError: there are not so many.
    """
    if not len(store.indices("labelled", labelled=True)):
        raise MedsegError(
            "annotate.annotator=inversion needs real slices with masks and the labelled pool has none; "
            "give labelled patients, or use another annotate.annotator"
        )
    few = draw_few(few_slices, store, seed)
    wanted = config.num_images
    if len(few) < wanted:
        patients = len({store.records[k].patient for k in few.tolist()})
        raise MedsegError(
            f"annotate.annotator=inversion wants {wanted} real labelled slices (annotate.num_images); "
            f"train_segmenters.few_patients={few_slices.few_patients} and few_slices={few_slices.few_slices} give "
            f"{len(few)} of {patients} patients; raise those if there are more, or lower annotate.num_images"
        )
    return few[((np.arange(wanted) + 0.5) * len(few) / wanted).astype(int)]


@dataclass(frozen=True)
class Errors:
    """How far reconstructions are from their slices.

    Attributes:
        relative: `(N,)` distance as a share of the mean picture's: 0 is the slice itself, 1 no better than the mean.
        feature: `(N,)` distance in the projection's feature maps.
        pixel: `(N,)` mean squared difference over scales, images in [-1, 1].
        mean_difference: `(N,)` mean absolute difference in [-1, 1].
    """

    relative: np.ndarray
    feature: np.ndarray
    pixel: np.ndarray
    mean_difference: np.ndarray


@torch.no_grad()
def reconstruction_errors(images: Tensor, real: Tensor, mean_image: Tensor) -> Errors:
    """Measure reconstructions, in the distance that the projection made small.

    Args:
        images: `(N, 1, R, R)` reconstructions in [-1, 1].
        real: `(N, 1, R, R)` the slices.
        mean_image: `(1, 1, R, R)` of the mean latent.
    """
    maps = RandomMaps().to(images.device)
    wanted = maps(real)

    def parts(shown: Tensor) -> tuple[Tensor, Tensor]:
        return feature_distance(maps(shown), wanted), pyramid_distance(shown, real)

    feature, pixel = parts(images)
    worst_feature, worst_pixel = parts(mean_image.clamp(-1, 1).expand_as(real))
    relative = (feature + PIXEL_WEIGHT * pixel) / (worst_feature + PIXEL_WEIGHT * worst_pixel).clamp_min(1e-12)
    difference = (images - real).abs().mean(dim=(1, 2, 3))
    return Errors(*(values.cpu().numpy().astype(float) for values in (relative, feature, pixel, difference)))


def example_weights(errors: np.ndarray, max_error: float, max_repeats: int) -> np.ndarray:
    """How often each slice counts as an example: never above `max_error`, more often the nearer it came.

    Args:
        errors: `(N,)` as `Errors.relative`.
        max_error: the largest that is used.
        max_repeats: a slice counts as often as the median error of those used holds its own, up to this; 1: all alike.

    Returns:
        `(N,)` integers.

    Raises:
        MedsegError: none is left.
    """
    used = errors <= max_error
    if not used.any():
        raise MedsegError(
            f"annotate: all {len(errors)} real slices have reconstruction errors above annotate.inversion.max_error "
            f"{max_error:g} ({errors.min():.2f} to {errors.max():.2f}; 1 is the mean picture); train the GAN longer, "
            "raise annotate.inversion.steps or max_error"
        )
    ratio = np.median(errors[used]) / np.maximum(errors, 1e-12)
    return np.where(used, np.clip(np.round(ratio), 1, max_repeats), 0).astype(int)


def invert(
    folder: Path, source: ImageSource, generator: Path, real: Tensor, indices: np.ndarray, steps: int, workers: int
) -> Rendered:
    """Project slices into W+ of the generator, some at a time; parts that are there are kept.

    The stored noise maps stay, so that image and features are those of the latent alone.

    Args:
        folder: receives the latents of each part.
        source: of the generator, which renders what was found.
        generator: its file, for other processes.
        real: `(N, 1, R, R)` in [-1, 1].
        indices: `(N,)` what the slices are called in the result.
        steps: of each search.
        workers: processes, 0 for one per core.

    Returns:
        The reconstructions, rendered as generated images are, with their features.
    """
    settings = ProjectionSettings(
        space="w+", steps=steps, noise_maps=False, seed=mix_seed(source.sampling.seed, "inversion")
    )
    parts = real.split(TOGETHER)
    jobs = {
        f"part {number}": {
            "path": folder / f"part-{number:02d}.pt",
            "generator": generator,
            "real": part.clone(),
            "settings": settings,
            "about": _about(source, settings, part),
            "device": source.device,
        }
        for number, part in enumerate(parts)
    }
    found = run_jobs(_project_part, jobs, process_count(workers, source.device), "annotate: inversion")
    return source.render_ws(torch.cat([found[name] for name in jobs]), torch.from_numpy(np.asarray(indices)))


def invert_labelled_slices(
    config: Annotate, folder: Path, source: ImageSource, store: SliceStore, inputs: Inputs
) -> dict[str, Any]:
    """The annotator `inversion`: leave reconstructions with real masks in `annotated`, and say what they cost.

    Beside them: `latents.pt`, which renders them again, `weights.npy`, how often each counts as an example,
    `reconstructions.png` (real, reconstruction, difference) and `inversion.json` with every slice's error.

    Returns:
        Who annotated, for `annotator.json`.

    Raises:
        MedsegError: too few real labelled slices, or no reconstruction is near enough.
    """
    chosen = choose_slices(config, inputs.section(FewSlices), store, inputs.seed)
    real, how = store.image_tensor(chosen), config.inversion
    generator = inputs.folders["train_gan"] / "G_ema.pt"
    workers = inputs.section(Prepare).workers
    found = invert(folder / "projected", source, generator, real, chosen, how.steps, workers)
    errors = reconstruction_errors(found.images.cpu(), real, mean_image(source))
    _save_sheet(folder / "reconstructions.png", real, found.images.cpu())
    per_slice = keep_examples(folder / "annotated", store, source, found, errors, how)
    patients = sorted({store.records[k].patient for k in chosen.tolist()})
    kept = sum(1 for item in per_slice if item["weight"])
    write_json(
        folder / RECORD,
        {"slices": chosen.tolist(), "patients": patients, "settings": how.model_dump(), "errors": per_slice},
    )
    say(
        f"annotate: {kept} of {len(chosen)} real slices inverted, error {np.median(errors.relative):.2f} at the median "
        f"(1 is the mean picture), up to {errors.relative.max():.2f}"
    )
    dropped = {f"reconstruction error above {how.max_error:g}": len(chosen) - kept} if kept < len(chosen) else {}
    whose = f"{len(patients)} patients" if len(patients) > 1 else "1 patient"
    return {
        "kind": "inversion",
        "who": f"real masks of {len(chosen)} slices of {whose}, inverted",
        "real_slices": len(chosen),
        "real_patients": len(patients),
        "sampled": len(chosen),
        "rejected": dropped,
    }


def keep_examples(
    folder: Path, store: SliceStore, source: ImageSource, found: Rendered, errors: Errors, how: Inversion
) -> list[dict[str, Any]]:
    """Write the reconstructions that are near enough, with the masks of their slices.

    Args:
        folder: of the new store.
        store: of the real slices.
        source: that rendered the reconstructions.
        found: all of them; `indices` are positions in `store`.
        errors: of each.
        how: what is dropped and repeated.

    Returns:
        Position, patient, errors and weight of each slice, dropped ones as well.

    Raises:
        MedsegError: none is near enough.
    """
    weights = example_weights(errors.relative, how.max_error, how.max_repeats)
    used = np.flatnonzero(weights)
    kept = found.take(torch.from_numpy(used))
    positions, images = found.indices.numpy()[used], kept.images.cpu()
    low, high = store.window
    labels = np.array(store.labels[positions])
    save_latents(folder / "latents.pt", source, kept)
    write_array(folder / "weights.npy", weights[used].astype(np.int64))
    spacing = store.typical_spacing()
    records = [
        SliceRecord(f"inverted-{k:06d}", store.records[k].patient, 0, spacing, None, "generated", True)
        for k in positions.tolist()
    ]
    write_store(folder, to_hu(images[:, 0].numpy(), store.window), labels, records, store.window, store.table)
    values = {name: array.tolist() for name, array in asdict(errors).items() if name != "mean_difference"}
    values["mean_difference_hu"] = (errors.mean_difference * (high - low) / 2).tolist()
    return [
        {
            "slice": int(position),
            "patient": store.records[position].patient,
            **{name: round(array[number], 5) for name, array in values.items()},
            "weight": int(weights[number]),
        }
        for number, position in enumerate(found.indices.tolist())
    ]


def teaching_examples(
    folder: Path, rendered: Rendered, labels: Tensor, store: SliceStore, image_from: str
) -> tuple[Rendered, Tensor]:
    """What the interpreter learns from inverted slices.

    Args:
        folder: written by `keep_examples`.
        rendered: its latents, rendered again.
        labels: `(N, R, R)` its masks.
        store: of the real slices.
        image_from: which image U-Nets on the image alone see, `real` or `reconstruction`.

    Returns:
        Images, features and labels, each slice as often as its weight says.
    """
    if image_from == "real":
        real = store.image_tensor(rendered.indices.numpy()).to(rendered.images.device)
        rendered = replace(rendered, images=real)
    weights = np.load(folder / "weights.npy", allow_pickle=False)
    if (weights == 1).all():
        return rendered, labels
    rows = torch.from_numpy(np.repeat(np.arange(len(weights)), weights))
    return rendered.take(rows), labels[rows]


def inverted_slices(folder: Path) -> np.ndarray | None:
    """Positions of the real slices that the stage in `folder` inverted; None where it did something else."""
    path = folder / RECORD
    return np.array(read_json(path)["slices"], np.int64) if path.is_file() else None


@torch.no_grad()
def mean_image(source: ImageSource) -> Tensor:
    """The picture `(1, 1, R, R)` of the mean latent, on the CPU: where every projection begins."""
    mean, _ = w_statistics(source.G, ProjectionSettings(), None)
    image: Tensor = source.G.synthesis(mean.expand(-1, source.G.num_ws, -1), noise_mode="const")
    return image.float().cpu()


def _about(source: ImageSource, settings: ProjectionSettings, part: Tensor) -> dict[str, Any]:
    """What the latents of one part depend on."""
    digest = hashlib.sha256(part.contiguous().numpy().tobytes()).hexdigest()
    return {"weights_sha256": source.weights_sha256, "real_sha256": digest, "settings": asdict(settings)}


def _project_part(
    path: Path,
    generator: Path,
    real: Tensor,
    settings: ProjectionSettings,
    about: Mapping[str, Any],
    device: str,
) -> Tensor:
    """Latents `(n, num_ws, w_dim)` of some slices, kept in a file; a job of its own, so importable by name."""
    if path.is_file():
        stored = load_checkpoint(path)
        if stored.get("about") == about:
            return stored["ws"]
    G = load_generator(generator, device).eval().requires_grad_(False)
    ws = project(G, real.to(device), RandomMaps().to(device), settings).ws.cpu()
    save_checkpoint(path, about=dict(about), ws=ws)
    return ws


def _save_sheet(path: Path, real: Tensor, images: Tensor) -> None:
    """Four slices a row: real, reconstruction, difference (black is none, white half the range and more)."""
    difference = (2 * (images - real).abs() - 1).clamp(-1, 1)
    save_png(path, image_grid(torch.stack([real, images, difference], dim=1).flatten(0, 1), 12))
