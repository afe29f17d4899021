"""Generated images by index: image i is the same however, whenever and beside whatever it is asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.machine.device import autocast
from medseg_gan.machine.seeding import seed_step, torch_generator
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from stylegan2_ada_pytorch import Generator

FIRST_INDEX = {
    "annotate": 0,
    "held_out": 1_000_000,
    "test_g": 2_000_000,
    "train": 3_000_000,
    "synthesize": 10_000_000,
}
"""Where each purpose takes its sample indices; a range ends where the next begins, the last at `END_INDEX`."""

END_INDEX = 10**10
"""One more than the greatest sample index: names have ten digits for it."""

STORAGES = ("auto", "fp32", "fp16")
"""How feature maps may be held."""

LARGE_MAPS = 10**9
"""Bytes of float32 maps from which on `auto` holds large ones in half."""

SMALL_MAP = 32
"""Up to this size `auto` leaves a map in float32: these have most of the channels and few of the bytes, and a pixel's
vector is read from float32 in one pass."""

HALF_MAX = 65504.0
"""Largest number of fp16."""

TOLERANCE = {"fp32": 0.01, "bf16": 0.1}
"""Largest difference in [-1, 1] between a stored image and its second rendering, on whatever machine."""


def reserved(purpose: str, count: int, start: int = 0) -> range:
    """Sample indices `start` to `start + count - 1` of one purpose; two purposes never share an image.

    Raises:
        MedsegError: the range of this purpose is too short.
    """
    first = FIRST_INDEX[purpose]
    end = min(other for other in (*FIRST_INDEX.values(), END_INDEX) if other > first)
    if first + start + count > end:
        raise MedsegError(f"{start + count} generated images were asked for {purpose}; there are {end - first}")
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
        indices: `(N,)` int64 sample indices; of projected slices their positions in the store they come from.
        z: `(N, z_dim)`; `(N, 0)` where ws were found by projection, not drawn.
        ws: `(N, num_ws, w_dim)`, truncated if drawn.
        images: `(N, 1, R, R)` in [-1, 1], clipped.
        maps: `(N, C_i, r_i, r_i)` each, equal sizes merged, channels-last.
    """

    indices: Tensor
    z: Tensor
    ws: Tensor
    images: Tensor
    maps: list[Tensor]

    def take(self, rows: Tensor) -> Rendered:
        """Some of the images, in the given order; `rows` lie on the CPU, as some of the tensors do."""
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
        return self.render(range(number * size, (number + 1) * size))

    def render_ws(self, ws: Tensor, indices: Tensor, storage: str = "fp32") -> Rendered:
        """Images of given latents `(N, num_ws, w_dim)`, in their order and a block at a time; see `render`."""
        size = self.sampling.block
        filling = _Filling(self.extractor, len(ws), self.device, storage)
        for number, part in enumerate(ws.to(self.device).split(size)):
            seed_step(self.sampling.seed, "noise of given latents", number)
            with autocast(self.device, self.sampling.precision):
                filling.add(part, rows=range(len(part)), at=range(number * size, number * size + len(part)))
        return filling.rendered(indices, z=ws.new_empty(len(ws), 0))

    def render(self, indices: np.ndarray | range, storage: str = "fp32") -> Rendered:
        """Images at any indices, in the given order; every block they touch is rendered whole.

        Args:
            indices: of the samples.
            storage: of the maps, one of `STORAGES`. In `fp16` they take half the memory, each value rounded by at most
                one part in 2048; `auto` is that for maps above `SMALL_MAP` if `fp32` would take more than `LARGE_MAPS`.

        Raises:
            MedsegError: no index was given, or features are too large for fp16.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if not len(wanted):
            raise MedsegError("no generated image was asked for; wanted at least one index")
        size = self.sampling.block
        filling = _Filling(self.extractor, len(wanted), self.device, storage)
        all_z = torch.empty(len(wanted), self.G.z_dim, device=self.device)
        for number in np.unique(wanted // size).tolist():
            z, ws = self.latents(range(number * size, (number + 1) * size))
            at = np.flatnonzero(wanted // size == number)
            rows = wanted[at] - number * size
            seed_step(self.sampling.seed, "noise", number)  # matters where noise is random
            with autocast(self.device, self.sampling.precision):
                filling.add(ws, rows=rows.tolist(), at=at.tolist())
            all_z[at] = z[rows]
        return filling.rendered(torch.from_numpy(wanted), all_z)


class _Filling:
    """Images and maps being rendered, each written to its place at once: a second copy of the maps is never held."""

    def __init__(self, extractor: FeatureExtractor, count: int, device: str, storage: str) -> None:
        G = extractor.G
        self.extractor = extractor
        whole_bytes = 4 * count * sum(channels * size**2 for channels, size in extractor.shapes)
        half_above = {"fp16": 0, "fp32": math.inf, "auto": SMALL_MAP if whole_bytes > LARGE_MAPS else math.inf}[storage]
        self.maps = extractor.empty_maps(count, device, half_above)
        self.ws = torch.empty(count, G.num_ws, G.w_dim, device=device)
        self.images = torch.empty(count, G.img_channels, G.img_resolution, G.img_resolution, device=device)

    def add(self, ws: Tensor, rows: Sequence[int], at: Sequence[int]) -> None:
        """Render the latents `(B, num_ws, w_dim)` and keep the images `rows` of them at the positions `at`."""
        spaces = self._spaces()

        def keep(part: Tensor) -> None:
            whole, first = next(spaces)
            for row, position in zip(rows, at, strict=True):  # one by one: what a whole map's magnitudes would take
                image = part[row]
                if whole.dtype == torch.float16 and (largest := float(image.abs().max())) > HALF_MAX:
                    raise MedsegError(
                        f"the generator's features reach {largest:.3g}, more than fp16 holds; "
                        "use train_interpreter.feature_storage=fp32"
                    )
                whole[position, first : first + len(image)] = image

        images = self.extractor.read(ws, keep).clamp(-1, 1)
        self.images[list(at)], self.ws[list(at)] = images[list(rows)], ws[list(rows)]

    def rendered(self, indices: Tensor, z: Tensor) -> Rendered:
        return Rendered(indices, z, self.ws, self.images, self.maps)

    def _spaces(self) -> Iterator[tuple[Tensor, int]]:
        """For each map the merged one it belongs to, and its first channel there."""
        merged, first = iter(self.maps), 0
        whole = next(merged)
        for channels, size in self.extractor.shapes:
            if whole.shape[-1] != size:
                whole, first = next(merged), 0
            yield whole, first
            first += channels


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


def render_again(path: Path, source: ImageSource, storage: str = "fp32") -> Rendered:
    """Render stored images once more and check that they are still the ones that were annotated.

    Args:
        path: written by `save_latents`.
        source: of the same generator, with the same sampling.
        storage: of the maps, see `ImageSource.render`.

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
        raise MedsegError(
            f"{path} was sampled with other settings ({', '.join(changed)}); annotate again with --rerun annotate"
        )
    drawn = stored["z"].shape[1] > 0
    rendered = (
        source.render(stored["indices"].numpy(), storage)
        if drawn
        else source.render_ws(stored["ws"].float(), stored["indices"], storage)
    )
    off = (rendered.images.cpu() - stored["images"].float()).abs().flatten(1).amax(1)
    worst = int(off.argmax())
    if not off[worst] <= TOLERANCE[source.sampling.precision]:
        raise MedsegError(
            f"generated image {int(stored['indices'][worst])} no longer matches its stored copy (they differ by up "
            f"to {float(off[worst]):.2g} in [-1, 1]); annotate again with --rerun annotate"
        )
    return rendered
