"""Random streams that depend only on names and counts, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def mix_seed(*parts: int | str) -> int:
    """Mix numbers and names into one seed in [0, 2**63); neighbours give unrelated streams."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_step(*parts: int | str) -> None:
    """Seed Python, NumPy and torch (all devices) for one step."""
    seed = mix_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():  # torch.manual_seed asks every absent back-end too, a millisecond a step
        torch.cuda.manual_seed_all(seed)


def torch_generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch stream of its own."""
    return torch.Generator(device=device).manual_seed(mix_seed(*parts))


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """A NumPy stream of its own."""
    return np.random.default_rng(mix_seed(*parts))
