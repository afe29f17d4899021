"""Slices reach the page with their own colours and in their own order."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gan.errors import MedsegError
from medseg_gan.labels import UNLABELLED, lookup_table
from medseg_gan.report import pictures

TABLE = lookup_table("paper")


def decode(picture: pictures.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))))


def test_small_slices_are_enlarged_without_new_values() -> None:
    images = np.arange(2 * 16 * 16, dtype=np.uint8).reshape(2, 16, 16)
    sheet = decode(pictures.tiles(images, "x", gap=2))
    assert sheet.shape == (128, 2 * 128 + 2)
    assert np.array_equal(sheet[::8, :128:8], images[0])
    assert np.array_equal(sheet[::8, 130::8], images[1])


def test_large_slices_are_reduced() -> None:
    picture = pictures.tiles(np.zeros((1, 512, 256), np.uint8), "x")
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


def test_every_slice_is_in_one_strip() -> None:
    images = np.zeros((11, 8, 8), np.uint8)
    made = pictures.strips(images, images, None, TABLE, "real", columns=4)
    widths = [strip.lines[0][1].width for strip in made]
    assert widths == [4 * 130 - 2, 4 * 130 - 2, 3 * 130 - 2]
    assert [name for name, _ in made[0].lines] == ["real", "labels"]
    assert pictures.strips(None, None, None, TABLE, "real") == []


def test_slices_and_labels_must_belong_together() -> None:
    with pytest.raises(MedsegError, match="generated slices have shape"):
        pictures.strips(np.zeros((2, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8), None, TABLE, "generated")


def test_development_keeps_first_and_last_sheet(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kimg * 1000:09d}.png" for kimg in range(2, 32)]
    for path in paths:
        Image.new("L", (64, 32)).save(path)
    captions = [caption for caption, _ in pictures.development([*paths, tmp_path / "gone.png"], at_most=5)]
    assert captions[0] == "2 kimg"
    assert captions[-1] == "31 kimg"
    assert len(captions) == 5
