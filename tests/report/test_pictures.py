"""Slices reach the page with their own colours and in their own order."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_gan.labels import UNLABELLED, lookup_table
from medseg_gan.report import pictures

TABLE = lookup_table("paper")


def decode(picture: pictures.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))))


def test_small_slices_are_enlarged_without_new_values() -> None:
    image = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    tile = decode(pictures.tile(image, "x"))
    assert tile.shape == (128, 128)
    assert np.array_equal(tile[::8, ::8], image)


def test_large_slices_are_reduced() -> None:
    picture = pictures.tile(np.zeros((512, 256), np.uint8), "x")
    assert (picture.width, picture.height) == (64, 128)


def test_overlay_leaves_background_and_unlabelled_grey() -> None:
    images = np.full((1, 1, 3), 100, np.uint8)
    labels = np.array([[[0, UNLABELLED, TABLE.id_of("heart")]]], np.uint8)
    painted = pictures.overlay(images, labels, TABLE, opacity=1.0)
    assert painted[0, 0].tolist() == [[100] * 3, [100] * 3, list(TABLE.palette[TABLE.id_of("heart")])]


def test_uncertainty_shares_one_scale() -> None:
    warm = pictures.heat(np.array([[[0.0, 0.5, 1.0, 9.0, np.nan]]]), top=1.0)[0, 0].astype(int).sum(1)
    assert warm[0] < warm[1] < warm[2]
    assert warm[2] == warm[3]
    assert warm[4] == warm[0]


def test_no_uncertainty_at_all_has_a_scale() -> None:
    assert pictures.uncertainty_top(np.zeros((2, 4, 4))) == 1.0


def test_development_keeps_first_and_last_grid(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kimg * 1000:09d}.png" for kimg in range(2, 32)]
    for path in paths:
        Image.new("L", (64, 32)).save(path)
    captions = [caption for caption, _ in pictures.development([*paths, tmp_path / "gone.png"], at_most=5)]
    assert captions[0] == "2 kimg"
    assert captions[-1] == "31 kimg"
    assert len(captions) == 5
