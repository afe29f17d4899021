"""From options to latents: seeds, truncation, style mixing, interpolation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from medseg_gan.errors import UsageError
from medseg_gan.machine.seeding import torch_generator
from medseg_gan.sampling.source import Source

SeedConvention = Literal["nvidia", "ours"]
NoiseMode = Literal["const", "random", "none"]
Way = Literal["w", "z"]

MOST_PICTURES = 1_000_000
LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


@dataclass(frozen=True)
class Drawing:
    """How seeds become pictures; other values give other pictures.

    Attributes:
        psi: truncation: 1 for none, 0 for the mean picture.
        psi_layers: number of leading layers that are truncated; None for all.
        noise: `const`: the generator's stored noise; `random`: drawn from the seed; `none`.
        seed_convention: `nvidia`: z = numpy.random.RandomState(seed).randn(z_dim), as the official code; `ours`: the
            label factory's latents, seed k being sample k of the run.
        class_id: of a conditional generator.
    """

    psi: float = 1.0
    psi_layers: int | None = None
    noise: NoiseMode = "const"
    seed_convention: SeedConvention = "nvidia"
    class_id: int | None = None

    def as_plain(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def parse_numbers(text: str, option: str, largest: int) -> list[int]:
    """Numbers and ranges such as `0-63,70`, in the given order, each once.

    Raises:
        UsageError: it is anything else, or a number exceeds `largest`.
    """
    found: dict[int, None] = {}
    for part in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part, re.ASCII)
        if match is None:
            raise UsageError(f"{option} {text}: {part or 'nothing'!r} is no number or range; wanted such as 0-63,70")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"{option} {text}: {part} runs backwards; wanted {last}-{first}")
        if last > largest:
            raise UsageError(f"{option} {text}: {last} is too large; wanted 0 to {largest}")
        if len(found) + last - first >= MOST_PICTURES:
            raise UsageError(f"{option} {text}: that is more than {MOST_PICTURES} numbers; ask for fewer at a time")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def as_seeds(seeds: str | Sequence[int], option: str = "--seeds") -> list[int]:
    """Seeds as a person or a program gives them."""
    return parse_numbers(seeds if isinstance(seeds, str) else ",".join(map(str, seeds)), option, LARGEST_SEED)


def check_drawing(source: Source, drawing: Drawing) -> None:
    """Refuse seeds that this generator cannot draw.

    Raises:
        UsageError: a class is missing, superfluous or unknown; or as `check_truncation`.
    """
    check_truncation(source, drawing)
    name, count, chosen = source.path.name, source.G.c_dim, drawing.class_id
    if count and chosen is None:
        raise UsageError(f"{name} draws {count} classes; choose one with --class, 0 to {count - 1}")
    if not count and chosen is not None:
        raise UsageError(f"--class {chosen}: {name} has no classes; leave --class out")
    if chosen is not None and not 0 <= chosen < count:
        raise UsageError(f"--class {chosen}: {name} has the classes 0 to {count - 1}")


def check_truncation(source: Source, drawing: Drawing) -> None:
    """Refuse a truncation that makes no sense.

    Raises:
        UsageError: psi is not finite, or there are not so many layers.
    """
    if not math.isfinite(drawing.psi):
        raise UsageError(f"--psi {drawing.psi}: wanted a number, 0 for the mean image to 1 for no truncation")
    if drawing.psi_layers is not None and not 0 <= drawing.psi_layers <= source.G.num_ws:
        raise UsageError(
            f"--psi-layers {drawing.psi_layers}: {source.path.name} has {source.G.num_ws} layers; wanted that at most"
        )


def class_label(source: Source, class_id: int | None) -> Tensor | None:
    """`(1, c_dim)` one-hot label, or None for a generator without classes."""
    if not source.G.c_dim or class_id is None:
        return None
    return torch.eye(source.G.c_dim, device=source.device)[class_id][None]


def seed_to_z(source: Source, seed: int, convention: SeedConvention) -> Tensor:
    """`(1, z_dim)` latent of a seed, which no other seed has a part in."""
    if convention == "ours":
        z = torch.randn(source.G.z_dim, generator=torch_generator(source.latent_seed, "z", seed))[None]
    else:
        z = torch.from_numpy(np.random.RandomState(seed).randn(1, source.G.z_dim)).float()
    return z.to(source.device)


@torch.no_grad()
def map_latent(source: Source, z: Tensor, drawing: Drawing) -> Tensor:
    """`(1, z_dim)` to truncated `(1, num_ws, w_dim)`."""
    return truncate(source, source.G.mapping(z, class_label(source, drawing.class_id)), drawing)


def truncate(source: Source, ws: Tensor, drawing: Drawing) -> Tensor:
    """Pull the leading layers of `(1, num_ws, w_dim)` towards the mean w (Karras et al., 2019, appendix B)."""
    if drawing.psi == 1:
        return ws
    n = source.G.num_ws if drawing.psi_layers is None else drawing.psi_layers
    return torch.cat([source.G.mapping.w_avg.lerp(ws[:, :n], drawing.psi), ws[:, n:]], dim=1)


def seed_to_ws(source: Source, seed: int, drawing: Drawing) -> Tensor:
    """Truncated `(1, num_ws, w_dim)` of a seed."""
    return map_latent(source, seed_to_z(source, seed, drawing.seed_convention), drawing)


def mix_styles(row: Tensor, column: Tensor, layers: Sequence[int]) -> Tensor:
    """The latent of a row with some layers taken from a column (Karras et al., 2019, section 3.1).

    Args:
        row: `(1, num_ws, w_dim)`.
        column: as `row`.
        layers: indices into the second axis.
    """
    mixed = row.clone()
    mixed[:, list(layers)] = column[:, list(layers)]
    return mixed


def way_between(
    source: Source, seeds: Sequence[int], frames: int, loop: bool, way: Way, drawing: Drawing
) -> Iterator[Tensor]:
    """Latents on the way from seed to seed, `frames` from one to the next.

    Args:
        source: of the pictures.
        seeds: at least two; frame `k * frames` is exactly the picture of seed k.
        frames: steps from one seed to the next.
        loop: go on from the last seed to the first; else the last frame is the last seed's picture.
        way: `w`: straight lines between the mapped latents; `z`: great circles between the latents before mapping.
        drawing: truncation and convention.

    Yields:
        `(1, num_ws, w_dim)`.
    """
    points = [seed_to_z(source, seed, drawing.seed_convention) for seed in seeds]
    if way == "w":
        points = [map_latent(source, z, drawing) for z in points]
    ends = [*points, points[0]] if loop else points
    for start, end in pairwise(ends):
        for k in range(frames):
            t = k / frames
            yield start.lerp(end, t) if way == "w" else map_latent(source, slerp(start, end, t), drawing)
    if not loop:
        yield points[-1] if way == "w" else map_latent(source, points[-1], drawing)


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Point on the great circle between two `(1, D)` directions, whose lengths change evenly (Shoemake, 1985)."""
    cosine = torch.nn.functional.cosine_similarity(start.double(), end.double()).clamp(-1, 1).item()
    angle = math.acos(cosine)
    if math.sin(angle) < 1e-6:  # the same direction, or opposite ones between which no circle is the shortest
        return start.lerp(end, t)
    return (math.sin((1 - t) * angle) * start + math.sin(t * angle) * end) / math.sin(angle)
