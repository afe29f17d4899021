"""Sample grids, one PNG each."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange

from medseg_gan.data.pixels import to_uint8


def image_grid(images: torch.Tensor, columns: int) -> np.ndarray:
    """Lay images out row by row; an unfinished last row is filled with black.

    Args:
        images: `(N, C, H, W)` in [-1, 1], C = 1 or 3.
        columns: images per row.

    Returns:
        uint8 `(rows * H, columns * W)` for one channel, `(rows * H, columns * W, 3)` for three.
    """
    tiles = to_uint8(images).cpu()
    missing = -len(tiles) % columns
    tiles = torch.cat([tiles, tiles.new_zeros(missing, *tiles.shape[1:])])
    sheet = rearrange(tiles, "(row column) c h w -> (row h) (column w) c", column=columns).numpy()
    return sheet[..., 0] if sheet.shape[-1] == 1 else sheet
