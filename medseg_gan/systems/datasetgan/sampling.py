"""Generated images by index: image i is the same however, whenever and beside whatever it is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medseg_gan.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.device import autocast
from medseg_gan.errors import MedsegError
from medseg_gan.seeding import seed_step, torch_generator
from medseg_gan.systems.datasetgan.features import FeatureExtractor, merge_maps
from stylegan2_ada_pytorch import Generator

FIRST_INDEX = {"annotate": 0, "held_out": 1_000_000, "test_g": 2_000_000, "train": 3_000_000}
"""Where each purpose takes its sample indices; a range ends where the next begins, the last is open."""

TOLERANCE = {"fp32": 0.01, "bf16": 0.1}
"""Largest difference in [-1, 1] between a stored image and its second rendering, on whatever machine."""


def reserved(purpose: str, count: int, start: int = 0) -> range:
    """Sample indices `start` to `start + count - 1` of one purpose; two purposes never share an image.

    Raises:
        MedsegError: the range of this purpose is too short.
    """
    first = FIRST_INDEX[purpose]
    ends = [other for other in FIRST_INDEX.values() if other > first]
    if ends and first + start + count > min(ends):
        raise MedsegError(f"{start + count} generated images were asked for {purpose}; there are {min(ends) - first}")
    return range(first + start, first + start + count)


@dataclass(frozen=True)
class Sampling:
    """How generated images are drawn and rendered; other values give other images.

    Attributes:
        seed: of the latents z.
        psi: truncation; 1 for none.
        cutoff: number of leading layers truncated; None for the first half.
        noise_mode: `const` is the generator's stored noise; `random` is drawn from the seed, per block.
        block: images rendered together. Block k holds the indices `k * block` to `(k + 1) * block - 1`; another size
            gives other last bits.
        precision: `fp32` or `bf16`.
    """

    seed: int
    psi: float = 0.7
    cutoff: int | None = None
    noise_mode: str = "const"
    block: int = 8
    precision: str = "fp32"


@dataclass(frozen=True)
class Rendered:
    """Generated images with their latents and feature maps.

    Attributes:
        indices: `(N,)` int64 sample indices.
        z: `(N, z_dim)`.
        ws: `(N, num_ws, w_dim)`, truncated.
        images: `(N, 1, R, R)` in [-1, 1], clipped.
        maps: `(N, C_i, r_i, r_i)` each, equal sizes merged, channels-last.
    """

    indices: Tensor
    z: Tensor
    ws: Tensor
    images: Tensor
    maps: list[Tensor]

    def take(self, rows: Tensor) -> Rendered:
        """Some of the images, in the given order."""
        maps = [part[rows].contiguous(memory_format=torch.channels_last) for part in self.maps]
        return Rendered(self.indices[rows], self.z[rows], self.ws[rows], self.images[rows], maps)


class ImageSource:
    """Renders generated images by index, in blocks of fixed size.

    Args:
        extractor: of the generator.
        sampling: how images are drawn.
        device: where to render.
    """

    def __init__(self, extractor: FeatureExtractor, sampling: Sampling, device: str = "cpu") -> None:
        self.extractor = extractor
        self.sampling = sampling
        self.device = device
        self.G: Generator = extractor.G.to(device)
        self.weights_sha256 = weights_sha256(self.G)

    def latents(self, indices: range) -> tuple[Tensor, Tensor]:
        """z `(N, z_dim)` and truncated ws `(N, num_ws, w_dim)`; each z depends on the seed and its index alone."""
        draw = (
            torch.randn(self.G.z_dim, generator=torch_generator(self.sampling.seed, "z", index)) for index in indices
        )
        z = torch.stack(list(draw)).to(self.device)
        cutoff = self.G.num_ws // 2 if self.sampling.cutoff is None else self.sampling.cutoff
        with torch.no_grad():
            return z, self.G.mapping(z, None, truncation_psi=self.sampling.psi, truncation_cutoff=cutoff)

    def block(self, number: int) -> Rendered:
        """All images of one block."""
        size = self.sampling.block
        indices = range(number * size, (number + 1) * size)
        z, ws = self.latents(indices)
        seed_step(self.sampling.seed, "noise", number)  # matters where noise is random
        with autocast(self.device, self.sampling.precision):
            images, maps = self.extractor(ws)
        return Rendered(torch.tensor(indices), z, ws, images.clamp(-1, 1), merge_maps(maps))

    def render(self, indices: np.ndarray | range) -> Rendered:
        """Images at any indices, in the given order; every block they touch is rendered whole.

        Raises:
            MedsegError: no index was given.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if not len(wanted):
            raise MedsegError("no generated image was asked for; wanted at least one index")
        parts = []
        for number in np.unique(wanted // self.sampling.block):
            inside = np.unique(wanted[wanted // self.sampling.block == number])
            parts.append(self.block(int(number)).take(torch.from_numpy(inside - number * self.sampling.block)))
        order = torch.from_numpy(np.searchsorted(np.unique(wanted), wanted))
        return _concatenate(parts).take(order)


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_latents(path: Path, source: ImageSource, rendered: Rendered) -> None:
    """Keep what is needed to render these images again, and the images to compare with."""
    save_checkpoint(
        path,
        version=1,
        sampling=asdict(source.sampling),
        weights_sha256=source.weights_sha256,
        indices=rendered.indices,
        z=rendered.z,
        ws=rendered.ws,
        images=rendered.images.half(),
    )


def render_again(path: Path, source: ImageSource) -> Rendered:
    """Render stored images once more and check that they are still the ones that were annotated.

    Args:
        path: written by `save_latents`.
        source: of the same generator, with the same sampling.

    Returns:
        The images and their features, in the stored order.

    Raises:
        MedsegError: another generator, other sampling, or an image that no longer matches.
    """
    stored = load_checkpoint(path)
    if stored["weights_sha256"] != source.weights_sha256:
        raise MedsegError(
            f"{path} belongs to another generator (weights {stored['weights_sha256'][:8]}, present one "
            f"{source.weights_sha256[:8]}); annotate again with --rerun annotate"
        )
    now = asdict(source.sampling)
    changed = [
        f"{key}: {stored['sampling'].get(key)} -> {now[key]}" for key in now if stored["sampling"].get(key) != now[key]
    ]
    if changed:
        raise MedsegError(f"{path} was sampled otherwise ({', '.join(changed)}); annotate again with --rerun annotate")
    rendered = source.render(stored["indices"].numpy())
    off = (rendered.images.cpu() - stored["images"].float()).abs().flatten(1).amax(1)
    worst = int(off.argmax())
    if not off[worst] <= TOLERANCE[source.sampling.precision]:
        raise MedsegError(
            f"generated image {int(stored['indices'][worst])} no longer matches its stored picture (they differ by up "
            f"to {float(off[worst]):.2g} in [-1, 1]); annotate again with --rerun annotate"
        )
    return rendered


def _concatenate(parts: list[Rendered]) -> Rendered:
    return Rendered(
        indices=torch.cat([part.indices for part in parts]),
        z=torch.cat([part.z for part in parts]),
        ws=torch.cat([part.ws for part in parts]),
        images=torch.cat([part.images for part in parts]),
        maps=[torch.cat(same) for same in zip(*(part.maps for part in parts), strict=True)],
    )
