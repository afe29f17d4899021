"""Images in [-1, 1] as 8-bit pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Turn [-1, 1] into 0..255 as StyleGAN2-ADA does: truncate and clip 127.5 x + 128."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
