"""Tiny generators whose every weight matters, and run folders around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from medseg_gan.data.slices import SliceRecord, write_store
from medseg_gan.labels import lookup_table
from medseg_gan.training.stylegan2 import save_generator
from medseg_gan.weights.files import save_networks
from stylegan2_ada_pytorch import Discriminator, Generator

WINDOW = (-1000.0, 400.0)


def generator(channels: int = 1, c_dim: int = 0, noise: float = 0.3, size: int = 16) -> Generator:
    """Random weights, noise that shows, a mean w that is not zero."""
    torch.manual_seed(3)
    G = Generator(
        8,
        c_dim,
        12,
        size,
        channels,
        mapping_kwargs={"num_layers": 2},
        synthesis_kwargs={"channel_base": 256, "channel_max": 16},
    )
    G.mapping.w_avg.normal_()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(noise)
        elif name.endswith("torgb.weight"):
            parameter.data.mul_(0.2)  # most of a picture stays in [-1, 1]
    return G.eval().requires_grad_(False)


def weight_file(folder: Path, channels: int = 1, c_dim: int = 0, with_D: bool = False) -> Path:
    """A file as `medseg-gan import-weights` writes it."""
    networks: dict[str, Generator | Discriminator] = {"G_ema": generator(channels, c_dim)}
    if with_D:
        networks["D"] = Discriminator(c_dim, 16, channels, channel_base=256, channel_max=16).eval()
    path = folder / "G.pt"
    save_networks(path, networks)
    return path


def run_folder(folder: Path, size: int = 16, noise: float = 0.3, prepare: str = "{crop: 0.8}") -> Path:
    """A run with a finished generator and a slice store."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(f"recipe: x\nrun: {{seed: 7}}\nprepare: {prepare}\n")
    save_generator(folder / "02-train_gan" / "G_ema.pt", generator(noise=noise, size=size), images_seen=1)
    records = [SliceRecord("c", "p", k, (1.5 + k, 1.25 + k, 3.0), None, "gan", False) for k in range(3)]
    images = np.zeros((3, size, size), np.int16)
    write_store(folder / "01-prepare", images, None, records, WINDOW, lookup_table("paper"))
    return folder
