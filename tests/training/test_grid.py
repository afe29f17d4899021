"""Sheets of images."""

import numpy as np
import torch

from medseg_gan.data.pixels import to_uint8
from medseg_gan.training.grid import image_grid


def test_every_image_is_found_in_its_tile() -> None:
    images = torch.rand(5, 1, 4, 6) * 2 - 1
    sheet = image_grid(images, columns=3)
    assert sheet.shape == (8, 18)
    for k in range(5):
        row, column = divmod(k, 3)
        tile = sheet[4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        np.testing.assert_array_equal(tile, to_uint8(images[k, 0]).numpy())
    assert not sheet[4:, 12:].any()


def test_three_channels_stay_colours() -> None:
    images = torch.stack([torch.full((4, 4), value) for value in (-1.0, 0.0, 1.0)])[None]
    sheet = image_grid(images, columns=1)
    assert sheet.shape == (4, 4, 3)
    assert sheet[0, 0].tolist() == [0, 128, 255]


def test_values_outside_the_range_are_clipped() -> None:
    assert to_uint8(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]
