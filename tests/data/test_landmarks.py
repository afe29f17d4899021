"""Landmarks and part numbers go with the image through cropping and resizing, and into the store and out of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.data.picture_preparation import prepare_pictures
from medseg_gan.data.pictures import Landmark, Picture, PictureStore
from medseg_gan.errors import MedsegError


def drawn(folder: Path, width: int, height: int, at: tuple[int, int], parts: int = 3) -> Picture:
    """A black image with one white block of 8 pixels around a landmark, and a mask of which the block is part 3."""
    x, y = at
    image = np.zeros((height, width), np.uint8)
    image[y - 4 : y + 5, x - 4 : x + 5] = 255
    name = f"{width}x{height}-{x}-{y}"
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray((image > 0).astype(np.uint8) * np.uint8(parts)).save(folder / f"{name}-parts.png")
    landmark: Landmark = (float(x), float(y), True)
    return Picture(
        name,
        folder / f"{name}.png",
        folder / f"{name}-parts.png",
        "train",
        None,
        parts=3,
        landmarks=(landmark, (-40.0, 0.0, True), (float(x), float(y), False)),
    )


@pytest.mark.parametrize(("width", "height", "at"), [(96, 64, (30, 20)), (64, 96, (20, 70)), (33, 47, (11, 29))])
@pytest.mark.parametrize("size", [16, 32, 80])
def test_a_landmark_lands_on_the_pixels_drawn_around_it(tmp_path, width, height, at, size):
    prepare_pictures(tmp_path / "store", [drawn(tmp_path, width, height, at)], size=size, channels=1, dataset="toys")
    store = PictureStore.open(tmp_path / "store")
    (x, y, visible), outside, hidden = store.landmark_tensor([0])[0].tolist()
    weights = store.images[0, :, :, 0].astype(float)
    rows, columns = np.mgrid[:size, :size]
    assert (x, y) == pytest.approx(
        ((weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()), abs=0.3
    )
    assert store.masks[0, round(y), round(x)] == 3
    assert (visible, outside[2], hidden[2]) == (1, 0, 0)


def test_part_numbers_are_never_mixed(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 4, (50, 70)).astype(np.uint8) * 5
    Image.fromarray(numbers * 7).save(tmp_path / "image.png")
    Image.fromarray(numbers).save(tmp_path / "parts.png")
    picture = Picture("a", tmp_path / "image.png", tmp_path / "parts.png", "train", None, parts=15)
    prepare_pictures(tmp_path / "store", [picture], size=50, channels=1, dataset="toys")
    np.testing.assert_array_equal(PictureStore.open(tmp_path / "store").masks[0], numbers[:, 10:60])
    prepare_pictures(tmp_path / "small", [picture], size=16, channels=1, dataset="toys")
    assert set(np.unique(PictureStore.open(tmp_path / "small").masks)) <= {0, 5, 10, 15}


def test_a_part_number_above_the_greatest_is_refused(tmp_path):
    with pytest.raises(MedsegError, match=r"part numbers from 0 to 4, wanted 0 to 3"):
        prepare_pictures(tmp_path / "s", [drawn(tmp_path, 40, 40, (20, 20), 4)], size=16, channels=1, dataset="toys")


def test_a_store_without_landmarks_does_not_name_them(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    prepare_pictures(
        tmp_path / "store", [Picture("a", tmp_path / "a.png", None, "train", None)], size=16, dataset="toys"
    )
    assert "landmarks" not in json.loads((tmp_path / "store" / "pictures.json").read_text())["pictures"][0]
    assert PictureStore.open(tmp_path / "store").landmark_tensor([0]).shape == (1, 0, 3)


def test_different_numbers_of_landmarks_are_told(tmp_path):
    pictures = [drawn(tmp_path, 40, 40, (20, 20)), drawn(tmp_path, 44, 40, (20, 20))]
    pictures[1] = Picture("b", pictures[1].image, None, "train", None)
    prepare_pictures(tmp_path / "store", pictures, size=16, channels=1, dataset="toys")
    with pytest.raises(MedsegError, match="0 to 3 landmarks"):
        PictureStore.open(tmp_path / "store").landmark_tensor([0, 1])
