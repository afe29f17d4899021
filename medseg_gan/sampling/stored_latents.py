"""Latents in files: what a projection found, to be generated again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.sampling.source import Source

VERSION = 1  # of the file's layout


@dataclass(frozen=True)
class StoredLatents:
    """Contents of a file.

    Attributes:
        ws: `(N, num_ws, w_dim)`, without truncation.
        noise: `(r, r)` noise maps by their names in `G.synthesis`.
        same_source: whether they belong to this very generator file.
        sha256: of the file.
    """

    ws: Tensor
    noise: dict[str, Tensor]
    same_source: bool
    sha256: str


def save_latents(path: Path, source: Source, ws: Tensor, noise: dict[str, Tensor], space: str) -> None:
    """Write latents as tensors and plain values."""
    tensors = {name: value.cpu() for name, value in noise.items()}
    save_checkpoint(path, version=VERSION, space=space, ws=ws.cpu(), noise=tensors, source_sha256=source.sha256)


def load_latents(path: Path, source: Source) -> StoredLatents:
    """Read latents for a generator; nothing in the file is executed.

    Raises:
        MedsegError: the file is missing, no file of latents, or does not fit the generator.
    """
    saved = load_checkpoint(path)
    ws, noise = saved.get("ws"), saved.get("noise")
    if not isinstance(ws, Tensor) or not isinstance(noise, dict) or saved.get("version") != VERSION:
        raise MedsegError(f"{path} holds no latents; wanted the projected.pt of `medseg-gan project`")
    G = source.G
    if ws.ndim != 3 or ws.shape[1:] != (G.num_ws, G.w_dim) or not ws.is_floating_point():
        raise MedsegError(
            f"{path}: its latents have shape {tuple(ws.shape)}, wanted (N, {G.num_ws}, {G.w_dim}) for "
            f"{source.path.name}; project with this generator"
        )
    wanted = {name: value.shape for name, value in G.synthesis.named_buffers() if name.endswith("noise_const")}
    found: dict[Any, Any] = {name: getattr(value, "shape", None) for name, value in noise.items()}
    if found != wanted or not all(bool(torch.isfinite(part).all()) for part in (ws, *noise.values())):
        raise MedsegError(f"{path}: its noise maps do not fit {source.path.name}; project with this generator")
    return StoredLatents(
        ws=ws.to(source.device, torch.float32),
        noise={name: value.to(source.device, torch.float32) for name, value in noise.items()},
        same_source=saved.get("source_sha256") == source.sha256,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
