"""The Fréchet distance of the averaged generator during training, and the best weights so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.frechet import (
    FrechetDistance,
    describe,
    extractor_for,
    feature_statistics,
    half_floor,
    metric_name,
)
from medseg_gan.machine.atomic import write_json
from medseg_gan.machine.checkpoint import save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.processes import count, is_first, rank
from medseg_gan.machine.seeding import torch_generator
from medseg_gan.training.stylegan2_step import StyleGAN2Step

BEST = "best.pt"
METRIC = "metric.json"
BLOCK = 50  # images generated at once; the processes of a group take turns
MOST_REAL = 5000  # real images measured, spread evenly over all
_MOST_BYTES = 1 << 30


class FrechetCurve:
    """Measures G_ema against the real images; its state is the best distance with its weights.

    Always the same latents and the fixed noise, so that the curve is that of the weights; truncation 1.

    Example:
        curve = FrechetCurve(step, images, number=500, folder=folder)
        curve.measure(images_seen=1000)  # {"frechet_distance[random-conv-v1]": 0.7}; best.pt, metric.json
    """

    def __init__(self, step: StyleGAN2Step, images: Tensor | Dataset[Any], *, number: int, folder: Path) -> None:
        """Measure the real images.

        Args:
            step: whose G_ema to measure.
            images: `(N, C, H, W)` in [-1, 1], or a dataset of such items.
            number: generated images of a measurement.
            folder: gets `best.pt` (as `G_ema.pt`) and `metric.json`.

        Raises:
            MedsegError: images without a colour or grey meaning, or too small or few to measure.
        """
        self.step, self.number, self.folder = step, number, Path(folder)
        self.extractor = extractor_for(None).to(step.device)
        self.name = metric_name(self.extractor)
        real = real_images(images)
        if real.shape[1] not in (1, 3) or real.shape[-1] < 16 or len(real) < 4:
            raise MedsegError(
                f"metric_kimg: {self.name} wants at least 4 images of 1 or 3 channels and 16 pixels a side, found "
                f"{len(real)} of shape {tuple(real.shape[1:])}; set metric_kimg to 0"
            )
        self.real = feature_statistics(real, self.extractor)
        self.floor = 0.0
        if is_first():  # two sets as large as the generated one, where there are as many
            some = real[torch.linspace(0, len(real) - 1, min(len(real), 2 * number)).long()]
            self.floor = half_floor(some, self.extractor)
        self.distance: float | None = None
        self.images_seen = 0
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def measure(self, images_seen: int) -> dict[str, float]:
        """Distance of G_ema now; where it is the least so far, G_ema becomes the best.

        In a group every process generates a part; all get the same distance.
        """
        step = self.step
        metric = FrechetDistance(self.extractor, self.real, device=step.device)
        for block in range(rank(), -(-self.number // BLOCK), count()):
            draw = torch_generator(step.seed, "metric", block)
            z = torch.randn(BLOCK, step.settings.z_dim, generator=draw)[: self.number - block * BLOCK]
            c = step.some_labels(len(z), draw)
            for part in range(0, len(z), step.batch_gpu):
                chosen = slice(part, part + step.batch_gpu)
                with autocast(step.device, step.precision):
                    fake = step.G_ema(z[chosen].to(step.device), None if c is None else c[chosen], noise_mode="const")
                metric.update(fake.float())
        distance = metric.compute()
        if self.distance is None or distance < self.distance:
            self.distance, self.images_seen = distance, images_seen
            self.weights = {name: value.detach().cpu().clone() for name, value in step.G_ema.state_dict().items()}
            self.write_best()
        return {self.name: distance}

    def write_best(self) -> None:
        """Write the best weights as `load_generator` reads them, and what was measured; by the first process."""
        if self.distance is None or not is_first():
            return
        save_checkpoint(
            self.folder / BEST,
            init_kwargs=self.step.G_ema.init_kwargs,
            state_dict=self.weights,
            images_seen=self.images_seen,
        )
        best = {"images": self.images_seen, "distance": self.distance}
        about = describe(self.extractor, self.real.count, self.number)
        write_json(self.folder / METRIC, {**about, "floor": self.floor, "best": best})

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"distance": self.distance, "images_seen": self.images_seen, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the best of an interrupted training; a better one that it found later is found again."""
        self.distance, self.images_seen, self.weights = state["distance"], state["images_seen"], state["weights"]
        self.write_best()


def real_images(images: Tensor | Dataset[Any]) -> Tensor:
    """`(N, C, H, W)` of the real images: all, or so many that time and memory stay bounded, evenly spread."""
    total = len(images)  # type: ignore[arg-type]
    item = images[0]
    first = torch.as_tensor(item["image"] if isinstance(item, dict) else item)
    most = min(total, MOST_REAL, max(1000, _MOST_BYTES // (4 * first.numel())))
    chosen = torch.linspace(0, total - 1, most, dtype=torch.float64).long()
    if isinstance(images, Tensor):
        return images[chosen] if most < total else images
    items = [images[int(index)] for index in chosen]
    return torch.stack([torch.as_tensor(one["image"] if isinstance(one, dict) else one) for one in items])
