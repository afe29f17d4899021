"""The StyleGAN2-ADA stage: train a generator on slices, save it, load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medseg_gan.data.sampler import EndlessSampler, PatientBalancedSampler
from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.machine.processes import count, is_first, launched, rank
from medseg_gan.machine.seeding import mix_seed, torch_generator
from medseg_gan.training.batches import ImageBatches
from medseg_gan.training.engine import Handler, run_training
from medseg_gan.training.handlers import Advice, Checkpoints, Measurement, Rows, SampleGrid, save_samples
from medseg_gan.training.stylegan2_config import StyleGAN2Training
from medseg_gan.training.stylegan2_curve import FrechetCurve
from medseg_gan.training.stylegan2_step import StyleGAN2Step
from medseg_gan.training.stylegan2_watch import StyleGAN2Watch, spread
from medseg_gan.training.warm_start import start_from, take_generator
from stylegan2_ada_pytorch import Generator

GENERATOR = "G_ema.pt"
LATEST = "latest.pt"
SHEET = 32  # images on a sample sheet


def train_stylegan2(
    section: StyleGAN2Training,
    images: Tensor | Dataset[Any],
    groups: Sequence[str] | None,
    folder: Path,
    *,
    seed: int,
    device: str = "cpu",
    precision: str = "fp32",
    labels: Tensor | None = None,
    workers: int = 0,
    log_kimg: float = 0.1,
    keep: int = 2,
) -> None:
    """Train StyleGAN2-ADA and leave the averaged generator in `folder/G_ema.pt`.

    Called again after an interruption it goes on from the newest checkpoint; on the CPU the final weights are then
    bit-equal to those of an uninterrupted run. A finished folder is left as it is. Inside `processes.group` several
    processes, each calling it alike, share every batch.

    Args:
        section: all settings of the training.
        images: `(N, C, H, W)` in [-1, 1], or a dataset of such `(C, H, W)` items (or dictionaries with `image`).
        groups: patient of each image, for batches balanced by patient; None: every image equally often.
        folder: gets `G_ema.pt`, `stats.jsonl`, `warnings.txt`, `tensorboard/`, `samples/*.png`, `checkpoint-*.pt`, and
            with a metric `best.pt` and `metric.json`.
        seed: of weights, order of the images and all draws.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        labels: `(N, c_dim)` of the images, one-hot or other numbers, for a conditional generator and discriminator;
            such as `torch.from_numpy(DatasetZip(path).labels)`.
        workers: reading processes for a dataset.
        log_kimg: thousand images between rows of the statistics.
        keep: checkpoints kept.

    Raises:
        MedsegError: unusable images, labels or weights, a checkpoint of other settings, a term that is not finite.
    """
    folder, s = Path(folder), section
    if is_trained(folder, s):
        return
    channels, resolution, _ = check_input(s, images, labels).shape
    if not s.total_kimg:
        return save_taken(folder, s, resolution, channels)
    keep_freed_memory()
    step = StyleGAN2Step(
        s, resolution=resolution, channels=channels, seed=seed, device=device, precision=precision, labels=labels
    )
    curve = FrechetCurve(step, images, number=s.metric_images, folder=folder) if s.metric_kimg else None
    if s.init_from and latest_checkpoint(folder, most=s.iterations * s.batch_size) is None:
        start_from(Path(s.init_from).expanduser(), step.G, step.D, step.G_ema)
    sheet = real_sheet(images, groups, folder, seed, device)

    def batches(done: int) -> ImageBatches:
        part = (rank(), count())
        return image_batches(images, groups, s.batch_size, seed, done * s.batch_size, device, workers, labels, part)

    handlers = attached(step, curve, sheet, log_kimg, keep)
    run_steps(step, batches, handlers, curve, folder, len(images))  # type: ignore[arg-type]
    save_result(folder, step, curve)


def save_taken(folder: Path, section: StyleGAN2Training, resolution: int, channels: int) -> None:
    """Without training, the generator of `init_from` is the result as it is."""
    assert section.init_from, "a section without length has one"
    taken = take_generator(Path(section.init_from).expanduser(), resolution, channels)
    if is_first():
        save_generator(folder / GENERATOR, taken, images_seen=0)


def real_sheet(
    images: Tensor | Dataset[Any], groups: Sequence[str] | None, folder: Path, seed: int, device: str
) -> Tensor:
    """Real images as a training sees them, `(SHEET, C, H, W)`, written beside the samples."""
    sheet = next(iter(image_batches(images, groups, SHEET, seed, 0, device)))["image"]
    if is_first():
        save_samples(folder / "samples" / "real.png", sheet)
    return sheet


def attached(
    step: StyleGAN2Step, curve: FrechetCurve | None, real: Tensor, log_kimg: float, keep: int
) -> list[Handler]:
    """What is attached to the training, in its order; `real` are images whose diversity that of samples is shown by."""
    s, real_spread = step.settings, max(spread(real), 1e-9)
    return [
        Advice(StyleGAN2Watch(s)),
        Rows(s.steps(log_kimg)),
        SampleGrid(
            lambda: draw_samples(step),
            s.steps(s.sample_kimg),
            values=lambda images: {"diversity": spread(images) / real_spread},
        ),
        *([Measurement(curve.measure, s.steps(s.metric_kimg))] if curve else []),
        Checkpoints(s.steps(s.checkpoint_kimg), keep),
    ]


def run_steps(
    step: StyleGAN2Step,
    batches: Callable[[int], ImageBatches],
    handlers: Sequence[Handler],
    curve: FrechetCurve | None,
    folder: Path,
    number: int,
) -> None:
    """Train from where the folder's checkpoints are to the end; `number` is that of the real images."""
    s = step.settings
    identity = s.identity() | {"seed": step.seed, "precision": step.precision, "images": number}
    run_training(
        step,
        step.objects(),
        batches,
        handlers,
        folder=folder,
        settings=identity | {"c_dim": step.G.c_dim or None},
        total=s.iterations,
        batch_size=s.batch_size,
        scalars=step.scalars,
        extras={"best": curve} if curve else {},
        name="train_gan",
        remedy="a lower lr, a larger r1_gamma or precision fp32",
    )


def save_result(folder: Path, step: StyleGAN2Step, curve: FrechetCurve | None) -> None:
    """Write the averaged generator, the last or the best, as the settings want it; by the first process."""
    s = step.settings
    if not is_first():
        return
    last = s.iterations * s.batch_size
    if s.use == "best" and curve and curve.images_seen != last:
        save_generator(folder / LATEST, step.G_ema, images_seen=last)
        step.G_ema.load_state_dict(curve.weights)
        last = curve.images_seen
    save_generator(folder / GENERATOR, step.G_ema, images_seen=last)


def is_trained(folder: Path, section: StyleGAN2Training) -> bool:
    """Whether a folder holds a generator of the length asked for, and not of a shorter or longer training."""
    if not (folder / GENERATOR).is_file():
        return False
    seen = load_checkpoint(folder / GENERATOR).get("images_seen")
    wanted = section.iterations * section.batch_size if section.total_kimg else 0
    return section.use == "best" or seen == wanted  # the best may be of any step


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


def check_input(section: StyleGAN2Training, images: Tensor | Dataset[Any], labels: Tensor | None) -> Tensor:
    """Refuse what cannot be trained with; return the first image.

    Raises:
        MedsegError: unusable images or labels, or processes that cannot share a batch.
    """
    first = check_images(images)
    check_processes(section)
    check_labels(labels, len(images))  # type: ignore[arg-type]
    return first


def check_processes(section: StyleGAN2Training) -> None:
    """Refuse batches that the running processes cannot cut evenly, and processes that do not know of each other.

    Raises:
        MedsegError: what is wrong, and what to change.
    """
    if launched() != count():
        raise MedsegError(f"torchrun started {launched()} processes, which work alone; call inside processes.group")
    if mistake := section.unshared(count(), f"{count()} processes"):
        raise MedsegError(mistake)


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
