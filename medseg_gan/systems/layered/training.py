"""Train a layered GAN with its segmenter, begin anew after a trivial solution, and load what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_gan.data.pictures import PictureStore
from medseg_gan.data.sampler import EndlessSampler
from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.memory import keep_freed_memory
from medseg_gan.machine.seeding import mix_seed, seed_step
from medseg_gan.networks.segmenters import build_segmenter, predict_labels
from medseg_gan.systems.layered.codes import Prior
from medseg_gan.systems.layered.composition import compose
from medseg_gan.systems.layered.ct import CT
from medseg_gan.systems.layered.networks import LayeredDiscriminator, LayeredGenerator
from medseg_gan.systems.layered.recipe import TrainGan
from medseg_gan.systems.layered.step import LayeredStep
from medseg_gan.systems.layered.watchdog import Watchdog
from medseg_gan.training.engine import run_training
from medseg_gan.training.handlers import Advice, Checkpoints, Look, Rows, SampleGrid, save_samples
from medseg_gan.training.restarts import with_restarts

MODEL = "layered.pt"
SHEET = 16  # composites on a sample sheet, with their layers
LOOKED_AT = 512  # real pictures on which F is checked at the end of a round


def train_layered(
    store: Path,
    folder: Path,
    settings: TrainGan,
    *,
    name: str,
    seed: int,
    device: str = "cpu",
    precision: str = "fp32",
) -> None:
    """Train one layered GAN and leave `folder/layered.pt`: the generator, the segmenter F, and how it went.

    An attempt lives in `folder/attempt-1`, and so on. Where the watchdog, which sees neither masks nor labels, finds
    a trivial solution, the next attempt begins with another seed; `attempts.json` lists them all. The last attempt
    allowed is carried through whatever becomes of it, and said to be trivial if it is. Called again after an
    interruption it goes on, on the CPU with bit-equal weights.

    Args:
        store: of the pictures; the split `train` is used, masks are not looked at.
        folder: of this training alone.
        settings: of the training, with its arm's objective.
        name: of the training, for progress and messages.
        seed: of the first attempt.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.

    Raises:
        MedsegError: no training pictures, other settings than an unfinished training's, or a term that is not finite.
    """
    folder = Path(folder)
    if (folder / MODEL).is_file():
        return
    keep_freed_memory()
    pictures = PictureStore.open(store)
    chosen = pictures.indices("train")
    if len(chosen) < settings.batch_size:
        raise MedsegError(
            f"{len(chosen)} training pictures for batches of {settings.batch_size}; give more or lower the batch_size"
        )

    def attempt(own: Path, seed: int, stop: bool) -> tuple[LayeredStep, str | None]:
        step = LayeredStep(
            settings,
            size=pictures.size,
            channels=pictures.channels,
            seed=seed,
            device=device,
            precision=precision,
            mirror=pictures.dataset != CT,
        )
        return step, train_once(step, own, pictures, Watchdog(settings, stop), name)

    (step, trivial), attempts, last = with_restarts(attempt, folder, seed=seed, restarts=settings.restarts, name=name)
    attempts.append({"seed": last, "iteration": settings.iterations, "trivial": trivial})
    save_layered(folder / MODEL, step, attempts)


def train_once(step: LayeredStep, folder: Path, pictures: PictureStore, watchdog: Watchdog, name: str) -> str | None:
    """One attempt from its beginning or its newest checkpoint to its end.

    Returns:
        Why its solution is trivial, if it is and the watchdog does not stop it.

    Raises:
        Trivial: the solution is, and the watchdog stops it.
    """
    s, chosen = step.settings, pictures.indices("train")
    looked_at = chosen[:: max(1, len(chosen) // LOOKED_AT)][:LOOKED_AT]

    def share() -> float:
        return foreground_share(step, pictures.image_tensor(looked_at))

    log_every = max(1, min(100, s.gan_steps // 20))
    save_samples(folder / "samples" / "real.png", pictures.image_tensor(chosen[:32]))
    done = run_training(
        step,
        step.objects(),
        lambda done: real_batches(pictures, s, step.seed, done, step.device),
        [
            Advice(watchdog),
            Look(lambda iteration: watchdog.judge_segmenter(iteration, share)),
            Rows(log_every),
            SampleGrid(lambda: layer_sheet(step), s.steps(s.sample_kimg), SHEET),
            Checkpoints(s.steps(s.checkpoint_kimg / log_every) * log_every, keep=1),
        ],
        folder=folder,
        settings=s.identity() | {"seed": step.seed, "precision": step.precision, "images": len(chosen)},
        total=s.iterations,
        batch_size=s.batch_size,
        images=lambda iteration: s.gan_done(iteration) * s.batch_size,
        name=name,
        remedy="a lower lr or lr_d, or precision fp32",
    )
    if done == s.iterations:  # ended before its result was written: F's last look is in no file
        watchdog.judge_segmenter(done, share)
    return watchdog.reason


def real_batches(
    pictures: PictureStore, settings: TrainGan, seed: int, done: int, device: str
) -> Iterator[dict[str, Tensor]]:
    """A batch for every iteration from `done` on; F's iterations get none, so their place in the order is kept."""
    chosen, size = pictures.indices("train"), settings.batch_size
    order = iter(EndlessSampler(len(chosen), mix_seed(seed, "order"), settings.gan_done(done) * size))
    for iteration in count(done + 1):
        if settings.place(iteration)[1] < settings.gan_steps:
            yield {"image": pictures.image_tensor(chosen[list(islice(order, size))]).to(device)}
        else:
            yield {}


@torch.no_grad()
def layer_sheet(step: LayeredStep) -> Tensor:
    """Composites, backgrounds, foregrounds and masks of the same latents, row under row: `(4 SHEET, C, H, H)`.

    Made in evaluation mode and without perturbation, as everything that is sampled.
    """
    seed_step(step.seed, "samples")
    image, mask, background, foreground = step.sample(SHEET)
    return torch.cat([image, background, foreground, (2 * mask - 1).expand_as(image)])


def foreground_share(step: LayeredStep, real: Tensor) -> float:
    """Mean share of real pictures that F takes for foreground; masks are not needed to see a trivial answer."""
    pred = predict_labels(step.F, real, device=step.device, precision=step.precision)
    return float((pred == 1).float().mean())


def save_layered(path: Path, step: LayeredStep, attempts: list[dict[str, Any]]) -> None:
    """Write what later stages need, as plain values and tensors."""
    s, n = step.settings, step.settings.network
    save_checkpoint(
        path,
        generator=asdict(step.prior)
        | {"size": step.size, "channels": step.channels}
        | n.model_dump(include={"z_dim", "base", "widest", "blocks", "smallest"}),
        discriminator={
            "size": step.size,
            "channels": step.channels,
            "c_dim": step.prior.dim,
            "first": n.d_first,
            "norm": n.d_norm,
        },
        segmenter={"num_classes": 2, "in_channels": step.channels, "name": s.segmenter, "width": s.segmenter_width},
        G=step.G_ema.state_dict(),
        F=step.F.state_dict(),
        D=step.D.state_dict(),
        attempts=attempts,
    )


class TrainedLayers:
    """A trained generator of layers, in evaluation mode: a source of pictures and masks by index.

    Example:
        layers = TrainedLayers.load(run / "02-train_gan" / "main-0", seed=1)
        image, mask, background, foreground = layers.render(range(8))
    """

    def __init__(self, content: Mapping[str, Any], seed: int, device: str, precision: str) -> None:
        """Rebuild the networks of `save_layered`; `seed` is that of the latents."""
        how = dict(content["generator"])
        self.prior = Prior(how.pop("kind"), how.pop("dim"), how.pop("group"))
        self.z_dim = how["z_dim"]
        self.G = LayeredGenerator(c_dim=self.prior.dim, c_sup_dim=self.prior.parent_dim, **how)
        self.G.load_state_dict(content["G"])
        self.G.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
        self.D = LayeredDiscriminator(**content["discriminator"])
        self.D.load_state_dict(content["D"])
        self.D.to(device).eval()
        self.F = build_segmenter(**content["segmenter"])
        self.F.load_state_dict(content["F"])
        self.F.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.attempts: list[dict[str, Any]] = content["attempts"]
        self.seed, self.device, self.precision = seed, device, precision

    @classmethod
    def load(cls, folder: Path, seed: int = 0, device: str = "cpu", precision: str = "fp32") -> TrainedLayers:
        """Load the result of `train_layered`.

        Raises:
            MedsegError: the training has not finished, or its file is damaged.
        """
        return cls(load_checkpoint(Path(folder) / MODEL), seed, device, precision)

    @torch.inference_mode()
    def clusters(self, images: Tensor) -> np.ndarray:
        """`(N,)` argmax E_x of `(N, C, H, H)` images in [-1, 1]: the class of a categorical code each shows."""
        with autocast(self.device, self.precision):
            return self.D(images.to(self.device))[1].argmax(dim=1).cpu().numpy()

    @torch.inference_mode()
    def render(self, indices: range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Composite, mask, background and foreground of each index, a pure function of it and the block it is in.

        Returns:
            `(B, C, H, H)` in [-1, 1], `(B, 1, H, H)` in [0, 1], and two layers as the first; on the device.
        """
        z, c, c_sup = [], [], []
        for index in indices:
            seed_step(self.seed, "latent", index)
            z.append(torch.randn(1, self.z_dim))
            code, parent = self.prior.draw(1, "cpu")
            c.append(code)
            c_sup.append(parent)
        with autocast(self.device, self.precision):
            background, foreground, mask = self.G(*(torch.cat(part).to(self.device) for part in (z, c, c_sup)))
        return compose(background, foreground, mask), mask, background, foreground

    def render_pairs(self, indices: range) -> tuple[Tensor, Tensor]:
        """Composites and masks alone."""
        return self.render(indices)[:2]
