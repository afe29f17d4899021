"""The StyleGAN2-ADA stage: train a generator on slices, save it, load it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from ignite.engine import Engine
from torch import Tensor
from torch.utils.data import Dataset

from medseg_gan.data.sampler import EndlessSampler, PatientBalancedSampler
from medseg_gan.errors import MedsegError, did_you_mean
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.machine.processes import count, is_first, launched, rank
from medseg_gan.machine.seeding import mix_seed, torch_generator
from medseg_gan.training.batches import ImageBatches
from medseg_gan.training.engine import Training, save_samples
from medseg_gan.training.stylegan2_curve import FrechetCurve
from medseg_gan.training.stylegan2_step import StyleGAN2Settings, StyleGAN2Step
from medseg_gan.training.stylegan2_watch import Watch, spread
from medseg_gan.training.warm_start import start_from
from stylegan2_ada_pytorch import AUGMENT_PIPES, Generator

GENERATOR = "G_ema.pt"
LATEST = "latest.pt"
SHEET = 32  # images on a sample sheet


def train_stylegan2(
    images: Tensor | Dataset[Any],
    groups: Sequence[str] | None,
    folder: Path,
    *,
    labels: Tensor | None = None,
    seed: int,
    device: str = "cpu",
    precision: str = "fp32",
    workers: int = 0,
    snapshot_kimg: float = 200.0,
    sample_kimg: float = 200.0,
    log_kimg: float = 0.1,
    metric_kimg: float = 0.0,
    metric_images: int = 500,
    use: Literal["latest", "best"] = "latest",
    keep: int = 2,
    init_from: str | Path | None = None,
    **settings: Any,
) -> None:
    """Train StyleGAN2-ADA and leave the averaged generator in `folder/G_ema.pt`.

    Called again after an interruption it goes on from the newest checkpoint; on the CPU the final weights are then
    bit-equal to those of an uninterrupted run. A finished folder is left as it is. Inside `processes.group` several
    processes, each calling it alike, share every batch.

    Args:
        images: `(N, C, H, W)` in [-1, 1], or a dataset of such `(C, H, W)` items (or dictionaries with `image`).
        groups: patient of each image, for batches balanced by patient; None: every image equally often.
        folder: gets `G_ema.pt`, `stats.jsonl`, `warnings.txt`, `tensorboard/`, `samples/*.png`, `checkpoint-*.pt`, and
            with a metric `best.pt` and `metric.json`.
        labels: `(N, c_dim)` of the images, one-hot or other numbers, for a conditional generator and discriminator;
            such as `torch.from_numpy(DatasetZip(path).labels)`.
        seed: of weights, order of the images and all draws.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        workers: reading processes for a dataset.
        snapshot_kimg: thousand images between checkpoints.
        sample_kimg: thousand images between sample sheets.
        log_kimg: thousand images between rows of the statistics.
        metric_kimg: thousand images between measurements of the Fréchet distance; 0: none.
        metric_images: generated images of a measurement.
        use: which weights become `G_ema.pt`: the last, or those of the least distance (the last are `latest.pt` then).
        keep: checkpoints kept.
        init_from: weights that G, D and G_ema begin with, see `start_from`; not read when a checkpoint is there.
        settings: fields of `StyleGAN2Settings`.

    Raises:
        MedsegError: unusable images, labels or sizes, a checkpoint of other settings, weights of other networks, a term
            that is not finite.
    """
    folder = Path(folder)
    if (folder / GENERATOR).is_file():
        return
    s = StyleGAN2Settings(**settings)
    first = check_images(images)
    check_settings(s)
    check_labels(labels, len(images))  # type: ignore[arg-type]
    if use == "best" and not metric_kimg:
        raise MedsegError("use best wants the Fréchet distance measured now and then; give metric_kimg")
    channels, resolution = first.shape[0], first.shape[-1]
    identity = asdict(s) | {"seed": seed, "precision": precision, "images": len(images)}  # type: ignore[arg-type]
    identity |= {"freeze_d": s.freeze_d or None, "init_from": str(init_from) if init_from else None}  # as if unsaid
    identity["d_architecture"] = None if s.d_architecture == "resnet" else s.d_architecture
    identity["c_dim"] = None if labels is None else labels.shape[1]

    keep_freed_memory()
    step = StyleGAN2Step(
        s, resolution=resolution, channels=channels, seed=seed, device=device, precision=precision, labels=labels
    )
    sheet = next(iter(image_batches(images, groups, SHEET, seed, 0, device)))["image"]
    real_spread = max(spread(sheet), 1e-9)
    watch = Watch(s)
    curve = FrechetCurve(step, images, number=metric_images, folder=folder) if metric_kimg else None
    training = Training(
        folder,
        step.objects(),
        identity,
        total=s.iterations,
        batch_size=s.batch_size,
        log_every=s.steps(log_kimg),
        snapshot_every=s.steps(snapshot_kimg),
        sample_every=s.steps(sample_kimg),
        samples=lambda: draw_samples(step),
        of_samples=lambda images: {"diversity": spread(images) / real_spread},
        measure=curve.measure if curve else None,
        measure_every=s.steps(metric_kimg),
        scalars=step.scalars,
        warn=watch.judge,
        extras={"best": curve} if curve else {},
        description="train_gan",
        keep=keep,
    )
    done = training.resume()
    if init_from and not done:
        start_from(Path(init_from), step.G, step.D, step.G_ema)
    watch.go_on(folder, done)
    if is_first():
        save_samples(folder / "samples" / "real.png", sheet)
    start, part = done * s.batch_size, (rank(), count())
    training.run(step, image_batches(images, groups, s.batch_size, seed, start, device, workers, labels, part), done)
    if is_first():
        last = s.iterations * s.batch_size
        if use == "best" and curve and curve.images_seen != last:
            save_generator(folder / LATEST, step.G_ema, images_seen=last)
            step.G_ema.load_state_dict(curve.weights)
            last = curve.images_seen
        save_generator(folder / GENERATOR, step.G_ema, images_seen=last)


def image_batches(
    images: Tensor | Dataset[Any],
    groups: Sequence[str] | None,
    batch_size: int,
    seed: int,
    start: int,
    device: str,
    workers: int = 0,
    labels: Tensor | None = None,
    part: tuple[int, int] = (0, 1),
) -> ImageBatches:
    """Endless batches from position `start` of the index stream of `seed`; `labels` and `part` as in `ImageBatches`."""
    stream_seed = mix_seed(seed, "order")
    if groups is None:
        indices: Any = EndlessSampler(len(images), stream_seed, start)  # type: ignore[arg-type]
    else:
        indices = PatientBalancedSampler(groups, stream_seed, start)
    return ImageBatches(images, indices, batch_size, device, workers, labels, part)


@torch.no_grad()
def draw_samples(step: StyleGAN2Step) -> Tensor:
    """The same latents through the averaged generator with its fixed noise: `(SHEET, C, H, W)`."""
    z = torch.randn(SHEET, step.settings.z_dim, generator=torch_generator(step.seed, "samples")).to(step.device)
    c = step.some_labels(SHEET, torch_generator(step.seed, "sample labels"))
    images = []
    for start in range(0, SHEET, step.batch_gpu):
        part = slice(start, start + step.batch_gpu)
        with autocast(step.device, step.precision):
            images.append(step.G_ema(z[part], None if c is None else c[part], noise_mode="const"))
    return torch.cat(images).float()


def save_generator(path: Path, G_ema: Generator, images_seen: int) -> None:
    """Write a generator as plain values and tensors: `init_kwargs`, `state_dict`, `images_seen`."""
    save_checkpoint(path, init_kwargs=G_ema.init_kwargs, state_dict=G_ema.state_dict(), images_seen=images_seen)


def load_generator(path: Path, device: str = "cpu") -> Generator:
    """Rebuild a generator of `save_generator`, or the `G_ema` of `convert_weights`, in eval mode, without gradients.

    Raises:
        MedsegError: the file is missing, cut off, or not a generator.
    """
    saved = load_checkpoint(path)
    if isinstance(networks := saved.get("networks"), dict):
        saved = networks["G_ema"] if isinstance(networks.get("G_ema"), dict) else {}
    missing = {"init_kwargs", "state_dict"} - saved.keys()
    if missing:
        raise MedsegError(
            f"{path} is no generator: it has no {', '.join(sorted(missing))}; wanted the {GENERATOR} of a run"
        )
    try:
        G = Generator(**saved["init_kwargs"])
        G.load_state_dict(saved["state_dict"])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MedsegError(f"{path}: the weights do not fit their generator ({reason}); train it again") from error
    return G.to(device).eval().requires_grad_(False)


def images_per_second(
    settings: StyleGAN2Settings,
    *,
    resolution: int = 64,
    channels: int = 1,
    device: str = "cpu",
    precision: str = "bf16",
    iterations: int = 32,
    warmup: int = 4,
) -> float:
    """Training speed on random images, lazy phases in their usual share; nothing is logged or saved.

    Args:
        settings: of the training to measure.
        resolution: side of the images.
        channels: channels of the images.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        iterations: measured steps; best a multiple of `r1_interval`.
        warmup: steps before.
    """
    keep_freed_memory()
    step = StyleGAN2Step(settings, resolution=resolution, channels=channels, seed=0, device=device, precision=precision)
    images = torch.rand(64, channels, resolution, resolution) * 2 - 1
    engine = Engine(step)
    engine.run(image_batches(images, None, settings.batch_size, 0, 0, device), epoch_length=warmup)
    wait(device)
    start = time.perf_counter()
    engine.run(image_batches(images, None, settings.batch_size, 0, 0, device), max_epochs=1, epoch_length=iterations)
    wait(device)
    return settings.batch_size * iterations / (time.perf_counter() - start)


def wait(device: str) -> None:
    """Let a GPU finish what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def check_settings(settings: StyleGAN2Settings) -> None:
    """Refuse batch sizes that cannot be cut evenly, and an unknown set of augmentations.

    Raises:
        MedsegError: a size does not divide another, or `ada_pipe` is not known.
    """
    if settings.ada_pipe not in AUGMENT_PIPES:
        meant = did_you_mean(settings.ada_pipe, AUGMENT_PIPES)
        raise MedsegError(f"ada_pipe {settings.ada_pipe} is not one of {', '.join(AUGMENT_PIPES)}{meant}")
    if launched() != count():
        raise MedsegError(f"torchrun started {launched()} processes, which work alone; call inside processes.group")
    s = settings
    if s.batch_size % count():
        raise MedsegError(f"batch_size {s.batch_size} cannot be shared by {count()} processes; choose a multiple")
    own = s.batch_size // count()
    part = s.batch_gpu or own
    if own % part:
        share = f" in each of {count()} processes" if count() > 1 else ""
        raise MedsegError(f"batch_size {own}{share} is not a multiple of batch_gpu {part}; choose one that divides it")
    group = min(s.mbstd_group, part)
    if part % group:
        raise MedsegError(f"{part} images at a time cannot be cut into groups of mbstd_group {group}; choose a divisor")


def check_labels(labels: Tensor | None, images: int) -> None:
    """Refuse labels that do not belong to the images.

    Raises:
        MedsegError: not one row of finite numbers for each image.
    """
    if labels is None:
        return
    if labels.ndim != 2 or len(labels) != images or not labels.shape[1]:
        raise MedsegError(f"labels have shape {tuple(labels.shape)}, wanted ({images}, c_dim), a row for each image")
    if not torch.isfinite(labels).all():
        raise MedsegError("labels hold values that are not finite; wanted one-hot rows or other numbers")


def check_images(images: Tensor | Dataset[Any]) -> Tensor:
    """Refuse images the networks cannot take; return the first.

    Raises:
        MedsegError: no images, a wrong shape, or values that are not finite or far from [-1, 1].
    """
    if len(images) == 0:  # type: ignore[arg-type]
        raise MedsegError("no images to train on; wanted at least one slice in the gan pool")
    item = images[0]
    first = torch.as_tensor(item["image"] if isinstance(item, dict) else item)
    height, width = first.shape[-2:]
    if first.ndim != 3 or height != width or height < 8 or height & (height - 1):
        raise MedsegError(f"images have shape {tuple(first.shape)}, wanted (C, H, W), square, a power of two from 8 on")
    seen = images if isinstance(images, Tensor) else first
    if not torch.isfinite(seen).all() or seen.abs().max() > 1.001:
        raise MedsegError("image values are not finite or outside [-1, 1]; window and scale them first")
    return first
